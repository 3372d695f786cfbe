"""Admission control and the order of batches, with a fake clock and a session that blocks on demand."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from service.batching import BATCH_TOKENS, Scheduler
from service.engine.answering import Prepared, QuestionAnswerer
from service.errors import DeadlineExceeded, Overloaded


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Windows:
    """A fake window: a length and the request it belongs to."""

    ids: range
    owner: str


@dataclass(frozen=True)
class Item:
    windows: list[Windows]

    @property
    def token_count(self) -> int:
        return sum(len(window.ids) for window in self.windows)


@dataclass
class Session:
    """A fake answerer; with `blocked`, each call of `infer` waits for a permit of `proceed`."""

    clock: Clock
    threads: int = 1
    seconds: float = 0.0
    blocked: bool = False
    fails: bool = False
    calls: list[list[Windows]] = field(default_factory=list)
    narrow: list[bool] = field(default_factory=list)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    proceed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def infer(self, windows: list[Windows], *, narrow: bool) -> list[str]:
        self.calls.append(windows)
        self.narrow.append(narrow)
        self.entered.release()
        if self.blocked:
            assert self.proceed.acquire(timeout=10)
        self.clock.now += self.seconds
        if self.fails:
            raise RuntimeError
        return [f"{window.owner}{len(window.ids)}" for window in windows]


def item(owner: str, *lengths: int) -> list[Prepared]:
    return cast(list[Prepared], [Item([Windows(range(n), owner) for n in lengths])])


def make_scheduler(session: Session, **limits: int) -> Scheduler:
    sizes = {"max_waiting": 8, "max_waiting_tokens": 10_000} | limits
    return Scheduler(cast(QuestionAnswerer, session), clock=session.clock, **sizes)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    """Run `work` in a thread; the list receives its result or its exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def await_queue(scheduler: Scheduler, length: int) -> None:
    """Wait until `length` batches are queued."""
    deadline = time.monotonic() + 10
    while len(scheduler._queue) != length:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_logits_are_in_order_with_queue_and_run_times() -> None:
    session = Session(Clock(), seconds=0.5)
    inferred = make_scheduler(session).infer(item("a", 5, 3, 9), deadline=200)
    assert cast(list[str], inferred.logits) == ["a5", "a3", "a9"]
    assert (inferred.waited, inferred.ran) == (0.0, 0.5)


def test_requests_run_in_fifo_order() -> None:
    session = Session(Clock(), blocked=True)
    scheduler = make_scheduler(session)
    threads = []
    for position, owner in enumerate("abcd"):
        threads.append(in_thread(partial(scheduler.infer, item(owner, 1), deadline=200))[0])
        if position == 0:
            assert session.entered.acquire(timeout=10)
        else:
            await_queue(scheduler, position)
    for _ in threads:
        session.proceed.release()
    for thread in threads:
        thread.join(10)
    assert [call[0].owner for call in session.calls] == list("abcd")


def test_short_requests_run_between_the_batches_of_a_long_one() -> None:
    session = Session(Clock(), blocked=True)
    scheduler = make_scheduler(session, max_waiting_tokens=10 * BATCH_TOKENS)
    half = BATCH_TOKENS // 2
    long_thread, long_outcome = in_thread(lambda: scheduler.infer(item("long", *[half] * 5), deadline=200))
    assert session.entered.acquire(timeout=10)
    short_thread, _ = in_thread(lambda: scheduler.infer(item("short", 7), deadline=200))
    await_queue(scheduler, 1)
    for _ in range(4):
        session.proceed.release()
    long_thread.join(10)
    short_thread.join(10)
    assert [(call[0].owner, len(call)) for call in session.calls] == [
        *(("long", 2), ("short", 1)),
        *(("long", 2), ("long", 1)),
    ]
    assert len(long_outcome[0].logits) == 5


def test_a_window_longer_than_a_batch_runs_alone() -> None:
    session = Session(Clock())
    make_scheduler(session).infer(item("a", BATCH_TOKENS + 1, 1), deadline=200)
    assert [len(call) for call in session.calls] == [1, 1]


def test_requests_in_flight_are_limited() -> None:
    scheduler = make_scheduler(Session(Clock()), max_waiting=1)
    with scheduler.admit(), scheduler.admit():
        with pytest.raises(Overloaded), scheduler.admit():
            pass
        with pytest.raises(Overloaded), scheduler.admit():  # the rejected one is not counted
            pass
    with scheduler.admit(), scheduler.admit():
        pass


def test_queued_tokens_are_limited_except_for_an_idle_model() -> None:
    session = Session(Clock(), blocked=True, seconds=2.0)
    scheduler = make_scheduler(session, max_waiting_tokens=100)
    session.proceed.release()
    scheduler.infer(item("any size", 500), deadline=200)  # 2 s for 500 tokens
    session.entered.acquire()
    thread, outcome = in_thread(lambda: scheduler.infer(item("a", 90), deadline=200))
    assert session.entered.acquire(timeout=10)
    with pytest.raises(Overloaded) as refused:
        scheduler.infer(item("b", 11), deadline=200)
    assert refused.value.retry_after == pytest.approx(90 * 2.0 / 500)
    fits_thread, fits = in_thread(lambda: scheduler.infer(item("c", 10), deadline=200))
    await_queue(scheduler, 1)
    session.proceed.release()
    session.proceed.release()
    thread.join(10)
    fits_thread.join(10)
    assert outcome[0].logits == ["a90"]
    assert fits[0].logits == ["c10"]
    session.proceed.release()
    scheduler.infer(item("d", 100), deadline=200)  # no token is counted any more


