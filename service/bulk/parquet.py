"""Owns the Parquet format, with one column added for the answer; knows no inference."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import IO, Any

from service.bulk.rows import Outcome, Problem, Row, ask, check_columns, refuse
from service.bulk.task import BadFile, Task

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise BadFile("Parquet needs pyarrow: install it with 'pip install qa-onnx[parquet]'.") from missing

_BATCH_ROWS = 256  # rows decoded at a time
_READ_BYTES = 1 << 20  # buffer per column, independent of the row group size
# Maximum size of an output row group.
_GROUP_ROWS, _GROUP_BYTES = 65_536, 64 << 20


class Parquet:
    """A Parquet file; the answer column is a struct, or for top_k > 1 a list of structs."""

    def __init__(self, task: Task) -> None:
        """Raises BadFile if the file is not Parquet or a column is missing, mistyped or taken."""
        self._path, self._columns = path, columns = task.input, task.columns
        self._records = task.output_format == "jsonl"  # needs all columns of a row
        with self._open() as file:
            self._schema = file.schema_arrow
        check_columns(path, self._schema.names, columns, [columns.answer])
        # The fields of `Answer`; int64 and float64 are the usual types.
        answer = pa.struct(
            [("answer", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("score", pa.float64())]
        )
        self._several = task.parameters.top_k > 1
        self._answers = pa.list_(answer) if self._several else answer

    def rows(self) -> Iterator[Row]:
        """All rows in order; an invalid one has a Problem."""
        names = [self._columns.question, self._columns.context, self._columns.id]
        with self._open() as file:
            total = max(file.metadata.num_rows, 1)
            wanted = None if self._records else [name for name in names if name in self._schema.names]
            number = 0
            for batch in self._batches(file, wanted):
                for row in self._rows(batch):
                    number += 1
                    yield replace(row, share=number / total)

    def write(self, outcomes: Iterator[Outcome], out: IO[bytes]) -> None:
        """Write the unchanged columns of the answered rows and the answer column."""
        schema = self._schema.append(pa.field(self._columns.answer, self._answers))
        with self._open() as file, pq.ParquetWriter(out, schema) as writer:
            group: list[pa.RecordBatch] = []
            for batch in self._batches(file, None):
                group.append(self._with_answers(batch, list(itertools.islice(outcomes, len(batch))), schema))
                if sum(map(len, group)) >= _GROUP_ROWS or sum(part.nbytes for part in group) >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group))
                    group = []
            if group:
                writer.write_table(pa.Table.from_batches(group))

    def _with_answers(self, batch: Any, outcomes: list[Outcome], schema: Any) -> Any:
        answered = [not isinstance(outcome, Problem) for outcome in outcomes]
        found = [
            [asdict(answer) for answer in outcome] for outcome in outcomes if not isinstance(outcome, Problem)
        ]
        values = pa.array(found if self._several else [one[0] for one in found], self._answers)
        kept = batch.filter(pa.array(answered, pa.bool_()))
        return pa.RecordBatch.from_arrays([*kept.columns, values], schema=schema)

    def _batches(self, file: Any, columns: list[str] | None) -> Iterator[Any]:
        try:
            yield from file.iter_batches(_BATCH_ROWS, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"{self._path} is corrupt: {' '.join(str(error).split())[:200]}") from None

    def _rows(self, batch: Any) -> Iterator[Row]:
        try:
            records = batch.to_pylist()
        except UnicodeDecodeError:  # pyarrow does not validate strings when it reads them
            for number in range(len(batch)):
                yield self._row(batch.slice(number, 1))
        else:
            for record in records:
                yield ask(record, self._columns)

    def _row(self, row: Any) -> Row:
        try:
            (record,) = row.to_pylist()
        except UnicodeDecodeError:
            return refuse("The row has a text that is not UTF-8.")
        return ask(record, self._columns)

    def _open(self) -> Any:
        try:
            return pq.ParquetFile(self._path, buffer_size=_READ_BYTES, pre_buffer=False)
        except pa.ArrowException as error:
            raise BadFile(
                f"{self._path} is not a Parquet file: {' '.join(str(error).split())[:200]}"
            ) from None
