"""Owns the steps of a bulk run, new or resumed; knows no format's details."""

import argparse
import hashlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from service import __version__
from service.bulk.answer import answer
from service.bulk.formats import read_rows, write_answers
from service.bulk.journal import Journal
from service.bulk.progress import show
from service.bulk.rows import Chunk
from service.bulk.task import BadFile, Task, read_task
from service.bulk.write import write_output
from service.engine.artifact import MANIFEST_FILE, load_artifact
from service.settings import Settings

_INTERRUPTED = 130  # exit status of shells after SIGINT


def bulk(settings: Settings, options: argparse.Namespace) -> int:
    """Answer the rows of the input; exit status 1 with --fail-on-errors and an invalid row.

    A run with the same task resumes an interrupted one; the output is that of an uninterrupted run. Raises
    BadFile and the engine's errors.
    """
    task = read_task(options)
    try:
        return _run(task, settings)
    except KeyboardInterrupt:
        print("qa-onnx: interrupted; run the same command to resume.", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        raise BadFile(f"{error.filename or task.output}: {error.strerror}.") from error


def _run(task: Task, settings: Settings) -> int:
    output, state = task.output, _state(task.input)
    for path in (output, task.errors):
        if path.exists() and not path.is_file():
            raise BadFile(f"{path} is not a regular file.")
    if output.exists() and not task.journal.exists() and not task.restart:
        raise BadFile(f"{output} already exists: --restart replaces it.")
    described = _describe(task, settings)
    with closing(Journal(task.journal, described, restart=task.restart)) as journal:
        started, done = time.monotonic(), journal.rows
        for chunk in _chunks(task, settings, done):
            journal.append(chunk.outcomes)
        if _state(task.input) != state:
            raise BadFile(f"{task.input} was changed while it was read: start over with --restart.")
        journal.sync()
        rate = (journal.rows - done) / (time.monotonic() - started)
        counts = write_output(
            partial(write_answers, task),
            journal.outcomes(),
            output,
            task.errors,
        )
        journal.remove()
    bad = f", {counts['bad']:,} invalid rows listed in {task.errors}" if counts["bad"] else ""
    print(f"{output}: {counts['answered']:,} rows answered{bad} ({rate:,.1f} rows/s)")
    return 1 if counts["bad"] and task.fail_on_errors else 0


def _chunks(task: Task, settings: Settings, done: int) -> Iterator[Chunk]:
    """Outcomes of the rows after the first `done`, in chunks."""
    rows = read_rows(task)
    last = deque(islice(rows, done), maxlen=1)  # skips the rows that are done
    share = last[0].share if last else 0.0
    if task.engine == "ray":
        from service.bulk.cluster import answer_on_ray  # lazily: Ray is an extra

        chunks = answer_on_ray(task, settings, done)
    else:
        chunks = answer(rows, settings, task.parameters)
    return show(chunks, done, share)


def _describe(task: Task, settings: Settings) -> dict[str, Any]:
    """Everything that determines the outcomes: a run resumes only from a journal with the same values."""
    artifact = load_artifact(settings.model)
    return {
        "input": _digest(task.input),
        "model": _digest(artifact.path / MANIFEST_FILE),  # it has the digests of the other files
        "version": __version__,
        "format": [task.input_format, task.output_format, task.delimiter],
        "columns": asdict(task.columns),
        "parameters": asdict(task.parameters),
        "settings": [settings.kernel, settings.token_budget],  # they affect the rounding of scores
    }


def _digest(path: Path) -> str:
    """SHA-256; about a second per GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    """Inode, size and modification time, to detect changes."""
    if not path.exists():
        raise BadFile(f"There is no file {path}.")
    if not path.is_file():
        raise BadFile(f"{path} is not a regular file: the input is read twice, so it cannot be a pipe.")
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
