"""Owns SQuAD files and the official EM and F1; knows no model, no tokenizer and no torch."""

import itertools
import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPORTED = 5  # invalid records per file that are listed; the others are only counted


class DataError(Exception):
    """A file is not SQuAD, or has no usable questions: one sentence that names the file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An annotated span: `context[start:start + len(text)] == text`, in code points."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one paragraph.

    `answers` has the spans with a correct offset; `golds` has every non-empty answer text, since EM and F1 do
    not depend on offsets.
    """

    id: str
    title: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    golds: tuple[str, ...]
    is_impossible: bool
    one_of: bool = False  # exactly one of `answers` is right, and which one is not known

    @property
    def trainable(self) -> bool:
        """Whether the target is known: an aligned answer, or marked as unanswerable."""
        return self.is_impossible or bool(self.answers)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is unusable for training, entirely or in one answer, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SquadFile:
    """The questions of a file in order, and its invalid records: the number and the first ones."""

    path: Path
    questions: tuple[Question, ...]
    bad_count: int
    first_bad: tuple[BadRecord, ...]


class _MalformedError(Exception):
    """A field is missing or has the wrong type; the argument is the reason."""


def read_squad(path: Path) -> SquadFile:
    """Read a SQuAD v1 or v2 file (https://rajpurkar.github.io/SQuAD-explorer/).

    Invalid answers are dropped and counted; their questions keep the other answers. Raises DataError if the
    file cannot be read, is not JSON or is not SQuAD.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON in UTF-8: {error}.") from error
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list):
        raise DataError(f'{path} is not a SQuAD file: it has no list "data" at the top.')
    questions: list[Question] = []
    bad: list[BadRecord] = []
    for question, faults in _walk(articles):
        if question is not None:
            questions.append(question)
        bad.extend(faults)
    return SquadFile(path, tuple(questions), len(bad), tuple(bad[:REPORTED]))


def _walk(articles: list[Any]) -> Iterator[tuple[Question | None, list[BadRecord]]]:
    """Every question, None if it is invalid; a malformed level is one invalid record."""
    for a, article in enumerate(articles):
        where = f"article {a}"
        try:
            paragraphs = _field(article, "paragraphs", list)
        except _MalformedError as fault:
            yield None, [BadRecord(where, str(fault))]
            continue
        title = article.get("title")
        for p, paragraph in enumerate(paragraphs):
            where = f"article {a}, paragraph {p}"
            try:
                context, entries = _text(paragraph, "context"), _field(paragraph, "qas", list)
            except _MalformedError as fault:
                yield None, [BadRecord(where, str(fault))]
                continue
            for q, entry in enumerate(entries):
                where = f"article {a}, paragraph {p}, question {q}"
                try:
                    yield _question(entry, context, title if isinstance(title, str) else "")
                except _MalformedError as fault:
                    known = entry.get("id") if isinstance(entry, dict) else None
                    yield None, [BadRecord(known if isinstance(known, str) else where, str(fault))]


def _question(entry: object, context: str, title: str) -> tuple[Question, list[BadRecord]]:
    if not isinstance(entry, dict):
        raise _MalformedError("it is no JSON object")
    name, question = _text(entry, "id"), _text(entry, "question")
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise _MalformedError('"is_impossible" is not true or false')
    entries = entry.get("answers", []) if impossible else _field(entry, "answers", list)
    if impossible and entries:
        raise _MalformedError("it is marked impossible but has answers")
    answers: list[Answer] = []
    golds: list[str] = []
    bad: list[BadRecord] = []
    for answer in entries:
        try:
            text = _text(answer, "text")
            golds.append(text)
            start = _field(answer, "answer_start", int)
            if start < 0 or context[start : start + len(text)] != text:
                raise _MalformedError(f"the context does not hold the answer at answer_start {start}")
            answers.append(Answer(text, start))
        except _MalformedError as fault:
            bad.append(BadRecord(name, str(fault)))
    if not impossible and not entries:
        bad.append(BadRecord(name, 'it has no answer and is not marked "is_impossible"'))
    return Question(name, title, question, context, tuple(answers), tuple(golds), impossible), bad


def _field(record: object, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _MalformedError(f'"{name}" is missing or no {kind.__name__}')
    return value


def _text(record: object, name: str) -> str:
    value: str = _field(record, name, str)
    if not value.strip():
        raise _MalformedError(f'"{name}" is empty')
    try:
        value.encode()  # rejects lone surrogates, which JSON allows but tokenizers do not
    except UnicodeEncodeError as error:
        raise _MalformedError(f'"{name}" is no valid Unicode') from error
    return value


def normalise(text: str) -> str:
    """The official normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _usable(golds: Sequence[str]) -> Sequence[str]:
    """As in evaluate-v2.0.py, golds that are empty after normalisation are ignored."""
    return [gold for gold in golds if normalise(gold)] or [""]


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the prediction equals a gold after normalisation, else 0.0; no golds: "no answer" is correct."""
    return float(any(normalise(prediction) == normalise(gold) for gold in _usable(golds)))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Maximum token F1 over the golds, 0 to 1; without golds only "" is correct."""
    return max(_f1(normalise(prediction).split(), normalise(gold).split()) for gold in _usable(golds))


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:
        return float(prediction == gold)
    same = (Counter(prediction) & Counter(gold)).total()
    return 2 * same / (len(prediction) + len(gold))


def best_null_threshold(
    null_odds: Mapping[str, float],
    predictions: Mapping[str, str],
    golds: Mapping[str, Sequence[str]],
) -> tuple[float, float]:
    """The threshold on the null odds that gives the best mean F1, and that F1, 0 to 1.

    A question is answered if its odds are at most the threshold. This is find_best_thresh of
    evaluate-v2.0.py, except in two corner cases: questions with equal odds are decided together, since no
    threshold separates them, and if never answering is best, the threshold is below all odds (there: 0.0).
    The three mappings have question ids as keys; `predictions` has the best non-null answers. Raises
    ValueError if the ids differ or there are none.
    """
    if not null_odds or not (null_odds.keys() == predictions.keys() == golds.keys()):
        raise ValueError("null odds, predictions and golds must be of the same questions, at least one")
    ordered = sorted(null_odds, key=lambda name: null_odds[name])
    score = best = float(sum(_usable(gold) == [""] for gold in golds.values()))
    threshold = min(0.0, math.nextafter(null_odds[ordered[0]], -math.inf))
    for odds, names in itertools.groupby(ordered, key=lambda name: null_odds[name]):
        for name in names:
            answered = f1(predictions[name], golds[name])
            score += answered - f1("", golds[name])
        if score > best:
            best, threshold = score, odds
    return threshold, best / len(null_odds)
