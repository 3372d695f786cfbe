"""Fixtures shared by several folders: the run-time environment and a free port."""

import socket
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("project", deadline=None)  # no test asserts a duration
settings.load_profile("project")


@pytest.fixture(scope="session")
def runtime_python() -> Path:
    """The interpreter of the environment that has the run-time packages only."""
    python = ROOT / ".venv/bin/python"
    if not python.exists():
        pytest.skip("there is no run-time environment: `make test` creates it")
    return python


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback interface that was free when the test began."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
