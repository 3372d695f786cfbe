"""Fixtures of the export tests: a tiny random BERT, and the export command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/models/tiny"

Export = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny() -> Path:
    """A Hugging Face folder of a tiny BERT."""
    return TINY


@pytest.fixture
def export() -> Export:
    """Run `python -m export` in a subprocess."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "export", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=env,
        )

    return run
