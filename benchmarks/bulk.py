"""Owns the throughput of bulk relative to bare inference; knows no format and no journal.

`python -m benchmarks.bulk --squad FILE` runs both on the same rows, in alternating rounds. Bare inference,
the upper bound, runs windows prepared beforehand, one thread per core. The bulk run is the whole command,
from loading the model to writing the output. The ratio of CPU seconds is also reported: it is less sensitive
to other load on the machine than that of rates.
"""

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from service.__main__ import main as service
from service.bench.workload import load
from service.engine.answering import Prepared, QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus, cpu_model
from service.engine.parameters import Parameters
from service.settings import DEFAULT_MODEL


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="an artifact")
    parser.add_argument("--squad", required=True, type=Path, help="a SQuAD file, or JSON lines")
    parser.add_argument("--rows", type=int, default=2000, help="size of the seeded sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cores = available_cpus()
    artifact = load_artifact(options.model)
    answerer = QuestionAnswerer(artifact, threads=1)
    items = random.Random(options.seed).sample(load(options.squad, artifact), options.rows)  # noqa: S311
    prepared = [answerer.prepare(item.question, item.context, Parameters()) for item in items]
    sides: tuple[list[_Taken], list[_Taken]] = ([], [])
    with TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        rows = ({"question": item.question, "context": item.context} for item in items)
        source.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        _bare(answerer, prepared[:200], cores)  # warm-up
        for _ in range(options.rounds):
            sides[0].append(_timed(lambda: _bare(answerer, prepared, cores)))
            sides[1].append(_timed(lambda: _bulk(source, output, options.model)))
    print(f"{cpu_model()}, {cores} cores, {len(items)} rows, rows per second of each round:")
    for name, side in zip(("bare runs", "bulk"), sides, strict=True):
        print(f"{name:<10}" + "".join(f"{len(items) / taken.seconds:>8.1f}" for taken in side))
    rounds = list(zip(*sides, strict=True))
    rates = [bare.seconds / bulk.seconds for bare, bulk in rounds]
    work = [bare.cpu_seconds / bulk.cpu_seconds for bare, bulk in rounds]
    for name, ratios in (("rates", rates), ("CPU s", work)):
        print(f"{name:<10}" + "".join(f"{ratio:>8.3f}" for ratio in ratios))
    print(
        f"median ratio of rates {statistics.median(rates):.3f}, of CPU seconds {statistics.median(work):.3f}"
    )
    return 0


@dataclass(frozen=True, slots=True)
class _Taken:
    seconds: float
    cpu_seconds: float  # of all threads


def _timed(run: Callable[[], None]) -> _Taken:
    started, worked = time.perf_counter(), time.process_time()
    run()
    return _Taken(time.perf_counter() - started, time.process_time() - worked)


def _bare(answerer: QuestionAnswerer, prepared: Sequence[Prepared], cores: int) -> None:
    """Infer all windows with one thread per core."""
    waiting = iter(prepared)  # next() of a list iterator is atomic under the GIL

    def run() -> None:
        for item in waiting:
            answerer.infer(item.windows, narrow=True)

    threads = [threading.Thread(target=run) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _bulk(source: Path, output: Path, model: Path) -> None:
    """Run the command in this process."""
    flags = ["--input", str(source), "--output", str(output), "--model", str(model), "--restart"]
    if service(["bulk", *flags]):
        raise SystemExit("the bulk run failed")


if __name__ == "__main__":
    sys.exit(main())
