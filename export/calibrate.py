"""Owns the null threshold that an artifact ships, from questions kept out of training; knows no stage."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from export.errors import ExportError
from export.evaluate import Asked


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold on the null log-odds and what it does to the questions that it was chosen on.

    `f1` weighs answerable and unanswerable questions equally, whatever their numbers.
    """

    null_threshold: float
    answerable: int
    unanswerable: int
    wrongly_none: float  # share of the answerable, 0 to 1
    rightly_none: float  # share of the unanswerable, 0 to 1
    f1: float  # 0 to 1

    def row(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def calibrate(asked: Sequence[Asked], most_refused: float) -> Calibration:
    """The threshold with the best F1 of those that refuse at most `most_refused` of the answerable.

    The F1 that gives both kinds of question half the weight has a best threshold that refuses every
    fifth answerable question or more; `most_refused` bounds what a user loses by asking for "none".
    Raises ExportError where a kind of question is missing.
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
    # From a threshold under all odds upwards: each step answers the questions of one more value.
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
    assert best is not None  # the last threshold refuses none  # noqa: S101
    return best
