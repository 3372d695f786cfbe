"""Owns the comparison of two forms of a model on probe questions; knows no datasets."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForQuestionAnswering

from export.errors import ExportError
from export.source import Source
from service.engine.answering import Prepared, QuestionAnswerer
from service.engine.parameters import Parameters
from service.engine.probes import probes
from service.engine.windowing import WindowLogits

# Allows rounding differences between torch and ONNX Runtime; a wrong graph differs far more.
_CONVERSION_TOLERANCE = 1e-3
_ROUNDS = 5

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Difference of a form from its reference on the probes.

    `error` is the RMS difference of the logits relative to their standard deviation, `agreement` the fraction
    of probes with the same answer.
    """

    error: float
    agreement: float


def check_conversion(source: Source, answerer: QuestionAnswerer) -> float:
    """Maximum logit difference between torch and the fp32 graph, relative to their standard deviation.

    Raises ExportError if it exceeds rounding differences.
    """
    model: Any = AutoModelForQuestionAnswering.from_pretrained(
        source.folder, trust_remote_code=source.trust_remote_code, dtype=torch.float32
    ).eval()
    worst = 0.0
    for prepared in _prepare(answerer)[:8]:
        ours = answerer.infer(prepared.windows)
        for window, logits in zip(prepared.windows, ours, strict=True):
            feeds = {
                "input_ids": torch.from_numpy(window.ids)[None],
                "attention_mask": torch.ones(1, len(window.ids), dtype=torch.int64),
            }
            if "token_type_ids" in answerer.artifact.inputs:
                feeds["token_type_ids"] = torch.from_numpy(window.types)[None]
            with torch.inference_mode():
                theirs = model(**feeds)
            for name, found in (("start_logits", logits.start), ("end_logits", logits.end)):
                expected = theirs[name][0].numpy()
                worst = max(worst, float(np.abs(expected - found).max() / (expected.std() + 1e-6)))
    if not worst <= _CONVERSION_TOLERANCE:  # true for NaN, too
        raise ExportError(
            f"The converted model differs from torch by {worst:.2g} of its logits' spread, more than "
            f"rounding ({_CONVERSION_TOLERANCE}): this architecture is not converted rightly."
        )
    return worst


def compare(reference: QuestionAnswerer, candidate: QuestionAnswerer) -> Comparison:
    """Compare `candidate` with `reference`."""
    squares, spread, same = [], [], []
    for prepared in _prepare(reference):
        expected = reference.infer(prepared.windows)
        found = candidate.infer(prepared.windows)
        a, b = _flat(expected), _flat(found)
        squares.append(float(np.mean((a - b) ** 2)))
        spread.append(float(np.var(a)))
        same.append(_answer(reference, prepared, expected) == _answer(candidate, prepared, found))
    error = float(np.sqrt(np.mean(squares) / (np.mean(spread) + 1e-12)))
    return Comparison(error, statistics.fmean(same))


def milliseconds(answerers: list[QuestionAnswerer]) -> list[float]:
    """Median time of a probe for each answerer, interleaved, so that drift affects all alike."""
    times: list[list[float]] = [[] for _ in answerers]
    items = probes()
    for answerer in answerers:
        answerer.answer(items)  # warm-up
    for _ in range(_ROUNDS):
        for answerer, own in zip(answerers, times, strict=True):
            for item in items:
                started = time.perf_counter()
                answerer.answer([item])
                own.append((time.perf_counter() - started) * 1000)
    return [statistics.median(own) for own in times]


def _prepare(answerer: QuestionAnswerer) -> list[Prepared]:
    return [answerer.prepare(question, context, Parameters()) for question, context in probes()]


def _answer(answerer: QuestionAnswerer, prepared: Prepared, logits: list[WindowLogits]) -> tuple[int, int]:
    best = answerer.decode(prepared, logits)[0]
    return best.start, best.end


def _flat(logits: list[WindowLogits]) -> Logits:
    return np.concatenate([side for window in logits for side in (window.start, window.end)])
