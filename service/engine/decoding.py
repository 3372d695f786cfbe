"""Owns the way from the logits of a context's windows to its answers; knows no model and no question."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from service.engine.parameters import Parameters
from service.engine.spans import TokenSpan, WindowProbabilities, count_spans, normalise, top_spans
from service.engine.tokenization import NO_WORD, TokenizedText
from service.engine.windowing import Window, WindowLogits

Place = tuple[int, int, float]  # of a span in the context: start, end, score


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of the context: `context[start:end] == answer`, in Unicode code points.

    No answer is the empty text at 0. `score` is a probability, comparable between the answers of
    one context.
    """

    answer: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class TokenProbabilities:
    """Probability of every token of a context to start and to end the answer, rounded to 6 digits.

    One softmax over the whole context, whatever `scoring` says: `start` and the null's share sum to 1,
    and so does `end`. A token of several windows has the sum of what it has in each.
    """

    offsets: list[list[int]]  # (tokens, 2), half-open ranges of code points
    start: list[float]  # (tokens,)
    end: list[float]  # (tokens,)


@dataclass(frozen=True, slots=True)
class ExplainedAnswer(Answer):
    """The best answer where the parameter `token_probabilities` asks for `tokens`."""

    tokens: TokenProbabilities


def decode(
    context: str,
    tokens: TokenizedText,
    windows: Sequence[Window],
    logits: Sequence[WindowLogits],
    parameters: Parameters,
    null_threshold: float,
) -> list[Answer]:
    """The top_k answers in `context`, best first; never empty: no answer is an answer, too.

    `tokens` are those of the context, `logits` those of its `windows`. With
    handle_impossible_answer the null competes: it wins where its log-odds over the best span exceed
    `null_threshold`; at 0 that is upstream's plain comparison of scores.
    """
    probabilities, null_score = normalise(windows, logits, per_window=parameters.scoring == "per_window")
    answers = _distinct_answers(context, tokens, windows, probabilities, parameters)
    if parameters.handle_impossible_answer:
        rank = null_score * math.exp(min(-null_threshold, 700.0))  # more would overflow
        above = sum(answer.score >= rank for answer in answers)
        answers.insert(above, Answer("", 0, 0, null_score))
    answers = answers[: parameters.top_k] or [Answer("", 0, 0, 0.0)]
    if parameters.token_probabilities:
        best = answers[0]
        explanation = _token_probabilities(tokens, windows, logits)
        answers[0] = ExplainedAnswer(best.answer, best.start, best.end, best.score, explanation)
    return answers


def _token_probabilities(
    tokens: TokenizedText, windows: Sequence[Window], logits: Sequence[WindowLogits]
) -> TokenProbabilities:
    start, end = np.zeros((2, len(tokens.ids)))
    probabilities, _ = normalise(windows, logits, per_window=False)
    for window, inside in zip(windows, probabilities, strict=True):
        start[window.first : window.last] += inside.start
        end[window.first : window.last] += inside.end
    return TokenProbabilities(tokens.offsets.tolist(), start.round(6).tolist(), end.round(6).tolist())


def _distinct_answers(
    context: str,
    tokens: TokenizedText,
    windows: Sequence[Window],
    probabilities: Sequence[WindowProbabilities],
    parameters: Parameters,
) -> list[Answer]:
    """Answers of distinct text, best first: top_k of them, or fewer where there are no more.

    As upstream, each window gives its 2 top_k + 10 likeliest spans, and those of equal text (case
    ignored) are one answer with the summed score. Where that leaves fewer than top_k, upstream
    stopped; here the search goes on, and what it finds later changes nothing found before.
    """
    wanted = parameters.top_k
    most = max(count_spans(window.last - window.first, parameters.max_answer_len) for window in windows)
    count = wanted * 2 + 10 if parameters.align_to_words else wanted
    merged = _merge(context, _places(tokens, windows, probabilities, parameters, count))
    while len(merged) < wanted and count < most:
        count *= 2
        for key, place in _merge(context, _places(tokens, windows, probabilities, parameters, count)).items():
            merged.setdefault(key, place)
    best = sorted(merged.values(), key=itemgetter(2), reverse=True)[:wanted]
    return [Answer(context[start:end], start, end, score) for start, end, score in best]


def _places(
    tokens: TokenizedText,
    windows: Sequence[Window],
    probabilities: Sequence[WindowProbabilities],
    parameters: Parameters,
    count: int,
) -> list[Place]:
    """Where in the context the `count` likeliest spans of each window are.

    In the windows' order for per-window scores, as upstream; else the likeliest first, so that of
    equal texts the likeliest place is named.
    """
    places = [
        (*_characters(tokens, window, span, parameters.align_to_words), span.score)
        for window, inside in zip(windows, probabilities, strict=True)
        for span in top_spans(inside, parameters.max_answer_len, count)
    ]
    if parameters.scoring != "per_window" and len(windows) > 1:
        places.sort(key=itemgetter(2), reverse=True)
    return places


def _characters(
    tokens: TokenizedText, window: Window, span: TokenSpan, align_to_words: bool
) -> tuple[int, int]:
    """Code points of a token span, widened to whole words (within the window, as upstream)."""
    first, last = window.first + span.first, window.first + span.last
    word = tokens.words.item  # a plain number
    first_word, last_word = word(first), word(last)
    if align_to_words and first_word != NO_WORD and last_word != NO_WORD:
        while first > window.first and word(first - 1) == first_word:
            first -= 1
        while last + 1 < window.last and word(last + 1) == last_word:
            last += 1
    return tokens.offsets.item(first, 0), tokens.offsets.item(last, 1)


def _merge(context: str, places: Iterable[Place]) -> dict[str, Place]:
    """One place per text, case ignored: the first, with the summed score."""
    merged: dict[str, Place] = {}
    for start, end, score in places:
        key = context[start:end].lower()
        first = merged.get(key)
        merged[key] = (start, end, score) if first is None else (first[0], first[1], first[2] + score)
    return merged
