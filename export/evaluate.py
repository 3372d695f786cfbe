"""Owns EM and F1 on a SQuAD file, through the engine that ships; knows no export stage."""

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from export import squad
from service.engine.answering import QuestionAnswerer
from service.engine.parameters import Parameters

# So far below any odds that null always comes first, where its score can be read.
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
        """For people and the manifest."""
        found = {"exact_match": round(self.exact_match, 2), "f1": round(self.f1, 2)}
        return found if self.null_threshold is None else found | {"null_threshold": self.null_threshold}


def evaluate(answerer: QuestionAnswerer, file: Path, limit: int | None, label: str) -> Evaluation:
    """Ask every question of `file`, or a seeded sample of `limit`.

    For SQuAD 2.0 files the null threshold is the one with the best F1 on them, as the official
    script reports it. Raises squad.DataError for an unusable file.
    """
    questions = list(squad.read_squad(file).questions)
    questions = [q for q in questions if q.golds or q.is_impossible]
    if not questions:
        raise squad.DataError(f"{file} has no usable question.")
    if limit is not None and limit < len(questions):
        questions = random.Random(0).sample(questions, limit)
    several = any(question.is_impossible for question in questions)
    predictions: dict[str, str] = {}
    odds: dict[str, float] = {}
    for question in tqdm(questions, desc=label, unit="question", mininterval=2, leave=False):
        prepared = answerer.prepare(question.question, question.context, Parameters())
        logits = answerer.infer(prepared.windows)
        best = answerer.decode(prepared, logits)[0]
        predictions[question.id] = best.answer
        if several:
            asked = replace(
                prepared,
                parameters=Parameters(handle_impossible_answer=True, null_threshold=_ALWAYS_NULL),
            )
            null = answerer.decode(asked, logits)[0]
            odds[question.id] = math.log(max(null.score, _LEAST_SCORE)) - math.log(
                max(best.score, _LEAST_SCORE)
            )
    threshold = None
    if several:
        golds = {question.id: question.golds for question in questions}
        threshold, _ = squad.best_null_threshold(odds, predictions, golds)
        predictions = {name: "" if odds[name] > threshold else text for name, text in predictions.items()}
    count = len(questions)
    return Evaluation(
        questions=count,
        exact_match=100 * sum(squad.exact_match(predictions[q.id], q.golds) for q in questions) / count,
        f1=100 * sum(squad.f1(predictions[q.id], q.golds) for q in questions) / count,
        null_threshold=threshold,
    )
