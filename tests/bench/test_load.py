"""Closed and open loops of the benchmark, and its statistics, with a scripted target."""

import threading
import time
from dataclasses import dataclass, field

import pytest

from service.bench.callers import measure
from service.bench.load import OK, REFUSED, Measurement, Plan
from service.bench.workload import Item

ITEMS = [Item(f"question {n}", "context", 10) for n in range(3)]


@dataclass
class Scripted:
    """Answers immediately; `stall` maps the index of a call to a delay in seconds."""

    stall: dict[int, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, item: Item) -> None:
        with self.lock:
            number = len(self.asked)
            self.asked.append(item.question)
            self.threads.add(threading.get_ident())
        time.sleep(self.stall.get(number, 0.001))


def test_items_are_asked_cyclically() -> None:
    target = Scripted()
    measured = measure(target.ask, ITEMS, Plan(callers=1, seconds=0.1, warm_up=0))
    assert target.asked[:4] == ["question 0", "question 1", "question 2", "question 0"]
    assert len(measured.samples) == len(target.asked)


def test_each_caller_has_its_own_thread() -> None:
    target = Scripted()
    measure(target.ask, ITEMS, Plan(callers=5, seconds=0.1, warm_up=0))
    assert len(target.threads) == 5


def test_the_warm_up_is_not_counted() -> None:
    target = Scripted()
    measured = measure(target.ask, ITEMS, Plan(callers=1, seconds=0.1, warm_up=0.1))
    assert 0 < len(measured.latencies()) < len(target.asked)
    assert measured.summary()["answered"] == len(measured.latencies())


def test_the_open_loop_does_not_wait_for_replies() -> None:
    """Ten questions are due while the only caller is blocked: their latencies include the wait."""
    target = Scripted(stall={0: 0.2})
    measured = measure(target.ask, ITEMS, Plan(callers=1, seconds=0.4, warm_up=0, rate=50))
    assert len(measured.samples) == 20
    latencies = [sample.latency for sample in measured.samples]
    assert latencies[0] >= 0.2
    assert latencies[1] >= 0.17  # due at 0.02, asked after 0.2
    assert latencies[5] >= 0.09


def test_throughput_counts_answers_finished_in_the_measured_time() -> None:
    plan = Plan(callers=9, seconds=2, warm_up=1, rate=5)
    times = [(0.5, 0.9), (0.5, 1.1), (1.5, 2.9), (2.9, 3.1), (2.9, 5.0)]  # due and finished, since the start
    measured = Measurement(plan, [plan.sample(due, finished, OK, {}) for due, finished in times])
    assert measured.per_second() == 1.0  # two answers in two seconds
    assert measured.summary()["answered"] == 3
    assert measured.latencies() == pytest.approx([200, 1400, 2100])


def test_statuses_are_counted_separately() -> None:
    plan = Plan(callers=1, seconds=2, warm_up=1)
    statuses = [OK, REFUSED, 0, 504, OK]
    samples = [plan.sample(1.5, 1.6, status, {"infer": 0.002}) for status in statuses]
    figures = Measurement(plan, [*samples, plan.sample(0.5, 0.6, 504, {})]).summary()
    assert (figures["refused"], figures["failed"], figures["answered"]) == (1, 2, 2)
    assert figures["refused_p99"] == pytest.approx(100)
    assert figures["infer_p50"] == pytest.approx(2)


def test_percentiles_without_samples_are_none() -> None:
    plan = Plan(callers=1, seconds=1)
    figures = Measurement(plan, [plan.sample(0.6, 0.7, 503, {})]).summary()
    assert figures["p50"] is None
    assert figures["per_second"] == 0
