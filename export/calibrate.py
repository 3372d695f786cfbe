"""Owns the calibration of the null threshold on held-out questions; knows no stage."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from export.errors import ExportError
from export.evaluate import Asked


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold on the null log-odds, and its metrics on the calibration questions.

    `f1` gives answerable and unanswerable questions equal weight, independently of their numbers.
    """

    null_threshold: float
    answerable: int
    unanswerable: int
    wrongly_none: float  # share of the answerable, 0 to 1
    rightly_none: float  # share of the unanswerable, 0 to 1
    f1: float  # 0 to 1

    def row(self) -> dict[str, Any]:
        """The entry of the manifest."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def calibrate(asked: Sequence[Asked], most_refused: float) -> Calibration:
    """The threshold with the best F1 among those that reject at most `most_refused` of the answerable.

    Without this limit, the best threshold for the balanced F1 rejects 20% of the answerable questions or
    more; `most_refused` limits this loss. Raises ExportError if a kind of question is missing.
    """
    answerable = sum(not one.question.is_impossible for one in asked)
    unanswerable = len(asked) - answerable
    if not answerable or not unanswerable:
        raise ExportError(
            "The file to calibrate on must hold questions with and without an answer: "
            f"it has {answerable} and {unanswerable}."
        )
    ordered = sorted(asked, key=lambda one: one.null_odds)
    wrong, right, score = answerable, unanswerable, 0.0
    best: Calibration | None = None
    # Ascending thresholds, from one below all odds: each step answers the questions with one more value.
    for odds, group in groupby(ordered, key=lambda one: one.null_odds):
        for one in group:
            if one.question.is_impossible:
                right -= 1
            else:
                wrong -= 1
                score += one.f1(None)
        f1 = (score / answerable + right / unanswerable) / 2
        if wrong / answerable <= most_refused and (best is None or f1 > best.f1):
            best = Calibration(odds, answerable, unanswerable, wrong / answerable, right / unanswerable, f1)
    assert best is not None  # the last threshold rejects no question  # noqa: S101
    return best
