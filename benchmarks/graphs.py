"""Owns the paired latency of an artifact's two graphs, in one process; knows no HTTP and no other engine.

`python -m benchmarks.graphs --artifact ARTIFACT [--squad FILE]` runs the same questions on the graph with the
custom operator and on the portable one, in interleaved passes, and prints medians and their ratio: of whole
answers, and of inference alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from service.bench.workload import Item, load
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus, cpu_model
from service.engine.parameters import Parameters


def main() -> int:
    """Measure and print; exit status 1 if this machine cannot run the graph with the custom operator."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__)
    parser.add_argument("--artifact", required=True, type=Path)
    parser.add_argument("--squad", type=Path, help="a SQuAD file (default: built-in questions)")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=10, help="times each question is asked")
    options = parser.parse_args()
    artifact = load_artifact(options.artifact)
    answerers = [QuestionAnswerer(artifact, kernel=kernel) for kernel in (True, False)]
    if answerers[0].graph.name == answerers[1].graph.name:
        print(answerers[0].graph.reason, file=sys.stderr)
        return 1
    items = load(options.squad, artifact)[: options.questions]
    answers: list[list[float]] = [[], []]
    runs: list[list[float]] = [[], []]
    for number in range(options.rounds + 1):
        for side, answerer in enumerate(answerers):
            time.sleep(0.2)  # until the threads of the other session have stopped spinning
            whole, alone = _one_pass(answerer, items)
            if number:  # the first is a warm-up
                answers[side] += whole
                runs[side] += alone
    print(f"{cpu_model()}, {available_cpus()} CPUs, {len(items)} questions, {options.rounds} rounds")
    for what, times in (("whole answers", answers), ("runs of the model", runs)):
        fast, portable = (1000 * statistics.median(side) for side in times)
        print(
            f"{what}: {answerers[0].graph.name} p50 {fast:.2f} ms, portable p50 {portable:.2f} ms, "
            f"ratio {portable / fast:.2f}"
        )
    return 0


def _one_pass(answerer: QuestionAnswerer, items: Sequence[Item]) -> tuple[list[float], list[float]]:
    """Seconds of each answer, and of the inference within it."""
    whole, alone = [], []
    for item in items:
        begun = time.perf_counter()
        prepared = answerer.prepare(item.question, item.context, Parameters())
        started = time.perf_counter()
        logits = answerer.infer(prepared.windows)
        ended = time.perf_counter()
        answerer.decode(prepared, logits)
        whole.append(time.perf_counter() - begun)
        alone.append(ended - started)
    return whole, alone


if __name__ == "__main__":
    sys.exit(main())
