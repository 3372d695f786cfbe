"""Admission control and the order of batches, with a fake clock and a session that blocks on demand."""

from functools import partial
from typing import cast

import pytest

from service.batching import BATCH_TOKENS
from service.errors import DeadlineExceeded, Overloaded
from tests.blocking_session import Clock, Session, await_queue, in_thread, item, make_scheduler


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
    scheduler.infer(item("d", 100), deadline=200)  # all tokens have been released


def test_a_deadline_passes_in_the_queue() -> None:
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


def test_a_deadline_passes_between_batches() -> None:
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
