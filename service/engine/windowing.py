"""Owns windows over a long context, and batches of windows; knows no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.engine.parameters import Parameters
from service.engine.tokenization import Ids, PairTemplate, TokenizedText

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """One model input: special tokens, the question and the context tokens [first, last)."""

    ids: Ids  # (tokens,)
    types: Ids  # (tokens,) token_type_ids
    context_at: int  # index in `ids` of context token `first`
    cls_at: int | None  # index in `ids` of CLS
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """One question, tokenized and split into windows."""

    context: str
    tokens: TokenizedText  # of the whole context
    windows: tuple[Window, ...]
    parameters: Parameters

    @property
    def token_count(self) -> int:
        """Tokens of all windows together."""
        return sum(len(window.ids) for window in self.windows)


@dataclass(frozen=True, slots=True)
class WindowLogits:
    """Start and end logits of one window without padding; (tokens,) each."""

    start: Logits
    end: Logits


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one run; rows are padded to the longest and masked."""

    order: tuple[int, ...]  # the windows' indices, row by row
    ids: Ids  # (windows, tokens)
    mask: Ids  # (windows, tokens) 1 for a real token
    types: Ids  # (windows, tokens)


def plan_windows(tokens: int, room: int, doc_stride: int) -> list[tuple[int, int]]:
    """Half-open ranges over `tokens` context tokens, each at most `room` long.

    As in Hugging Face tokenizers, `doc_stride` is the overlap of consecutive windows, not the step (as
    in the original BERT code). An overlap of the whole room, an error upstream, is reduced to half.
    """
    step = room - (doc_stride if doc_stride < room else room // 2)
    ranges = []
    for first in range(0, max(tokens, 1), step):
        ranges.append((first, min(first + room, tokens)))
        if first + room >= tokens:
            break
    return ranges


def build_window(
    template: PairTemplate, question: Ids, context: Ids, span: tuple[int, int], question_first: bool
) -> Window:
    """`question` (tokens,) and `context[first:last]` between the special tokens of a pair."""
    first, last = span
    piece = context[first:last]
    left, right = (question, piece) if question_first else (piece, question)
    ids = np.concatenate((template.prefix, left, template.middle, right, template.suffix))
    types = np.concatenate(
        (
            template.prefix_types,
            template.first_types[: len(left)],
            template.middle_types,
            template.second_types[: len(right)],
            template.suffix_types,
        )
    )
    context_at = len(template.prefix)
    if question_first:
        context_at += len(question) + len(template.middle)
    cls_at = template.cls_index
    if cls_at is not None and cls_at < 0:
        cls_at += len(ids)
    return Window(ids, types, context_at, cls_at, first, last)


def batch_windows(windows: Sequence[Window], token_budget: int, pad_id: int) -> Iterator[Batch]:
    """Batches of windows of similar length, each of at most `token_budget` tokens including padding.

    A window longer than the budget is a batch of its own. Sorting by length minimises padding.
    """
    by_length = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
    group: list[int] = []
    for index in by_length:
        if group and len(windows[index].ids) * (len(group) + 1) > token_budget:
            yield _pad(windows, group, pad_id)
            group = []
        group.append(index)
    if group:
        yield _pad(windows, group, pad_id)


def _pad(windows: Sequence[Window], group: list[int], pad_id: int) -> Batch:
    if len(group) == 1:
        window = windows[group[0]]
        ids = window.ids[None]
        return Batch(tuple(group), ids, np.ones_like(ids), window.types[None])
    longest = len(windows[group[-1]].ids)
    ids = np.full((len(group), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for row, index in enumerate(group):
        window = windows[index]
        tokens = len(window.ids)
        ids[row, :tokens] = window.ids
        mask[row, :tokens] = 1
        types[row, :tokens] = window.types
    return Batch(tuple(group), ids, mask, types)
