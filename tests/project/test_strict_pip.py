"""A caller's pip configuration neither breaks nor bends the environments; a company's index keeps working."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    return folder / "bin/python"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A package index, as a company's, with the one package `parcel`."""
    folder = tmp_path / "simple/parcel"
    folder.mkdir(parents=True)
    wheel = folder / "parcel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("parcel.py", "inside = 1\n")
        info = "parcel-1.0.dist-info"
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"parcel.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return tmp_path / "simple"


def install(python: Path, home: Path, **told: str) -> Path:
    """Install the package, and say where it is then found; the caller's own configuration is left out."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment = plain | {"HOME": str(home), "XDG_CONFIG_HOME": str(home)} | told
    done = subprocess.run(
        [python, ROOT / "deploy/strict_pip.py", "install", "--force-reinstall", "--quiet", "parcel==1.0"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = subprocess.run(
        [python, "-c", "import parcel; print(parcel.__file__)"], capture_output=True, text=True, check=True
    )
    return Path(found.stdout.strip())


def test_variables_do_not_bend_it(python: Path, index: Path, tmp_path: Path) -> None:
    """Each of these by itself would."""
    told = {
        **dict.fromkeys(("PIP_USER", "PIP_REQUIRE_HASHES", "PIP_DRY_RUN"), "1"),
        **dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"), str(tmp_path / "elsewhere")),
        "PIP_NO_BINARY": ":all:",
        "PIP_CONSTRAINT": str(tmp_path / "missing"),
        "PIP_PYTHON": sys.executable,
        "PIP_INDEX_URL": index.as_uri(),
    }
    assert python.parent.parent in install(python, tmp_path, **told).parents
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("section", "place"), [("global", "variable"), ("install", "home")])
def test_files_do_not_bend_it_and_their_index_is_used(
    python: Path, index: Path, tmp_path: Path, section: str, place: str
) -> None:
    file = tmp_path / "pip/pip.conf"
    file.parent.mkdir()
    file.write_text(
        f"[{section}]\nindex-url = {index.as_uri()}\ntarget = {tmp_path / 'elsewhere'}\n"
        "require-hashes = true\nno-binary = :all:\ntrusted-host =\n    one.example\n    two.example\n"
    )
    told = {"PIP_CONFIG_FILE": str(file)} if place == "variable" else {}
    assert python.parent.parent in install(python, tmp_path, **told).parents
    assert not (tmp_path / "elsewhere").exists()


def test_modules_on_the_callers_path_are_not_taken_for_installed(
    python: Path, index: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    with zipfile.ZipFile(next(index.rglob("*.whl"))) as wheel:
        wheel.extractall(elsewhere)
    told = {"PYTHONPATH": str(elsewhere), "PIP_INDEX_URL": index.as_uri()}
    assert python.parent.parent in install(python, tmp_path, **told).parents


def test_every_pip_of_the_project_is_this_one() -> None:
    for file in (ROOT / "deploy").glob("*.sh"):
        for line in file.read_text().splitlines():
            assert "-m pip install" not in line, f"{file}: {line}"
