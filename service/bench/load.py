"""Owns the asking at a pace: closed loop or constant arrivals, and what was measured; knows no output."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.bench.targets import OK, REFUSED, Target
from service.bench.workload import Item

PERCENTILES = (50, 90, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to ask: `rate` None asks as fast as `callers` get answers (closed loop).

    With a rate, questions arrive at that constant rate (per second) whether earlier ones are
    answered or not (open loop), and `callers` bounds how many may be under way.
    """

    callers: int
    seconds: float
    warm_up: float = 0.5
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: seconds from its arrival, due or asked, to its reply."""

    latency: float
    finished: float  # since the start of the measurement
    status: int
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one plan; `seconds` from the end of the warm-up to the last reply."""

    plan: Plan
    seconds: float
    samples: list[Sample] = field(repr=False)

    def latencies(self, status: int = OK) -> list[float]:
        """Milliseconds, sorted."""
        return sorted(sample.latency * 1000 for sample in self.samples if sample.status == status)

    def summary(self) -> dict[str, float | int | None]:
        """Counts, answers per second, percentiles in milliseconds and medians of the stages."""
        good = self.latencies()
        refused = self.latencies(REFUSED)
        figures: dict[str, float | int | None] = {
            "callers": self.plan.callers,
            "rate": self.plan.rate,
            "seconds": round(self.seconds, 2),
            "answered": len(good),
            "refused": len(refused),
            "failed": len(self.samples) - len(good) - len(refused),
            "per_second": round(len(good) / self.seconds, 2),
        }
        for percent in PERCENTILES:
            name = "max" if percent == 100 else f"p{percent}"
            figures[name] = percentile(good, percent)
        if refused:
            figures["refused_p99"] = percentile(refused, 99)
        stages = [sample.stages for sample in self.samples if sample.status == OK and sample.stages]
        for name in stages[0] if stages else ():
            figures[f"{name}_p50"] = percentile(sorted(row.get(name, 0.0) * 1000 for row in stages), 50)
        return figures


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Of ascending values, rounded to 1 microsecond; None of none."""
    return round(float(np.percentile(ordered, percent)), 3) if ordered else None


def run(
    target: Target, items: Sequence[Item], plan: Plan, progress: Callable[[float], object] = lambda _: None
) -> Measurement:
    """Ask `items` in turn, over and over, and measure all that arrive after the warm-up.

    With a rate, a question's latency counts from the moment it was due, even where no caller was
    free to ask it (no coordinated omission). `progress` is told the seconds gone by.
    """
    connections = [target.connect() for _ in range(plan.callers)]
    counter = itertools.count()
    samples: list[list[Sample]] = [[] for _ in connections]
    total = plan.warm_up + plan.seconds
    begin = time.perf_counter()

    def call(number: int) -> None:
        ask, own = connections[number], samples[number]
        while True:
            index = next(counter)  # atomic under the interpreter's lock
            now = time.perf_counter() - begin
            due = now if plan.rate is None else index / plan.rate
            if due >= total:
                return
            if due > now:
                time.sleep(due - now)
            reply = ask(items[index % len(items)])
            finished = time.perf_counter() - begin
            if due >= plan.warm_up:
                own.append(Sample(finished - due, finished - plan.warm_up, reply.status, reply.stages))

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(plan.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.25)
            progress(min(time.perf_counter() - begin, total))
    everything = [sample for own in samples for sample in own]
    last = max((sample.finished for sample in everything), default=plan.seconds)
    return Measurement(plan, max(last, plan.seconds), everything)
