"""Owns a parsed request with the formatter of its answers; knows no protocol and no model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidInput
from service.problems import Reply
from service.schemas import Request

if TYPE_CHECKING:  # protocols format errors while the engine is still loading
    from service.engine.answering import Answer

# For each item of a request its answers, best first, or the reason why it has none.
Entries = list["list[Answer] | InvalidInput"]


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request, and `encode`, which formats its answers for its protocol and may raise InvalidInput."""

    request: Request
    encode: Callable[[Entries], Reply]
