"""Builds the image with an export of the model as a build stage; skipped without the wheel of torch."""

import os
import shutil
import uuid
from pathlib import Path

import pytest

from tests.docker.conftest import ROOT, Docker


def torch_wheel() -> Path:
    """The wheel in `wheels/` or PIP_FIND_LINKS; skips if there is none."""
    folders = [ROOT / "wheels", *(Path(word) for word in os.environ.get("PIP_FIND_LINKS", "").split())]
    version = next(
        line.removeprefix("torch==")
        for line in (ROOT / "requirements-export.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith("torch==")
    )
    for folder in folders:
        for wheel in folder.glob(f"torch-{version}*cp311*.whl"):
            return wheel
    pytest.skip(f"the wheel of torch {version} is in none of {[str(folder) for folder in folders]}")


@pytest.mark.timeout(1500)
def test_a_hugging_face_folder_is_exported_into_the_image(docker: Docker, tmp_path: Path) -> None:
    wheel = torch_wheel()
    for part in ("service", "export", "deploy"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for file in ("Dockerfile", ".dockerignore", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / file, tmp_path)
    shutil.copytree(ROOT / "tests/models/tiny", tmp_path / "models/tiny")
    (tmp_path / "wheels").mkdir()
    shutil.copy(wheel, tmp_path / "wheels")
    name = f"qa-test-export:{uuid.uuid4().hex[:8]}"
    docker(
        *("build", "--network", "host", "-t", name, "--build-arg", "MODEL=models/tiny"),
        # The wheel is local, so no index is needed.
        *("--build-arg", "TORCH_INDEX=file:///nowhere", "--build-arg", "EXPORT_FLAGS=--precision fp32"),
        str(tmp_path),
    )
    try:
        checked = docker("run", "--rm", "--network", "none", "--read-only", name, "check")
        assert "fp32 for portable; files intact" in checked
        found = docker(
            *("run", "--rm", "--entrypoint", "python", name, "-c"),
            "import importlib.util as u; print([n for n in ('torch', 'transformers') if u.find_spec(n)])",
        )
        assert found == "[]"
    finally:
        docker("rmi", "-f", name, check=False)
