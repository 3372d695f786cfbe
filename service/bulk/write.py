"""Owns the output and the errors file, which appear whole or not at all; knows no model."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from service.bulk.rows import Outcome, Problem


def write_output(
    write: Callable[[Iterator[Outcome], IO[bytes]], None],
    outcomes: Iterator[Outcome],
    output: Path,
    errors: Path,
) -> Counter[str]:
    """Write both files from the outcomes of all rows, and count "answered" and "bad".

    Without a bad row there is no errors file, not even one of an earlier run. The output comes last, so
    that its being there means that all is done.
    """
    counts: Counter[str] = Counter(answered=0, bad=0)
    with _whole(output) as out:
        with _whole(errors) as problems:
            write(_sort_out(outcomes, problems, counts), out)
        if not counts["bad"]:
            errors.unlink()
    return counts


def _sort_out(outcomes: Iterator[Outcome], problems: IO[bytes], counts: Counter[str]) -> Iterator[Outcome]:
    """The outcomes as they come; the problems among them are written with their row's number, from 1."""
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Problem):
            counts["bad"] += 1
            line = {"row": number, **msgspec.to_builtins(outcome)}
            problems.write(msgspec.json.encode(line) + b"\n")
        else:
            counts["answered"] += 1
        yield outcome


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when all of it is on the disk, and leaves nothing if it fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
