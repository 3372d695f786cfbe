"""Owns the selection among candidates, by measured speed subject to accuracy; knows no file format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.evaluate import Evaluation, evaluate
from export.pack import size
from export.quantize import Recipe
from export.verify import Comparison, compare, milliseconds
from service.engine.answering import QuestionAnswerer

# Without an evaluation file: maximum RMS difference of int8 from fp32 logits, relative to their standard
# deviation. Trained models that keep 99% of their F1 have 0.03 to 0.06.
MAX_ERROR = 0.15


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished graph, loaded in every way the service can run it; the first is this machine's default."""

    recipe: Recipe
    folder: Path
    answerers: tuple[QuestionAnswerer, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one way to run a candidate; `shortfall` says why it fails the gate, "" if it passes."""

    graph: str
    milliseconds: float
    comparison: Comparison
    evaluation: Evaluation | None
    shortfall: str

    def row(self) -> dict[str, Any]:
        """The entry of the manifest."""
        row: dict[str, Any] = {
            "milliseconds_per_probe": round(self.milliseconds, 2),
            "logit_error": round(self.comparison.error, 4),
            "probe_agreement": round(self.comparison.agreement, 4),
        }
        if self.evaluation is not None:
            row |= {"exact_match": round(self.evaluation.exact_match, 2), "f1": round(self.evaluation.f1, 2)}
        return row


@dataclass(frozen=True, slots=True)
class Result:
    """Measurements of a candidate; `verdict` says why it was or was not selected."""

    candidate: Candidate
    ways: tuple[Measured, ...]
    verdict: str

    def row(self) -> dict[str, Any]:
        """The entry of the manifest: the figures of the first way, then those of the others by name."""
        row: dict[str, Any] = {
            "recipe": self.candidate.recipe.name,
            "bytes": size(self.candidate.folder),
            "graph": self.ways[0].graph,
        }
        row |= self.ways[0].row() | {"verdict": self.verdict}
        return row | {way.graph: way.row() for way in self.ways[1:]}


@dataclass(frozen=True, slots=True)
class Gate:
    """Requirements for an int8 candidate; with `file` None only logits are compared."""

    file: Path | None
    limit: int | None
    min_f1_ratio: float


def choose(
    reference: QuestionAnswerer, candidates: Sequence[Candidate], gate: Gate
) -> tuple[Result, list[Result], Evaluation | None]:
    """The fastest candidate that passes, all results by speed, and the scores of fp32.

    It must pass in every way it can be run, since the artifact is deployed to other machines. With a file,
    candidates are evaluated from the fastest on, until one passes. Raises ExportError if none does.
    """
    speeds = iter(milliseconds([answerer for candidate in candidates for answerer in candidate.answerers]))
    timed = [(candidate, [next(speeds) for _ in candidate.answerers]) for candidate in candidates]
    timed.sort(key=lambda entry: entry[1][0])
    scores = evaluate(reference, gate.file, gate.limit, "evaluate fp32") if gate.file is not None else None
    results: list[Result] = []
    chosen: Result | None = None
    for candidate, own in timed:
        ways: list[Measured] = []
        judge = chosen is None
        for answerer, speed in zip(candidate.answerers, own, strict=True):
            ways.append(_measure(reference, scores, candidate.recipe, answerer, speed, gate, judge))
            judge = judge and not ways[-1].shortfall
        short = [f"{way.shortfall} ({way.graph})" for way in ways if way.shortfall]
        verdict = "slower than the chosen" if chosen else "; ".join(short) or "chosen"
        result = Result(candidate, tuple(ways), verdict)
        results.append(result)
        if verdict == "chosen":
            chosen = result
    if chosen is None:
        found = "; ".join(f"{result.candidate.recipe.name}: {result.verdict}" for result in results)
        raise ExportError(
            f"No int8 form of this model is accurate enough ({found}): export with --precision fp32"
            + (", or judge by F1 with --evaluate." if gate.file is None else ".")
        )
    return chosen, results, scores


def _measure(
    reference: QuestionAnswerer,
    scores: Evaluation | None,
    recipe: Recipe,
    answerer: QuestionAnswerer,
    speed: float,
    gate: Gate,
    judge: bool,
) -> Measured:
    comparison = compare(reference, answerer)
    evaluation, shortfall = None, ""
    if judge and scores is None and comparison.error > MAX_ERROR:
        shortfall = f"logit error over {MAX_ERROR}"
    elif judge and scores is not None and gate.file is not None:
        label = f"evaluate {recipe.name} by {answerer.graph.name}"
        evaluation = evaluate(answerer, gate.file, gate.limit, label)
        ratio = evaluation.f1 / scores.f1 if scores.f1 else 1.0  # no score to lose
        if ratio < gate.min_f1_ratio:
            shortfall = f"F1 only {ratio:.4f} of fp32's"
    return Measured(answerer.graph.name, speed, comparison, evaluation, shortfall)


def table(results: Sequence[Result]) -> str:
    """The summary for a terminal, fastest first, with a line per way to run a candidate."""
    lines = [
        f"{'candidate':<26}{'by':<12}{'MB':>8}{'ms':>8}{'error':>8}{'agree':>8}{'EM':>8}{'F1':>8}  verdict"
    ]
    for result in results:
        for number, way in enumerate(result.ways):
            scores = way.evaluation
            em, f1 = (f"{scores.exact_match:.2f}", f"{scores.f1:.2f}") if scores else ("-", "-")
            lines.append(
                f"{'' if number else result.candidate.recipe.name:<26}{way.graph:<12}"
                f"{size(result.candidate.folder) / 1e6:>8.1f}{way.milliseconds:>8.2f}"
                f"{way.comparison.error:>8.4f}{way.comparison.agreement:>8.1%}{em:>8}{f1:>8}  "
                f"{'' if number else result.verdict}".rstrip()
            )
    return "\n".join(lines)
