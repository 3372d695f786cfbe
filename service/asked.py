"""Owns a request that a protocol has read, and how its answers are told; knows no protocol and no model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidInput
from service.problems import Reply
from service.schemas import Request

if TYPE_CHECKING:  # protocols tell failures while the engine is still loading
    from service.engine.answering import Answer

# Per item of a request its answers, best first, or why it has none.
Entries = list["list[Answer] | InvalidInput"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how its protocol tells the answers; `encode` may raise InvalidInput."""

    request: Request
    encode: Callable[[Entries], Reply]
