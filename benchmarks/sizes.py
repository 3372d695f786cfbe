"""Owns the sizing table of docs/deploy.md: memory, image, throughput and p95 by cores; knows no peer.

`python -m benchmarks.sizes --image qa` starts a server per number of cores, limited by CPU affinity, and
loads it over HTTP in a closed loop. The client runs on the same machine, so that it competes with a server
that uses all cores.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results
from service.bench.connections import HttpTarget
from service.bench.load import Plan
from service.bench.machine import pss_mb
from service.bench.targets import server
from service.bench.workload import Item, load
from service.engine.artifact import load_artifact
from service.engine.cpu import available_cpus
from service.settings import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 4, 16)
# Idle seconds after which a worker has returned free memory (batching.py).
_IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Size:
    """A server with `cores`: PSS of its processes, throughput and p95 for each of CLIENTS."""

    cores: int
    started_mb: float
    peak_mb: float
    idle_mb: float
    per_second: tuple[float, ...]
    p95_ms: tuple[float, ...]


def main() -> int:
    """Measure, print the table and insert it into the page."""
    options = _options()
    results.marked(options.page, "sizes")  # fails early if the page has no marks
    artifact = load_artifact(options.model)
    items = load(options.questions, artifact)
    sizes = [_measure(cores, options.model, items, options.seconds) for cores in options.cores]
    tokens = sum(item.tokens for item in items) / len(items)
    text = _text(sizes, tokens, _image_mb(options.image) if options.image else None)
    print(text)
    results.insert(options.page, "sizes", text)
    return 0


def _measure(cores: int, model: Path, items: Sequence[Item], seconds: float) -> Size:
    peak, rates, p95 = 0.0, [], []
    with ExitStack() as stack:
        with _affinity(cores):  # inherited by the server
            address, pid = stack.enter_context(server(["--model", str(model)]))
        target = HttpTarget(address)
        target.measure(items[:1], Plan(callers=1, seconds=0.1, warm_up=0), lambda _: None)
        time.sleep(_IDLE_SECONDS)
        started = pss_mb(pid)
        for clients in CLIENTS:

            def sample(_: float) -> None:
                nonlocal peak
                peak = max(peak, pss_mb(pid))

            measured = target.measure(items, Plan(callers=clients, seconds=seconds, warm_up=1.0), sample)
            figures = measured.summary()
            if figures["failed"] or figures["refused"] or not figures["answered"]:
                raise SystemExit(f"{cores} cores, {clients} clients: not every question was answered")
            rates.append(float(figures["per_second"] or 0))
            p95.append(float(figures["p95"] or 0))
        time.sleep(_IDLE_SECONDS)
        return Size(cores, started, peak, pss_mb(pid), tuple(rates), tuple(p95))


@contextmanager
def _affinity(cores: int) -> Iterator[None]:
    """Bind this thread, and processes that it starts, to the first `cores` CPUs; Linux only."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _image_mb(name: str) -> float:
    done = subprocess.run(  # noqa: S603 - the user's Docker
        ["docker", "image", "inspect", "-f", "{{.Size}}", name],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"docker image inspect {name}: {done.stderr.strip()}")
    return int(done.stdout) / 1e6


def _text(sizes: Sequence[Size], tokens: float, image_mb: float | None) -> str:
    lines = [
        (
            "| cores | memory after the first answer | highest | idle again "
            "| answers/s with 1, 4, 16 clients | p95 ms with 1, 4, 16 clients |"
        ),
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size in sizes:
        rates = ", ".join(f"{rate:.0f}" for rate in size.per_second)
        p95 = ", ".join(f"{ms:.1f}" for ms in size.p95_ms)
        lines.append(
            f"| {size.cores} | {size.started_mb:.0f} MB | {size.peak_mb:.0f} MB | {size.idle_mb:.0f} MB "
            f"| {rates} | {p95} |"
        )
    image = f" The image has {image_mb:.0f} MB, its base included." if image_mb else ""
    lines += [
        "",
        (
            f"{results.machine(max(size.cores for size in sizes))}; "
            f"questions of {tokens:.0f} tokens on average. Memory is the PSS of all processes.{image}"
        ),
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    add = parser.add_argument
    cores = sorted({1, min(2, available_cpus())})
    add("--cores", type=int, nargs="+", default=cores, help="of the server (default: 1 and 2)")
    add("--model", type=Path, default=DEFAULT_MODEL, help="an artifact")
    add("--questions", type=Path, help="SQuAD file or JSON lines (default: built in)")
    add("--seconds", type=float, default=10.0, help="of each measurement (default 10)")
    add("--image", help="a Docker image whose size to state")
    add("--page", type=Path, default=ROOT / "docs/deploy.md", help="where the table goes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
