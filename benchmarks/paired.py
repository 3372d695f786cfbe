"""Owns the paired latency of engine and transformers pipeline, in one process; knows no HTTP.

`python -m benchmarks.paired --model HF_FOLDER --artifact INT8_ARTIFACT --squad FILE` runs the same questions
on both, in interleaved passes (A B A B), and prints the ratio of medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from export.parity import load_reference, squad_pairs
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus, cpu_model


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__)
    parser.add_argument("--model", required=True, help="Hugging Face folder or hub id")
    parser.add_argument("--artifact", required=True, type=Path, help="an artifact of that model")
    parser.add_argument("--squad", required=True, type=Path, help="a SQuAD file")
    parser.add_argument("--questions", type=int, default=60, help="size of the seeded sample")
    parser.add_argument("--rounds", type=int, default=3, help="times each question is asked")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    threads = available_cpus()
    torch.set_num_threads(threads)
    reference = load_reference(options.model)
    answerer = QuestionAnswerer(load_artifact(options.artifact), threads=threads)
    pairs = squad_pairs(options.squad, options.questions, options.seed)
    for question, context in pairs[:10]:  # warm-up
        _ask(reference, (question, context))
        answerer.answer([(question, context)])
    times: tuple[list[float], list[float]] = ([], [])
    same = 0
    for _ in range(options.rounds):
        # Interleaved by pass, not by question: threads of one side keep spinning for a moment after its
        # answer and would slow down the other.
        theirs = [_time(partial(_ask, reference, pair), times[0]) for pair in pairs]
        ours = [_time(partial(answerer.answer, [pair]), times[1]) for pair in pairs]
        same += sum(a == b[0][0].answer for a, b in zip(theirs, ours, strict=True))
    medians = [statistics.median(side) * 1000 for side in times]
    print(f"{cpu_model()}, {threads} threads, {len(times[0])} pairs")
    print(f"transformers pipeline fp32: p50 {medians[0]:.2f} ms")
    print(f"{options.artifact}: p50 {medians[1]:.2f} ms, {same} same answers")
    print(f"ratio of medians {medians[0] / medians[1]:.2f}")
    return 0


def _ask(reference: Any, pair: tuple[str, str]) -> str:
    return str(reference(question=pair[0], context=pair[1])["answer"])


T = TypeVar("T")


def _time(call: Callable[[], T], times: list[float]) -> T:
    started = time.perf_counter()
    result = call()
    times.append(time.perf_counter() - started)
    return result


if __name__ == "__main__":
    sys.exit(main())
