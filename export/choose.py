"""Owns the choice among candidates: measured speed, behind a gate of accuracy; knows no file format."""

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

# Without a file to evaluate on, int8 logits may differ from fp32 ones by this share of their spread.
# Trained models that keep 99% of their F1 were seen at 0.03 to 0.06.
MAX_ERROR = 0.15


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished graph, loaded as the service would load it."""

    recipe: Recipe
    folder: Path
    answerer: QuestionAnswerer


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a candidate; `verdict` says why it was or was not taken."""

    candidate: Candidate
    milliseconds: float
    comparison: Comparison
    evaluation: Evaluation | None
    verdict: str

    def row(self) -> dict[str, Any]:
        """For the manifest."""
        row: dict[str, Any] = {
            "recipe": self.candidate.recipe.name,
            "bytes": size(self.candidate.folder),
            "milliseconds_per_probe": round(self.milliseconds, 2),
            "logit_error": round(self.comparison.error, 4),
            "probe_agreement": round(self.comparison.agreement, 4),
            "verdict": self.verdict,
        }
        if self.evaluation is not None:
            row |= {"exact_match": round(self.evaluation.exact_match, 2), "f1": round(self.evaluation.f1, 2)}
        return row


@dataclass(frozen=True, slots=True)
class Gate:
    """What an int8 candidate must reach; `file` None judges by logits alone."""

    file: Path | None
    limit: int | None
    min_f1_ratio: float


def choose(
    reference: QuestionAnswerer, candidates: Sequence[Candidate], gate: Gate
) -> tuple[Result, list[Result], Evaluation | None]:
    """The fastest candidate that passes, every result in order of speed, and fp32's own scores.

    With a file, candidates are evaluated from the fastest on, and no more than needed. Raises
    ExportError where none passes.
    """
    speeds = milliseconds([candidate.answerer for candidate in candidates])
    order = sorted(zip(speeds, candidates, strict=True), key=lambda pair: pair[0])
    scores = evaluate(reference, gate.file, gate.limit, "evaluate fp32") if gate.file is not None else None
    results: list[Result] = []
    chosen: Result | None = None
    for speed, candidate in order:
        comparison = compare(reference, candidate.answerer)
        evaluation = None
        if chosen is not None:
            verdict = "slower than the chosen"
        elif scores is None:
            verdict = "chosen" if comparison.error <= MAX_ERROR else f"logit error over {MAX_ERROR}"
        else:
            assert gate.file is not None  # noqa: S101 - for the type checker
            label = f"evaluate {candidate.recipe.name}"
            evaluation = evaluate(candidate.answerer, gate.file, gate.limit, label)
            ratio = evaluation.f1 / scores.f1 if scores.f1 else 1.0  # nothing to lose
            verdict = "chosen" if ratio >= gate.min_f1_ratio else f"F1 only {ratio:.4f} of fp32's"
        result = Result(candidate, speed, comparison, evaluation, verdict)
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


def table(results: Sequence[Result]) -> str:
    """The summary for a terminal, fastest first."""
    lines = [f"{'candidate':<26}{'MB':>8}{'ms':>8}{'error':>8}{'agree':>8}{'EM':>8}{'F1':>8}  verdict"]
    for result in results:
        scores = result.evaluation
        em, f1 = (f"{scores.exact_match:.2f}", f"{scores.f1:.2f}") if scores else ("-", "-")
        lines.append(
            f"{result.candidate.recipe.name:<26}{size(result.candidate.folder) / 1e6:>8.1f}"
            f"{result.milliseconds:>8.2f}{result.comparison.error:>8.4f}"
            f"{result.comparison.agreement:>8.1%}{em:>8}{f1:>8}  {result.verdict}"
        )
    return "\n".join(lines)
