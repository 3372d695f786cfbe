"""Owns the CSV and TSV formats, with columns added for the answer; knows no inference."""

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, TextIO

import msgspec

from service.bulk.rows import LONGEST_ROW, Outcome, Problem, Row, ask, check_columns, refuse
from service.bulk.task import BadFile, Task

# Invalid UTF-8 is copied to the output unchanged; in a question or a context it makes the row invalid.
_BYTES_AS_THEY_ARE = "surrogateescape"


class Table:
    """A delimited file with a header, in UTF-8, quoted as in RFC 4180.

    With top_k 1 the columns NAME, NAME_start, NAME_end and NAME_score are added, else a column NAME with the
    list of answers as JSON.
    """

    def __init__(self, task: Task) -> None:
        """Raises BadFile if the header lacks a column or has one that would be added."""
        self._path, self._columns, self._delimiter = task.input, task.columns, task.delimiter
        self._several = task.parameters.top_k > 1
        name = task.columns.answer
        self._added = [name] if self._several else [name, f"{name}_start", f"{name}_end", f"{name}_score"]
        csv.field_size_limit(LONGEST_ROW)  # process-wide, but nothing else here reads CSV
        with self._path.open("rb") as file:
            first = file.readline(LONGEST_ROW)
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise BadFile(f"{self._path} is UTF-16: convert it to UTF-8.")
        self._mark = first.startswith(codecs.BOM_UTF8)
        self._line_end = "\r\n" if first.endswith(b"\r\n") else "\n"
        with self._open() as file:
            self._header = self._read_header(next(self._cells(file), (0, []))[1])

    def rows(self) -> Iterator[Row]:
        """All rows after the header, in order; an invalid one has a Problem."""
        size = max(self._path.stat().st_size, 1)
        with self._open() as file:
            for line, cells in self._body(file):
                yield replace(self._row(cells, line), share=file.buffer.tell() / size)

    def write(self, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
        """Write the header and the answered rows, with the answer's columns last."""
        encoding = "utf-8-sig" if self._mark else "utf-8"
        text = io.TextIOWrapper(out, encoding, errors=_BYTES_AS_THEY_ARE, newline="", write_through=True)
        try:
            writer = csv.writer(text, delimiter=self._delimiter, lineterminator=self._line_end)
            writer.writerow([*self._header, *self._added])
            with self._open() as file:
                for (_, cells), outcome in zip(self._body(file), outcomes, strict=True):
                    if not isinstance(outcome, Problem) and isinstance(cells, list):
                        writer.writerow([*cells, *self._answer_cells(outcome)])
        finally:
            text.detach()  # without closing `out`

    def _read_header(self, cells: list[str] | csv.Error) -> list[str]:
        if not isinstance(cells, list):
            raise BadFile(f"The header of {self._path} is not valid CSV: {cells}.")
        check_columns(self._path, cells, self._columns, self._added)
        return cells

    def _answer_cells(self, outcome: Outcome) -> list[object]:
        if isinstance(outcome, Problem):
            return []
        if self._several:
            return [msgspec.json.encode(outcome).decode()]
        best = outcome[0]
        return [best.answer, best.start, best.end, best.score]

    def _row(self, cells: list[str] | csv.Error, line: int) -> Row:
        if not isinstance(cells, list):
            return refuse(f"The row is not valid CSV: {cells}.", line=line)
        if len(cells) != len(self._header):
            reason = f"The row has {len(cells)} fields, the header {len(self._header)}."
            return refuse(reason, line=line)
        return ask(dict(zip(self._header, cells, strict=True)), self._columns, line)

    def _body(self, file: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
        cells = self._cells(file)
        next(cells, None)  # the header
        return cells

    def _cells(self, file: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
        """Last line number and cells of each row, header included; blank lines are skipped."""
        reader = csv.reader(file, delimiter=self._delimiter)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, error
            else:
                if cells:
                    yield reader.line_num, cells

    def _open(self) -> TextIO:
        return self._path.open(encoding="utf-8-sig", errors=_BYTES_AS_THEY_ARE, newline="")