def test_a_deadline_in_the_queue() -> None:
    session = Session(Clock(), blocked=True)
    scheduler = make_scheduler(session)
    thread, outcome = in_thread(lambda: scheduler.infer(item("a", 1), deadline=200))
    assert session.entered.acquire(timeout=10)
    with pytest.raises(DeadlineExceeded):
        scheduler.infer(item("late", 1), deadline=session.clock.now + 0.05)
    session.proceed.release()
    thread.join(10)
    assert outcome[0].logits == ["a1"]
    session.proceed.release()
    assert scheduler.infer(item("b", 1), deadline=200).ran == 0.0
    assert [call[0].owner for call in session.calls] == ["a", "b"]


def test_a_deadline_between_batches() -> None:
    session = Session(Clock(), seconds=5.0)
    scheduler = make_scheduler(session, max_waiting_tokens=100_000)
    with pytest.raises(DeadlineExceeded):
        scheduler.infer(item("a", BATCH_TOKENS, BATCH_TOKENS, BATCH_TOKENS), deadline=108)
    assert len(session.calls) == 2
    scheduler.infer(item("b", 1), deadline=200)  # no slot and no token leaked
    assert scheduler._tokens == 0


def test_an_expired_request_does_not_run() -> None:
    session = Session(Clock())
    with pytest.raises(DeadlineExceeded):
        make_scheduler(session).infer(item("a", 1), deadline=100)
    assert session.calls == []


def test_a_failed_run_releases_its_slot() -> None:
    session = Session(Clock(), fails=True)
    scheduler = make_scheduler(session)
    with pytest.raises(RuntimeError):
        scheduler.infer(item("a", 5), deadline=200)
    session.fails = False
    assert scheduler.infer(item("b", 5), deadline=200).waited == 0.0
    assert scheduler._tokens == 0


def test_a_batch_that_expires_in_the_queue_is_skipped() -> None:
    session = Session(Clock(), blocked=True)
    scheduler = make_scheduler(session)
    first, _ = in_thread(lambda: scheduler.infer(item("a", 1), deadline=200))
    assert session.entered.acquire(timeout=10)
    late, late_outcome = in_thread(lambda: scheduler.infer(item("late", 1), deadline=150))
    await_queue(scheduler, 1)
    third, third_outcome = in_thread(lambda: scheduler.infer(item("c", 1), deadline=300))
    await_queue(scheduler, 2)
    session.clock.now = 150.0  # while the first batch is running
    session.proceed.release()
    session.proceed.release()
    for thread in (first, late, third):
        thread.join(10)
    assert isinstance(late_outcome[0], DeadlineExceeded)
    assert third_outcome[0].logits == ["c1"]


def test_wide_runs_at_low_load_and_narrow_runs_in_parallel_under_load() -> None:
    session = Session(Clock(), threads=2, blocked=True)
    scheduler = make_scheduler(session)
    threads = [in_thread(partial(scheduler.infer, item("first", 1), deadline=200))[0]]
    assert session.entered.acquire(timeout=10)
    for number, owner in enumerate("abcd"):
        threads.append(in_thread(partial(scheduler.infer, item(owner, 1), deadline=200))[0])
        await_queue(scheduler, number + 1)
    assert not session.entered.acquire(timeout=0.05)  # a wide run is exclusive
    session.proceed.release()
    for _ in range(3):  # one worker more than the two cores
        assert session.entered.acquire(timeout=10)
    assert not session.entered.acquire(timeout=0.05)
    for _ in range(4):
        session.proceed.release()
    for thread in threads:
        thread.join(10)
    assert next(call[0].owner for call in session.calls) == "first"
    assert session.narrow == [False, *[True] * 4]
    session.proceed.release()
    scheduler.infer(item("single", 1), deadline=200)
    assert session.narrow[-1] is False


def test_the_windows_of_one_request_run_in_parallel() -> None:
    session = Session(Clock(), threads=2, blocked=True, seconds=1.0)
    scheduler = make_scheduler(session, max_waiting_tokens=100_000)
    thread, outcome = in_thread(lambda: scheduler.infer(item("a", 1, 2, 3, 4, 5), deadline=200))
    assert session.entered.acquire(timeout=10)
    assert session.entered.acquire(timeout=10)
    session.proceed.release()
    session.proceed.release()
    thread.join(10)
    assert outcome[0].logits == ["a1", "a2", "a3", "a4", "a5"]
    assert sorted(len(call) for call in session.calls) == [2, 3]
    assert session.narrow == [True, True]
    assert (outcome[0].waited, outcome[0].ran) == (0.0, 2.0)
    session.proceed.release()
    scheduler.infer(item("b", 1), deadline=200)
    assert session.narrow[-1] is False  # a single window is a wide run


def test_a_failed_shard_cancels_the_queued_ones() -> None:
    session = Session(Clock(), threads=2, blocked=True, fails=True)
    scheduler = make_scheduler(session)
    busy, _ = in_thread(lambda: scheduler.infer(item("first", 1), deadline=200))
    assert session.entered.acquire(timeout=10)
    with pytest.raises(DeadlineExceeded):
        scheduler.infer(item("late", 1, 2, 3), deadline=session.clock.now + 0.05)
    await_queue(scheduler, 0)
    session.proceed.release()
    busy.join(10)
    assert scheduler._tokens == 0


def test_a_deadline_during_a_run_is_reported_at_once() -> None:
    session = Session(Clock(), blocked=True)
    scheduler = make_scheduler(session)
    with pytest.raises(DeadlineExceeded):
        scheduler.infer(item("a", 7), deadline=session.clock.now + 0.05)
    assert len(session.calls) == 1
    session.proceed.release()
    session.proceed.release()
    assert cast(list[str], scheduler.infer(item("b", 7), deadline=200).logits) == ["b7"]
    assert scheduler._tokens == 0
