"""Owns the conversion of SQuAD questions to tokenised training windows; knows no model and no batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from export.finetune.negatives import Negatives
from export.squad import Answer, SquadFile

MAX_QUESTION_TOKENS = 64  # as in the original BERT code; longer questions are truncated


@dataclass(frozen=True, slots=True)
class Example:
    """A question, a context and its distinct answers; none: unanswerable from this context."""

    question: str
    context: str
    answers: tuple[Answer, ...]
    one_of: bool = False  # exactly one of the answers is correct, and it is unknown which


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth value
class Feature:
    """A window of an example, as model input."""

    example: Example
    ids: NDArray[np.int32]  # (tokens,)
    types: NDArray[np.int8]  # (tokens,) token_type_ids
    offsets: NDArray[np.int32]  # (tokens, 2) code points into the context; -1 outside of it
    cls_at: int  # the index of CLS, the target of "no answer"
    # Target tokens, one per answer: with equal weights, or, if one answer of several is correct, weighted by
    # the model during training.
    starts: tuple[int, ...]
    ends: tuple[int, ...]  # inclusive


def build_examples(file: SquadFile, no_answer_fraction: float, seed: str) -> list[Example]:
    """The trainable questions, plus `no_answer_fraction` times as many with a context without the answer.

    The latter are derived from questions whose answer is certain.
    """
    known = [question for question in file.questions if question.trainable]
    examples = [
        Example(question.question, question.context, tuple(dict.fromkeys(question.answers)), question.one_of)
        for question in known
    ]
    answered = [question for question in known if question.answers and not question.one_of]
    if wanted := round(no_answer_fraction * len(answered)):
        made = Negatives(file.questions).make(answered, wanted, seed)
        examples += [Example(question.question, context, ()) for question, context in made]
    return examples


def build_features(
    examples: Iterable[Example], tokenizer: PreTrainedTokenizerFast, max_seq_length: int, doc_stride: int
) -> Iterator[Feature]:
    """Windows of at most `max_seq_length` tokens; consecutive ones OVERLAP by `doc_stride` (as upstream).

    The target of a window without a complete answer is CLS. Windows are dropped if their answers have no
    tokens, or if they contain only some of the answers of which one is correct.
    """
    for example in examples:
        encoding = encode_pair(tokenizer, example.question, example.context, max_seq_length, doc_stride)
        for window in range(len(encoding["input_ids"])):
            feature = _feature(example, tokenizer, encoding, window)
            if feature is not None:
                yield feature


def encode_pair(
    tokenizer: PreTrainedTokenizerFast, question: str, context: str, max_seq_length: int, doc_stride: int
) -> Any:
    """Windows of the fast tokenizer over (question, context), question first unless it pads left."""
    if len(question) > MAX_QUESTION_TOKENS:  # a token is at least one character
        cut = tokenizer(
            question,
            add_special_tokens=False,
            truncation=True,
            max_length=MAX_QUESTION_TOKENS,
            return_offsets_mapping=True,
        )
        question = question[: cut["offset_mapping"][-1][1]] if cut["offset_mapping"] else question
    question_first = tokenizer.padding_side == "right"
    return tokenizer(
        *((question, context) if question_first else (context, question)),
        truncation="only_second" if question_first else "only_first",
        max_length=max_seq_length,
        stride=doc_stride,
        padding=False,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )


def context_offsets(tokenizer: PreTrainedTokenizerFast, encoding: Any, window: int) -> NDArray[np.int32]:
    """(tokens, 2) code points into the context, -1 for the question and special tokens."""
    sequence = 1 if tokenizer.padding_side == "right" else 0
    offsets = np.array(encoding["offset_mapping"][window], dtype=np.int32).reshape(-1, 2)
    offsets[[part != sequence for part in encoding.sequence_ids(window)]] = -1
    return offsets


def _feature(
    example: Example, tokenizer: PreTrainedTokenizerFast, encoding: Any, window: int
) -> Feature | None:
    ids = np.array(encoding["input_ids"][window], dtype=np.int32)
    types = np.array(encoding["token_type_ids"][window], dtype=np.int8)
    offsets = context_offsets(tokenizer, encoding, window)
    cls_at = int(np.argmax(ids == tokenizer.cls_token_id))
    context = np.flatnonzero(offsets[:, 0] >= 0)
    first, last = (offsets[context[0], 0], offsets[context[-1], 1]) if len(context) else (0, 0)
    spans = []
    whole = 0
    for answer in example.answers:
        start, end = _trimmed(answer)
        if start < first or end > last:
            continue
        whole += 1
        # The first token that ends after the answer's start, the last one that starts before its end.
        head = int(np.searchsorted(offsets[context, 1], start, side="right"))
        tail = int(np.searchsorted(offsets[context, 0], end, side="left")) - 1
        if head <= tail:
            spans.append((int(context[head]), int(context[tail])))
    if (whole and not spans) or (example.one_of and 0 < whole < len(example.answers)):
        return None
    starts, ends = zip(*spans, strict=True) if spans else ((cls_at,), (cls_at,))
    return Feature(example, ids, types, offsets, cls_at, starts, ends)


def _trimmed(answer: Answer) -> tuple[int, int]:
    """The answer's range of code points without surrounding white space, which no token covers."""
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    return start, start + len(answer.text.strip())
