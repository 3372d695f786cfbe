"""Owns span probabilities and the search for the most probable spans; knows token indices only, no text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.engine.windowing import Window, WindowLogits

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WindowProbabilities:
    """Probability of each context token of one window to start or end the answer; (tokens,) each."""

    start: Probabilities
    end: Probabilities


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A candidate span: first and last token, inclusive, counted within its window's context tokens."""

    first: int
    last: int
    score: float


def normalise(
    windows: Sequence[Window], logits: Sequence[WindowLogits], *, per_window: bool
) -> tuple[list[WindowProbabilities], float]:
    """Softmax over context tokens and CLS; returns probabilities per window and the null score.

    With `per_window`, as in the transformers pipeline, every window sums to one, so windows without
    the answer get as much probability as the one that contains it; the null score is the minimum over
    windows. Otherwise all windows share one denominator ("shared normalisation", Clark and Gardner
    2018), which contains the null once, with its lowest logits of any window (Devlin et al. 2019,
    SQuAD 2.0). For one window the two are the same.
    """
    starts, start_nulls = _split(windows, [found.start for found in logits])
    ends, end_nulls = _split(windows, [found.end for found in logits])
    groups = [[i] for i in range(len(windows))] if per_window else [list(range(len(windows)))]
    probabilities: list[WindowProbabilities] = []
    null_score = np.inf
    for group in groups:
        least = min(group, key=lambda i: start_nulls[i] + end_nulls[i])
        start, start_null = _softmax([starts[i] for i in group], start_nulls[least])
        end, end_null = _softmax([ends[i] for i in group], end_nulls[least])
        probabilities += map(WindowProbabilities, start, end)
        null_score = min(null_score, start_null * end_null)
    return probabilities, float(null_score)


def top_spans(probabilities: WindowProbabilities, max_answer_len: int, count: int) -> Iterator[TokenSpan]:
    """At most `count` spans of at most `max_answer_len` tokens, most probable first.

    A span's score is start probability times end probability. Scores are a band matrix of O(tokens x
    max_answer_len), whose row s has the ends s, s+1, ...; upstream computes all (tokens, tokens) pairs.
    """
    tokens = len(probabilities.start)
    width = min(max_answer_len, tokens)
    if width == 0:
        return
    # Ends beyond the window score -1, below every valid span, whose score may underflow to 0.
    padded = np.zeros(tokens + width - 1, dtype=np.float32)
    padded[:tokens] = probabilities.end
    # A strided view (tokens, width) without a copy: each row begins one end later.
    ends = np.ndarray((tokens, width), np.float32, padded, strides=(padded.itemsize, padded.itemsize))
    scores = probabilities.start[:, None] * ends
    scores[tokens - width :][_beyond_window(width)] = -1.0
    flat = scores.ravel()
    count = min(count, count_spans(tokens, max_answer_len))
    if count == 1:
        best = np.array([flat.argmax()])
    else:
        top = np.argpartition(-flat, count - 1)[:count]
        best = top[np.argsort(-flat[top], kind="stable")]
    for index in best.tolist():
        first, length = divmod(index, width)
        yield TokenSpan(first, first + length, float(flat[index]))


@lru_cache(maxsize=8)
def _beyond_window(width: int) -> npt.NDArray[np.bool_]:
    """Mask of the ends beyond the window for the last `width` starts; (width, width)."""
    return np.tri(width, width, -1, dtype=np.bool_)[:, ::-1]


def count_spans(tokens: int, max_answer_len: int) -> int:
    """The number of spans of at most `max_answer_len` tokens in a window of `tokens`."""
    width = min(max_answer_len, tokens)
    return tokens * width - width * (width - 1) // 2


def _split(
    windows: Sequence[Window], logits: Sequence[Probabilities]
) -> tuple[list[Probabilities], list[float]]:
    """Context logits (tokens,) and CLS logit of each window; -inf without a CLS token."""
    parts, nulls = [], []
    for window, scores in zip(windows, logits, strict=True):
        parts.append(scores[window.context_at : window.context_at + window.last - window.first])
        nulls.append(-np.inf if window.cls_at is None else float(scores[window.cls_at]))
    return parts, nulls


def _softmax(parts: list[Probabilities], null: float) -> tuple[list[Probabilities], float]:
    """One softmax over all parts and the null, in float32 as upstream."""
    peak = max([float(part.max()) for part in parts if len(part)] + [null])
    if peak == -np.inf:  # no context token and no CLS
        return [np.zeros_like(part) for part in parts], 0.0
    exps = [np.exp(part - np.float32(peak)) for part in parts]
    null_exp = float(np.exp(null - peak))
    total = np.float32(sum(float(part.sum()) for part in exps) + null_exp)
    return [part / total for part in exps], null_exp / float(total)
