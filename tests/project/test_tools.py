"""The checks of `make lint`: style, types, and pinned requirements that match pyproject.toml."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_style() -> None:
    run("ruff", "check")
    run("ruff", "format", "--check")


def test_types() -> None:
    run("mypy")


def test_the_audit_reads_every_pinned_package() -> None:
    """`make audit` without its network requests."""
    command = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "pip-audit" in line)
    flags = command.split("pip-audit", 1)[1].split()
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--dry-run", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pinned = (ROOT / "requirements-dev.txt").read_text().count("==")
    assert f"would have audited {pinned} packages" in done.stderr


@pytest.fixture
def requirements() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements", ROOT / "deploy/requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for file in [ROOT / "pyproject.toml", *ROOT.glob("requirements*.txt")]:
        shutil.copy(file, tmp_path)
    return tmp_path


def test_pinned_requirements_match_the_project(requirements: ModuleType) -> None:
    assert requirements.faults(ROOT) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("requirements.txt", "flask==3.1.3\n", "", "requirements.txt lacks flask."),
        ("requirements.txt", "flask==", "flask>=", "is no exact pin"),
        ("requirements.txt", "flask==3.1.3", "flask==2.0.0", "pyproject.toml wants flask"),
        ("requirements-dev.txt", "numpy==", "numpy==2.0.0.", "the smaller file"),
        ("requirements.txt", "jinja2", "huggingface-hub==0.1\njinja2", "which is left out"),
        ("requirements-export.txt", "torch==2.13.0", "torch==2.12.0", "pyproject.toml wants torch"),
    ],
)
def test_a_tampered_requirement_is_detected(
    requirements: ModuleType, copy: Path, name: str, old: str, new: str, fault: str
) -> None:
    file = copy / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert any(fault in found for found in requirements.faults(copy))


def test_the_installer_rejects_unknown_arguments(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "deploy/install.sh", "everything", tmp_path / "venv"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_sbom_lists_the_installed_packages(runtime_python: Path) -> None:
    done = subprocess.run(
        [sys.executable, "deploy/sbom.py", runtime_python.parents[1], "models/default"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "qa-onnx")
    libraries = {c["name"]: c for c in bill["components"] if c["type"] == "library"}
    listed = subprocess.run(
        [runtime_python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    installed = {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}
    assert {name: library["version"] for name, library in libraries.items()} == installed
    assert all(c["purl"].startswith("pkg:pypi/") and c["licenses"] for c in libraries.values())
    (model,) = (c for c in bill["components"] if c["type"] == "machine-learning-model")
    files = json.loads((ROOT / "models/default/manifest.json").read_text())["files"]
    hashes = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert hashes == {name: entry["sha256"] for name, entry in files.items()}
