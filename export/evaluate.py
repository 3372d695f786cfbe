"""Owns EM and F1 on a file of questions, with the engine of the service; knows no export stage."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean as mean

from tqdm import tqdm

from export import squad
from export.passages import read_questions
from service.engine.answering import QuestionAnswerer
from service.engine.parameters import Parameters

# Below any log-odds, so that "no answer" always ranks first, where its score can be read.
_ALWAYS_NULL = -60.0
_LEAST_SCORE = 1e-38


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Official scores in percent; `null_threshold` only where the file has unanswerable questions."""

    questions: int
    exact_match: float
    f1: float
    null_threshold: float | None

    def scores(self) -> dict[str, float]:
        """The scores for the terminal and the manifest."""
        found = {"exact_match": round(self.exact_match, 2), "f1": round(self.f1, 2)}
        return found if self.null_threshold is None else found | {"null_threshold": self.null_threshold}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the engine's answer, whether or not it is answerable."""

    question: squad.Question
    answer: str  # the best span
    score: float  # its probability, 0 to 1
    null_odds: float  # log-odds of "no answer" against it

    def f1(self, threshold: float | None) -> float:
        """F1, 0 to 1, with "no answer" if the odds exceed `threshold`; None: always answer."""
        return squad.f1(self.given(threshold), self.question.golds)

    def given(self, threshold: float | None) -> str:
        """The answer with this threshold; empty for "no answer"."""
        return "" if threshold is not None and self.null_odds > threshold else self.answer


def evaluate(answerer: QuestionAnswerer, file: Path, limit: int | None, label: str) -> Evaluation:
    """Evaluate on all questions of `file`, or a seeded sample of `limit`.

    For SQuAD 2.0 files the null threshold is the one with the best F1 on them, as in the official script.
    Raises squad.DataError for an unusable file.
    """
    asked = list(ask(answerer, usable(file, limit), label))
    threshold = None
    if any(one.question.is_impossible for one in asked):
        threshold, _ = squad.best_null_threshold(
            {one.question.id: one.null_odds for one in asked},
            {one.question.id: one.answer for one in asked},
            {one.question.id: one.question.golds for one in asked},
        )
    return Evaluation(
        questions=len(asked),
        exact_match=100 * mean(squad.exact_match(one.given(threshold), one.question.golds) for one in asked),
        f1=100 * mean(one.f1(threshold) for one in asked),
        null_threshold=threshold,
    )


def usable(file: Path, limit: int | None) -> list[squad.Question]:
    """The questions with known answers, or a seeded sample of `limit`; DataError if there are none."""
    questions = [q for q in read_questions(file).questions if q.golds or q.is_impossible]
    if not questions:
        raise squad.DataError(f"{file} has no usable question.")
    if limit is not None and limit < len(questions):
        questions = random.Random(0).sample(questions, limit)
    return questions


def ask(answerer: QuestionAnswerer, questions: Sequence[squad.Question], label: str) -> Iterator[Asked]:
    """Answer with the service's defaults; the null score is read from the first-ranked answer."""
    for question in tqdm(questions, desc=label, unit="question", mininterval=2, leave=False):
        prepared = answerer.prepare(question.question, question.context, Parameters())
        logits = answerer.infer(prepared.windows)
        best = answerer.decode(prepared, logits)[0]
        with_null = Parameters(handle_impossible_answer=True, null_threshold=_ALWAYS_NULL)
        null = answerer.decode(replace(prepared, parameters=with_null), logits)[0]
        odds = math.log(max(null.score, _LEAST_SCORE)) - math.log(max(best.score, _LEAST_SCORE))
        yield Asked(question, best.answer, best.score, odds)
