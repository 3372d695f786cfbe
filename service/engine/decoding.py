"""Owns decoding: from the logits of a question's windows to its answers; knows no model."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from service.engine.boundaries import complete_words, same_word, trim
from service.engine.spans import TokenSpan, WindowProbabilities, count_spans, normalise, top_spans
from service.engine.tokenization import NO_WORD
from service.engine.windowing import Prepared, Window, WindowLogits

ScoredPlace = tuple[int, int, float]  # in the context: start, end, score
Placement = Callable[[Prepared, Window, TokenSpan], tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """A span of the context: `context[start:end] == answer`, in Unicode code points.

    No answer is the empty text at 0. `score` is a probability, comparable between the answers of
    one context; with per-window scoring it is a sum of probabilities and may exceed 1.
    """

    answer: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class TokenProbabilities:
    """Probability of every token of a context to start and to end the answer, rounded to 6 digits.

    One softmax over the whole context, whatever `scoring` is: `start` and the null's probability sum to
    1, as does `end`. A token in several windows has the sum of its probabilities.
    """

    offsets: list[list[int]]  # (tokens, 2), half-open ranges of code points
    start: list[float]  # (tokens,)
    end: list[float]  # (tokens,)


@dataclass(frozen=True, slots=True)
class ExplainedAnswer(Answer):
    """The best answer where the parameter `token_probabilities` asks for `tokens`."""

    tokens: TokenProbabilities


def whole_words(prepared: Prepared, window: Window, span: TokenSpan) -> tuple[int, int] | None:
    """The half-open range of code points for a span of tokens; None if it is blank.

    It never splits a grapheme cluster nor, with `align_to_words`, a word, and is stripped of white space.
    """
    first, last = window.first + span.first, window.first + span.last
    if prepared.parameters.align_to_words:
        first, last = _widened(prepared, window, first, last)
    offsets, context = prepared.tokens.offsets.item, prepared.context
    place = trim(context, offsets(first, 0), offsets(last, 1))
    # Window boundaries split words, and some pre-tokenizers split at accents. Per-window scoring keeps
    # such splits, as upstream.
    if place and prepared.parameters.align_to_words and prepared.parameters.scoring != "per_window":
        words = complete_words(context, *place)
        place = place if words == place else trim(context, *words)
    return place


def decode(
    prepared: Prepared,
    logits: Sequence[WindowLogits],
    null_threshold: float,
    place: Placement = whole_words,
) -> list[Answer]:
    """The top_k answers, best first, from the logits of `prepared.windows`; never an empty list.

    With handle_impossible_answer the null is a candidate: it ranks above a span if its log-odds
    against the span exceed `null_threshold`; 0 is upstream's comparison of scores. `place` converts a
    span of tokens to a range of the context.
    """
    parameters = prepared.parameters
    per_window = parameters.scoring == "per_window"
    probabilities, null_score = normalise(prepared.windows, logits, per_window=per_window)
    places = _distinct_answers(prepared, probabilities, place)
    # Rounding errors can lift a sum of shared probabilities above 1.
    highest = math.inf if per_window else 1.0
    answers = [
        Answer(prepared.context[start:end], start, end, min(score, highest)) for start, end, score in places
    ]
    if parameters.handle_impossible_answer:
        rank = null_score * math.exp(min(-null_threshold, 700.0))  # exp(710) overflows
        above = sum(answer.score >= rank for answer in answers)
        answers.insert(above, Answer("", 0, 0, null_score))
    answers = answers[: parameters.top_k] or [Answer("", 0, 0, 0.0)]
    if parameters.token_probabilities:
        first = answers[0]
        explanation = _token_probabilities(prepared, logits)
        answers[0] = ExplainedAnswer(first.answer, first.start, first.end, first.score, explanation)
    return answers


def _token_probabilities(prepared: Prepared, logits: Sequence[WindowLogits]) -> TokenProbabilities:
    start, end = np.zeros((2, len(prepared.tokens.ids)))
    probabilities, _ = normalise(prepared.windows, logits, per_window=False)
    for window, inside in zip(prepared.windows, probabilities, strict=True):
        start[window.first : window.last] += inside.start
        end[window.first : window.last] += inside.end
    return TokenProbabilities(
        prepared.tokens.offsets.tolist(), start.round(6).tolist(), end.round(6).tolist()
    )


def _distinct_answers(
    prepared: Prepared, probabilities: Sequence[WindowProbabilities], place: Placement
) -> list[ScoredPlace]:
    """At most top_k answers of distinct text, best first; fewer only if there are no more.

    As upstream, each window contributes its 2 top_k + 10 most probable spans, and spans of equal text
    (case-insensitive) are merged into one answer with the summed score. If fewer than top_k remain,
    upstream returns those; here the search continues, without changing the answers already found.
    """
    parameters = prepared.parameters
    wanted = parameters.top_k
    most = max(count_spans(len(inside.start), parameters.max_answer_len) for inside in probabilities)
    count = wanted * 2 + 10 if parameters.align_to_words else wanted
    merged = _merge(prepared.context, _top_places(prepared, probabilities, place, count))
    while len(merged) < wanted and count < most:
        count *= 2
        more = _merge(prepared.context, _top_places(prepared, probabilities, place, count))
        for key, found in more.items():
            merged.setdefault(key, found)
    return sorted(merged.values(), key=itemgetter(2), reverse=True)[:wanted]


def _top_places(
    prepared: Prepared, probabilities: Sequence[WindowProbabilities], place: Placement, count: int
) -> list[ScoredPlace]:
    """Ranges in the context of the `count` most probable spans of each window.

    In the order of windows for per-window scores, as upstream; otherwise most probable first, so that
    merging equal texts keeps the most probable place.
    """
    found = [
        (*where, span.score)
        for window, inside in zip(prepared.windows, probabilities, strict=True)
        for span in top_spans(inside, prepared.parameters.max_answer_len, count)
        if (where := place(prepared, window, span)) is not None
    ]
    if prepared.parameters.scoring != "per_window" and len(probabilities) > 1:
        found.sort(key=itemgetter(2), reverse=True)
    return found


def _merge(context: str, found: Iterable[ScoredPlace]) -> dict[str, ScoredPlace]:
    """One place per text (case-insensitive): the first, with the summed score."""
    merged: dict[str, ScoredPlace] = {}
    for start, end, score in found:
        key = context[start:end].lower()
        first = merged.get(key)
        merged[key] = (start, end, score) if first is None else (first[0], first[1], first[2] + score)
    return merged


def _widened(prepared: Prepared, window: Window, first: int, last: int) -> tuple[int, int]:
    """Context tokens `first` to `last`, extended to word boundaries within the window.

    Some pre-tokenizers split at spaces only, so in scripts without spaces a "word" may be a whole
    paragraph; such spans are not extended.
    """
    tokens, parameters = prepared.tokens, prepared.parameters
    word, offset = tokens.words.item, tokens.offsets.item  # Python integers
    first_word, last_word = word(first), word(last)
    if NO_WORD in (first_word, last_word):
        return first, last
    left, right = first, last
    for katakana in (True, False):  # a run of katakana is one word unless that exceeds max_answer_len
        left, right = first, last
        while (
            left > window.first
            and word(left - 1) == first_word
            and same_word(prepared.context, offset(left, 0), katakana=katakana)
        ):
            left -= 1
        while (
            right + 1 < window.last
            and word(right + 1) == last_word
            and same_word(prepared.context, offset(right + 1, 0), katakana=katakana)
        ):
            right += 1
        if right - left < parameters.max_answer_len:
            break
    return left, right
