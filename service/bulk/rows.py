"""Owns the types between the stages, rows and outcomes; knows no file and no model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from service.bulk.task import BadFile, Columns
from service.engine.answering import Answer
from service.engine.parameters import Parameters
from service.errors import InvalidInput

# Maximum bytes of a row: about twice those of a context with the engine's maximum of windows.
LONGEST_ROW = 16 << 20


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a row has no answer, without its texts. `id` is the row's own, `line` counts from 1."""

    code: str
    reason: str
    field: str | None = None
    line: int | None = None
    id: str | None = None


Outcome = list[Answer] | Problem  # of one row: answers, best first, or the reason for none


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input: question and context, or why it is invalid.

    `share` is the fraction of the input read so far, 0 to 1. `record` has all fields of the row if the output
    format needs them.
    """

    asked: tuple[str, str] | Problem  # question, context
    share: float
    id: str | None = None
    line: int | None = None
    record: Mapping[str, Any] | None = None


def ask(record: Mapping[str, Any], columns: Columns, line: int | None = None) -> Row:
    """Validate `record`; the reader of the file sets the row's share."""
    found = record.get(columns.id)
    identity = str(found) if isinstance(found, str | int) else None
    asked: list[str] = []
    for field, name in (("question", columns.question), ("context", columns.context)):
        text = record.get(name)
        if not isinstance(text, str):
            what = "missing" if text is None else "not a string"
            return refuse(f"The {field} (column {name}) is {what}.", field, line=line, identity=identity)
        asked.append(text)
    return Row((asked[0], asked[1]), 0.0, identity, line, record)


def refuse(
    reason: str, field: str | None = None, *, line: int | None = None, identity: str | None = None
) -> Row:
    """An invalid row."""
    return Row(Problem(InvalidInput.code, reason, field, line, identity), 0.0, identity, line)


def refuse_taken(row: Row, name: str) -> Row:
    """`row` as an invalid one, since it already has a field with the name of the answer's."""
    reason = f"The row already has a field {name}: choose another with --answer-column."
    return refuse(reason, name, line=row.line, identity=row.id)


def check_columns(path: Path, found: Sequence[str], columns: Columns, added: Collection[str]) -> None:
    """Raises BadFile if the header `found` lacks a column, has it twice, or has one of those `added`."""
    for flag, name in (("question", columns.question), ("context", columns.context)):
        if name not in found:
            raise BadFile(
                f"{path} has no column {name}, only {', '.join(found) or 'none at all'}: "
                f"set --{flag}-column to the one with the {flag}.",
                field=name,
            )
        if found.count(name) > 1:
            raise BadFile(f"{path} has several columns {name}.", field=name)
    if taken := sorted(set(added) & set(found)):
        raise BadFile(
            f"{path} already has a column {taken[0]}: "
            "choose another name for the answer with --answer-column.",
            field=taken[0],
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Outcomes of consecutive rows, and the fraction of the input read up to the last one."""

    outcomes: Sequence[Outcome]
    share: float


def answer_value(answers: Sequence[Answer], parameters: Parameters) -> Any:
    """The value to write for a row, as in the HTTP API: an object, or for top_k > 1 a list."""
    return answers[0] if parameters.top_k == 1 else list(answers)


_decoder = msgspec.json.Decoder(list[list[Answer] | Problem])


def read_outcomes(encoded: bytes) -> list[Outcome]:
    """Decode outcomes from JSON."""
    return _decoder.decode(encoded)
