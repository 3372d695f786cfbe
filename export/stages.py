"""Owns the progress line of each export stage; knows no stage."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export import storage


class Note:
    """The description of a stage's result."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, result: Path | str, name: str = "") -> None:
        if isinstance(result, Path):
            self.text = f"{storage.size(result) / 1e6:.1f} MB  {name}"
        else:
            self.text = result


@contextmanager
def stage(name: str) -> Iterator[Note]:
    """Print a progress line: the stage's name, seconds and result."""
    note = Note()
    started = time.monotonic()
    yield note
    print(f"{name:<10}{time.monotonic() - started:>7.1f} s  {note.text}".rstrip(), file=sys.stderr)
