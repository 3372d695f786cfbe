"""Fixtures of the Docker tests: a client with BuildKit, and the image of the service."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Docker:
    """A Docker client with BuildKit and a running engine."""

    program: str

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [self.program, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            cwd=ROOT,
        )
        assert not check or done.returncode == 0, done.stderr[-4000:]
        return done.stdout.strip()


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Docker:
    # Not every client on PATH may have BuildKit: try a minimal build with each.
    probe = tmp_path_factory.mktemp("probe")
    (probe / "Dockerfile").write_text("FROM scratch\nLABEL probe=1\n")
    for folder in os.get_exec_path():
        program = shutil.which("docker", path=folder)
        if program:
            built = subprocess.run(
                [program, "build", "-q", str(probe)],
                capture_output=True,
                env=os.environ | {"DOCKER_BUILDKIT": "1"},
            )
            if built.returncode == 0:
                return Docker(program)
    pytest.skip("no Docker engine with BuildKit is running")


@pytest.fixture(scope="session")
def image(docker: Docker) -> Iterator[str]:
    if not (ROOT / "models/default/manifest.json").is_file():
        pytest.skip("there is no default model to put into the image")
    name = f"qa-test:{uuid.uuid4().hex[:8]}"
    docker("build", "--network", "host", "--build-arg", "MODEL=default", "-t", name, ".")
    yield name
    docker("rmi", "-f", name)
