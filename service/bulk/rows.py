"""Owns what passes between the stages: rows and outcomes; knows no file and no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from service.bulk.task import Columns
from service.engine.answering import Answer
from service.engine.parameters import Parameters
from service.errors import InvalidInput

# Bytes of one row. A context that makes as many windows as the engine allows has about half of that.
LONGEST_ROW = 16 << 20


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one row has no answer; never with its texts. `id` is the row's own, `line` counts from 1."""

    code: str
    reason: str
    field: str | None = None
    line: int | None = None
    id: str | None = None


Outcome = list[Answer] | Problem  # of one row: answers, best first, or why there are none


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input: what it asks, or why it cannot be asked.

    `share` is the part of the input read with it, 0 to 1. `record` is the row as a mapping where the format
    that is written needs it.
    """

    asked: tuple[str, str] | Problem  # question, context
    share: float
    id: str | None = None
    line: int | None = None
    record: Mapping[str, Any] | None = None


def ask(record: Mapping[str, Any], columns: Columns, line: int | None = None) -> Row:
    """The row that `record` is; its share is set by who reads the file."""
    found = record.get(columns.id)
    identity = str(found) if isinstance(found, str | int) else None
    asked: list[str] = []
    for field, name in (("question", columns.question), ("context", columns.context)):
        text = record.get(name)
        if not isinstance(text, str):
            what = "missing" if text is None else "no text"
            return refuse(f"The {field} (column {name}) is {what}.", field, line=line, identity=identity)
        asked.append(text)
    return Row((asked[0], asked[1]), 0.0, identity, line, record)


def refuse(
    reason: str, field: str | None = None, *, line: int | None = None, identity: str | None = None
) -> Row:
    """A row that cannot be asked."""
    return Row(Problem(InvalidInput.code, reason, field, line, identity), 0.0, identity, line)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Outcomes of consecutive rows, and the share of the input read with the last of them."""

    outcomes: Sequence[Outcome]
    share: float


def answer_value(answers: Sequence[Answer], parameters: Parameters) -> Any:
    """What is written for one row, in the shapes of the HTTP interface: an object, a list for top_k > 1."""
    return answers[0] if parameters.top_k == 1 else list(answers)


_decoder = msgspec.json.Decoder(list[list[Answer] | Problem])


def read_outcomes(encoded: bytes) -> list[Outcome]:
    """Outcomes again that were encoded as JSON."""
    return _decoder.decode(encoded)
