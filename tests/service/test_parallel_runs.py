"""Batches on several cores: wide runs (all threads), narrow runs (one thread), shards of one request."""

from functools import partial

import pytest

from service.errors import DeadlineExceeded
from tests.blocking_session import Clock, Session, await_queue, in_thread, item, make_scheduler


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
