"""Owns the JSON Lines format: an object per line, with the answer added on output; knows no inference."""

import codecs
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, BinaryIO

import msgspec

from service.bulk.rows import LONGEST_ROW, Outcome, Problem, Row, answer_value, ask, refuse, refuse_taken
from service.bulk.task import Task
from service.engine.parameters import Parameters


class JsonLines:
    """A JSON Lines file; blank lines are skipped."""

    def __init__(self, task: Task) -> None:
        self._path, self._columns, self._parameters = task.input, task.columns, task.parameters

    def rows(self) -> Iterator[Row]:
        """All rows in order; an invalid one has a Problem."""
        size = max(self._path.stat().st_size, 1)
        with self._path.open("rb") as file:
            for number, line in _lines(file):
                yield replace(self._row(line, number), share=file.tell() / size)

    def write(self, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
        """Write the line of each answered row unchanged, byte for byte, with the answer as its last field."""
        name = msgspec.json.encode(self._columns.answer)
        with self._path.open("rb") as file:
            for (_, line), outcome in zip(_lines(file), outcomes, strict=True):
                if isinstance(outcome, Problem):
                    continue
                fields = line.strip().removeprefix(codecs.BOM_UTF8).removesuffix(b"}").rstrip()
                value = msgspec.json.encode(answer_value(outcome, self._parameters))
                out.write(b"".join((fields, b",", name, b":", value, b"}\n")))

    def _row(self, line: bytes, number: int) -> Row:
        if len(line) > LONGEST_ROW:
            return refuse(f"The line is longer than {LONGEST_ROW >> 20} MiB.", line=number)
        try:
            record = msgspec.json.decode(line.removeprefix(codecs.BOM_UTF8))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = error.reason if isinstance(error, UnicodeDecodeError) else error
            return refuse(f"The line is not valid JSON: {reason}.", line=number)
        if not isinstance(record, dict):
            return refuse("The line is not a JSON object.", line=number)
        row = ask(record, self._columns, number)
        if self._columns.answer in record:
            return refuse_taken(row, self._columns.answer)
        return row


def write_lines(
    rows: Iterator[Row], outcomes: Iterator[Outcome], out: IO[bytes], name: str, parameters: Parameters
) -> None:
    """Write answered rows of another format as JSON Lines."""
    for row, outcome in zip(rows, outcomes, strict=True):
        if not isinstance(outcome, Problem):
            value = answer_value(outcome, parameters)
            out.write(msgspec.json.encode({**(row.record or {}), name: value}) + b"\n")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each non-blank line; an overlong one is truncated to LONGEST_ROW + 1 bytes."""
    for number in itertools.count(1):
        line = file.readline(LONGEST_ROW + 1)
        if not line:
            return
        rest = line
        while len(rest) > LONGEST_ROW and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_ROW + 1)
        if line.strip():
            yield number, line
