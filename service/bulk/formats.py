"""Owns the dispatch from formats to readers and writers; knows no format's details."""

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Protocol

from service.bulk.lines import JsonLines, write_lines
from service.bulk.rows import Outcome, Problem, Row, refuse
from service.bulk.squad import Squad, write_predictions
from service.bulk.table import Table
from service.bulk.task import Task


class Format(Protocol):
    """Reader and writer of one file format."""

    def rows(self) -> Iterator[Row]:
        """All rows in order; an invalid one has a Problem."""

    def write(self, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
        """Write the input with answers added; invalid rows are omitted."""


def read_rows(task: Task) -> Iterator[Row]:
    """All rows of the input; each call reads it anew."""
    rows = _open(task).rows()
    return _identified(rows, task.columns.id) if task.output_format == "predictions" else rows


def write_answers(task: Task, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
    """Write the output from the outcomes of all rows in order."""
    if task.output_format == task.input_format:
        _open(task).write(outcomes, out)
    elif task.output_format == "predictions":
        write_predictions(read_rows(task), outcomes, out)
    else:
        write_lines(read_rows(task), outcomes, out, task.columns.answer, task.parameters)


def _open(task: Task) -> Format:
    if task.input_format == "parquet":
        from service.bulk.parquet import Parquet  # lazily: pyarrow is an extra

        return Parquet(task)
    kinds: dict[str, type[JsonLines | Squad | Table]] = {
        "jsonl": JsonLines,
        "squad": Squad,
        "csv": Table,
        "tsv": Table,
    }
    return kinds[task.input_format](task)


def _identified(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """The rows; those without an id become invalid, since predictions are keyed by id."""
    for row in rows:
        if row.id is None and not isinstance(row.asked, Problem):
            yield replace(refuse(f"The id (column {name}) is missing.", "id", line=row.line), share=row.share)
        else:
            yield row
