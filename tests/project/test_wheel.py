"""The wheel, installed into a new environment and used from outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "deploy", "models/default", "service")
CONTEXT = "The bridge was opened in 1931."


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a build reads, without compiled ones."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(sources: Path, folder: Path, **environment: str) -> Path:
    """Build the wheel like `pip install .`, but with the installed setuptools, so without a network."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    line = [*pip, "-w", str(folder), str(sources)]
    done = subprocess.run(line, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


class Installed:
    """An environment with the wheel; its dependencies come from the run-time environment by a .pth file."""

    def __init__(self, folder: Path, wheel: Path, runtime_python: Path) -> None:
        venv.create(folder, with_pip=True)
        self._programs = folder / "bin"
        self._elsewhere = folder / "elsewhere"
        self._elsewhere.mkdir()
        self.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
        find = "import sysconfig; print(sysconfig.get_path('purelib'))"
        lent = subprocess.check_output([runtime_python, "-c", find], text=True)
        self.packages = Path(self.run("python", "-c", find).strip())
        (self.packages / "lent.pth").write_text(lent)

    def run(self, program: str, *arguments: str, text: str = "", status: int = 0) -> str:
        """Run an installed program without the tests' environment variables; returns its output."""
        line = [str(self._programs / program), *arguments]
        done = subprocess.run(
            line, input=text, cwd=self._elsewhere, env={"PATH": os.defpath}, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory, runtime_python: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed") / "env", wheel, runtime_python)


def test_the_installed_command_answers(installed: Installed) -> None:
    assert installed.run("qa-onnx", "--help").startswith("usage: qa-onnx ")
    assert "bulk" in installed.run("qa-onnx", "--help")
    question = ("--question", "When was the bridge opened?", "--context-file", "-")
    assert installed.run("qa-onnx", "answer", *question, text=CONTEXT).startswith("1931\t")
    assert str(installed.packages / "service/default_model") in installed.run("qa-onnx", "check")


def test_qa_onnx_can_be_imported(installed: Installed) -> None:
    program = (
        "from qa_onnx import pipeline\n"
        "qa = pipeline('question-answering')\n"
        f"print(qa(question='When was it opened?', context='{CONTEXT}')['answer'])"
    )
    assert installed.run("python", "-c", program) == "1931\n"


def test_bulk_works(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"question,context\nWhen was it opened?,{CONTEXT}\n")
    files = ("--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv"))
    assert "1 rows answered" in installed.run("qa-onnx", "bulk", *files)
    assert "1931" in (tmp_path / "out.csv").read_text().splitlines()[1].split(",")[2]


def test_it_works_without_the_compiled_parts(installed: Installed) -> None:
    compiled = list((installed.packages / "service/engine/native").glob("*.so"))
    if not compiled:
        pytest.skip("there is no C compiler, so the wheel has no compiled parts")
    for file in compiled:
        file.rename(file.with_suffix(".hidden"))
    try:
        assert "graph: portable" in installed.run("qa-onnx", "check")
    finally:
        for file in compiled:
            file.with_suffix(".hidden").rename(file)


def test_a_missing_model_is_reported(installed: Installed) -> None:
    model = installed.packages / "service/default_model"
    model.rename(model.with_name("hidden"))
    try:
        output = installed.run("qa-onnx", "check", status=2)
    finally:
        model.with_name("hidden").rename(model)
    assert output.startswith("qa-onnx: There is no model folder at ")
    assert output.count("\n") == 1


def test_a_wheel_with_compiled_parts_is_for_this_platform(wheel: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")


def test_a_wheel_without_compiled_parts_is_for_any_platform(sources: Path, tmp_path: Path) -> None:
    wheel = build(sources, tmp_path, CC="no-such-compiler", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_a_wheel_has_no_files_of_an_earlier_build(wheel: Path, sources: Path, tmp_path: Path) -> None:
    assert wheel.is_file()  # it was built before, and left its files in build/lib
    assert any(sources.glob("build/lib/service/**/*.py"))
    with zipfile.ZipFile(build(sources, tmp_path, CC="false")) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]


def test_a_wheel_can_be_built_from_the_source_distribution(sources: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, 'deploy'); import build_backend as b; b.build_sdist(sys.argv[1])"
    )
    line = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(line, cwd=sources, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    archive.unlink()
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    wheel = build(unpacked, tmp_path / "wheel")
    assert wheel.stat().st_size > 10 << 20  # with the model
