"""Owns the atomic writing of the output and the errors file; knows no model."""

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
    """Write both files from the outcomes of all rows; returns the counts of "answered" and "bad" rows.

    Without invalid rows there is no errors file (one of an earlier run is deleted). The output is renamed
    into place last, so that it exists only if everything is complete.
    """
    counts: Counter[str] = Counter(answered=0, bad=0)
    with _atomic(output) as out:
        with _atomic(errors) as problems:
            write(_write_problems(outcomes, problems, counts), out)
        if not counts["bad"]:
            errors.unlink()
    return counts


def _write_problems(
    outcomes: Iterator[Outcome], problems: IO[bytes], counts: Counter[str]
) -> Iterator[Outcome]:
    """Pass the outcomes through; write each Problem to `problems` with its row number, from 1."""
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Problem):
            counts["bad"] += 1
            line = {"row": number, **msgspec.to_builtins(outcome)}
            problems.write(msgspec.json.encode(line) + b"\n")
        else:
            counts["answered"] += 1
        yield outcome


@contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    """An output file that is renamed into place after fsync, or deleted after an exception."""
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
