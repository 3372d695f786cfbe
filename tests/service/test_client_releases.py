"""Runs the tests of clients with releases that conflict with the development environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import ROOT

# transformers 4.57 requires huggingface_hub below 1; MLServer requires its own versions of many packages.
RELEASES = {
    "huggingface_hub==2.4.0": ("test_huggingface.py", "test_"),
    "mlserver==1.7.1": ("test_open_inference.py", "test_mlservers_own_codecs"),
}
# Kept between runs; `make clean` removes it.
FOLDER = ROOT / "build/clients"


def installed(requirement: str) -> Path:
    """A folder with that release and its dependencies, to be put first on PYTHONPATH."""
    folder = FOLDER / f"{requirement}-python{sys.version_info.major}.{sys.version_info.minor}"
    if (folder / "complete").exists():
        return folder
    if not os.environ.get("TEST_CLIENTS"):
        pytest.skip(f"{requirement} is not in {FOLDER.relative_to(ROOT)}: TEST_CLIENTS=1 installs it there")
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    try:
        done = subprocess.run(
            [*pip, "--target", str(folder), requirement], capture_output=True, text=True, timeout=240
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{requirement} was not installed within 240 s")
    if done.returncode:
        pytest.skip(f"{requirement} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    (folder / "complete").touch()
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("requirement", RELEASES)
def test_a_release_passes_the_tests_of_its_client(requirement: str) -> None:
    file, names = RELEASES[requirement]
    folder = installed(requirement)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/service/{file}", "-k", names],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
