"""The pace of a benchmark and what it counts, on targets whose behaviour is known."""

import threading
import time
from dataclasses import dataclass, field

import pytest

from service.bench.load import Plan, run
from service.bench.targets import OK, REFUSED, Ask, Reply
from service.bench.workload import Item

ITEMS = [Item(f"question {n}", "context", 10) for n in range(3)]


@dataclass
class Scripted:
    """Answers at once, except that the calls of `stall` take that many seconds."""

    stall: dict[int, float] = field(default_factory=dict)
    status: dict[int, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def connect(self) -> Ask:
        self.connections += 1

        def ask(item: Item) -> Reply:
            with self.lock:
                number = len(self.asked)
                self.asked.append(item.question)
            time.sleep(self.stall.get(number, 0.001))
            return Reply(self.status.get(number, OK), {"infer": 0.002})

        return ask


def test_items_are_asked_in_turn_over_and_over() -> None:
    target = Scripted()
    measured = run(target, ITEMS, Plan(callers=1, seconds=0.1, warm_up=0))
    assert target.asked[:4] == ["question 0", "question 1", "question 2", "question 0"]
    assert len(measured.samples) == len(target.asked)


def test_every_caller_has_a_connection_of_its_own() -> None:
    target = Scripted()
    run(target, ITEMS, Plan(callers=5, seconds=0.05, warm_up=0))
    assert target.connections == 5


def test_the_warm_up_is_not_counted() -> None:
    target = Scripted()
    measured = run(target, ITEMS, Plan(callers=1, seconds=0.1, warm_up=0.1))
    assert 0 < len(measured.samples) < len(target.asked)


def test_constant_arrivals_do_not_wait_for_answers() -> None:
    """Ten questions are due while the only caller is stuck: each one's wait must be counted."""
    target = Scripted(stall={0: 0.2})
    measured = run(target, ITEMS, Plan(callers=1, seconds=0.4, warm_up=0, rate=50))
    assert len(measured.samples) == 20
    latencies = [sample.latency for sample in measured.samples]
    assert latencies[0] >= 0.2
    assert latencies[1] >= 0.17  # due at 0.02, asked after 0.2
    assert latencies[5] >= 0.09


def test_statuses_are_told_apart() -> None:
    target = Scripted(status={1: REFUSED, 2: 0, 3: 504})
    figures = run(target, ITEMS, Plan(callers=1, seconds=0.2, warm_up=0, rate=50)).summary()
    assert (figures["refused"], figures["failed"], figures["answered"]) == (1, 2, 7)
    assert figures["refused_p99"] is not None
    assert figures["infer_p50"] == pytest.approx(2.0)


def test_figures_of_nothing_are_none() -> None:
    figures = run(Scripted(status=dict.fromkeys(range(99), 503)), ITEMS, Plan(1, 0.05, 0.0, 20)).summary()
    assert figures["p50"] is None
    assert figures["per_second"] == 0
