"""Installation ignores the user's pip configuration, except for indexes, proxies and certificates."""

import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Each of these makes a plain `pip install` fail, or install something else, or elsewhere.
INTERFERING = {
    "user": "1",
    "target": "/nowhere/target",
    "prefix": "/nowhere/prefix",
    "root": "/nowhere/root",
    "require-hashes": "1",
    "dry-run": "1",
    "constraint": "/nowhere/constraints.txt",
    "requirement": "/nowhere/requirements.txt",
    "no-binary": ":all:",
    "python": "/nowhere/python",
    "log": "/nowhere/log",
    "quiet": "1",
    "report": "/nowhere/report",
    "isolated": "1",
}


def wheel(folder: Path, name: str) -> Path:
    """A wheel of one empty module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment."""
    venv = tmp_path_factory.mktemp("install") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    return venv / "bin/python"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Environment variables of a user without any pip configuration."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return own | {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "home/.config")}


def install(python: Path, name: str, environment: dict[str, str]) -> None:
    """Install the package `name`, which is not installed yet, and check that it can be imported."""
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    assert subprocess.run([python, "-c", find], check=False).returncode == 1
    done = subprocess.run(
        [python, ROOT / "deploy/install_packages.py", name],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert subprocess.run([python, "-c", find], check=False).returncode == 0


def test_pip_variables_are_ignored(python: Path, home: dict[str, str], tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "qa_variables")
    interfering = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in INTERFERING.items()}
    kept = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    install(python, "qa_variables", home | interfering | kept)


@pytest.mark.parametrize("section", ["global", "install"])
def test_pip_configuration_files_are_ignored(
    python: Path, home: dict[str, str], tmp_path: Path, section: str
) -> None:
    wheel(tmp_path / "wheels", f"qa_file_{section}")
    # With these in [global] every pip command fails, including `pip config list`.
    interfering = {name: value for name, value in INTERFERING.items() if name not in ("python", "isolated")}
    lines = [f"{name} = {value}" for name, value in interfering.items()]
    lines += ["no-index = true", f"find-links = {tmp_path / 'wheels'}"]
    file = tmp_path / "home/.config/pip/pip.conf"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join([f"[{section}]", *lines, ""]))
    install(python, f"qa_file_{section}", home)
    file.rename(tmp_path / "elsewhere.conf")
    wheel(tmp_path / "wheels", f"qa_named_{section}")
    install(python, f"qa_named_{section}", home | {"PIP_CONFIG_FILE": str(tmp_path / "elsewhere.conf")})


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A package index over HTTP, and the requested paths."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    folder = tmp_path / "simple"
    folder.mkdir()
    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
        server.shutdown()


@pytest.mark.parametrize("way", ["variable", "file"])
def test_a_custom_index_is_used(
    python: Path, home: dict[str, str], tmp_path: Path, index: tuple[str, list[str]], way: str
) -> None:
    address, asked = index
    name = f"qa_index_{way}"
    wheel(tmp_path / "simple" / name.replace("_", "-"), name)
    if way == "variable":
        home["PIP_INDEX_URL"] = address
    else:
        file = tmp_path / "home/.config/pip/pip.conf"
        file.parent.mkdir(parents=True)
        file.write_text(f"[global]\nindex-url = {address}\n[install]\nrequire-hashes = true\n")
    install(python, name, home | {"no_proxy": "*"})
    assert f"/simple/{name.replace('_', '-')}/" in asked


def test_proxy_and_certificates_are_kept(python: Path, home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nproxy = http://proxy:3128\ncert = /etc/ca.pem\nextra-index-url =\n  http://a\n  http://b\n"
        "[install]\ntrusted-host = a\nuser = yes\n[list]\nformat = columns\n"
    )
    given = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_CERT": "/own.pem", "PIP_TARGET": "/x"}
    code = "import install_packages, os; print(install_packages.configured(dict(os.environ)))"
    done = subprocess.run(
        [python, "-c", code],
        env=home | given,
        cwd=ROOT / "deploy",
        capture_output=True,
        text=True,
        check=True,
    )
    found = done.stdout
    for kept in ("'PIP_PROXY': 'http://proxy:3128'", "'PIP_CERT': '/own.pem'", "'PIP_TRUSTED_HOST': 'a'"):
        assert kept in found
    assert r"'PIP_EXTRA_INDEX_URL': '\nhttp://a\nhttp://b'" in found
    for dropped in ("TARGET", "USER", "FORMAT"):
        assert f"PIP_{dropped}'" not in found
