"""Owns which format reads and which writes a task's files; knows no format from inside."""

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Protocol

from service.bulk.lines import JsonLines, write_lines
from service.bulk.rows import Outcome, Problem, Row, refuse
from service.bulk.squad import Squad, write_predictions
from service.bulk.table import Table
from service.bulk.task import Task


class Format(Protocol):
    """A file in one of the formats."""

    def rows(self) -> Iterator[Row]:
        """Every row in order; a bad one says why."""

    def write(self, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
        """The file again, with the answers; rows without one are left out."""


def read_rows(task: Task) -> Iterator[Row]:
    """Every row of the input, the same ones as often as it is called."""
    rows = _open(task).rows()
    return _identified(rows, task.columns.id) if task.output_format == "predictions" else rows


def write_answers(task: Task, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
    """The output, from the outcomes of all rows in order."""
    if task.output_format == task.input_format:
        _open(task).write(outcomes, out)
    elif task.output_format == "predictions":
        write_predictions(read_rows(task), outcomes, out)
    else:
        write_lines(read_rows(task), outcomes, out, task.columns.answer, task.parameters)


def _open(task: Task) -> Format:
    if task.input_format == "parquet":
        from service.bulk.parquet import Parquet  # only here: pyarrow is an extra

        return Parquet(task)
    kinds: dict[str, type[JsonLines | Squad | Table]] = {
        "jsonl": JsonLines,
        "squad": Squad,
        "csv": Table,
        "tsv": Table,
    }
    return kinds[task.input_format](task)


def _identified(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Rows, those without an id refused: a prediction is told by its id."""
    for row in rows:
        if row.id is None and not isinstance(row.asked, Problem):
            yield replace(refuse(f"The id (column {name}) is missing.", "id", line=row.line), share=row.share)
        else:
            yield row
