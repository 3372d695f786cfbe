"""Owns load plans (closed or open loop) and the statistics of their measurements; sends no request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

OK, REFUSED = 200, 429  # as over HTTP
PERCENTILES = (50, 90, 95, 99, 100)

# Receives the elapsed seconds.
Progress = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """A load: with `rate` None a closed loop of `callers` clients.

    With a rate an open loop: questions arrive at that constant rate per second, independently of replies, and
    `callers` limits the requests in flight. Latency counts from the scheduled arrival, even if no caller was
    free then (no coordinated omission).
    """

    callers: int
    seconds: float
    warm_up: float = 0.5
    rate: float | None = None

    @property
    def total(self) -> float:
        """Seconds of warm-up and measurement."""
        return self.warm_up + self.seconds

    def due(self, number: int, now: float) -> float:
        """Scheduled arrival of question `number`, in seconds from the start."""
        return now if self.rate is None else number / self.rate

    def sample(self, due: float, finished: float, status: int, stages: dict[str, float]) -> "Sample":
        """The sample of a question; both times are seconds from the start."""
        return Sample(due - self.warm_up, finished - due, status, stages)


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: its scheduled arrival, in seconds after the warm-up, and its latency in seconds."""

    due: float
    latency: float
    status: int
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """All samples of one load, including the warm-up."""

    plan: Plan
    samples: list[Sample] = field(repr=False)

    def counted(self, status: int) -> list[Sample]:
        """Samples after the warm-up with this status."""
        return [sample for sample in self.samples if sample.due >= 0 and sample.status == status]

    def latencies(self, status: int = OK) -> list[float]:
        """Latencies in milliseconds, ascending."""
        return sorted(sample.latency * 1000 for sample in self.counted(status))

    def per_second(self) -> float:
        """Throughput: answers received during the measurement, per second."""
        ends = (sample.due + sample.latency for sample in self.samples if sample.status == OK)
        return sum(0 <= end < self.plan.seconds for end in ends) / self.plan.seconds

    def summary(self) -> dict[str, float | int | None]:
        """Counts, answers per second, percentiles in milliseconds and medians of the stages."""
        good = self.latencies()
        refused = self.latencies(REFUSED)
        figures: dict[str, float | int | None] = {
            "callers": self.plan.callers,
            "rate": self.plan.rate,
            "seconds": self.plan.seconds,
            "answered": len(good),
            "refused": len(refused),
            "failed": sum(sample.due >= 0 for sample in self.samples) - len(good) - len(refused),
            "per_second": round(self.per_second(), 2),
        }
        for percent in PERCENTILES:
            name = "max" if percent == 100 else f"p{percent}"
            figures[name] = percentile(good, percent)
        if refused:
            figures["refused_p99"] = percentile(refused, 99)
        stages = [sample.stages for sample in self.counted(OK) if sample.stages]
        for name in stages[0] if stages else ():
            figures[f"{name}_p50"] = percentile(sorted(row.get(name, 0.0) * 1000 for row in stages), 50)
        return figures


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Percentile of ascending values, rounded to 1 microsecond; None if there are none."""
    return round(float(np.percentile(ordered, percent)), 3) if ordered else None
