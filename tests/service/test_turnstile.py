"""The order in which requests get the model, with a clock and a session the tests hold still."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from service.batching import TURN_TOKENS, Turnstile
from service.engine.answering import Prepared, QuestionAnswerer
from service.errors import DeadlineExceeded, Overloaded


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Windows:
    """Stands for a window: only its length and whose it is matter here."""

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
    """A session that stays inside `infer` until it is let go, one call at a time."""

    clock: Clock
    threads: int = 1
    seconds: float = 0.0
    blocked: bool = False
    fails: bool = False
    calls: list[list[Windows]] = field(default_factory=list)
    narrow: list[bool] = field(default_factory=list)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def infer(self, windows: list[Windows], *, narrow: bool) -> list[str]:
        self.calls.append(windows)
        self.narrow.append(narrow)
        self.entered.release()
        if self.blocked:
            assert self.go.acquire(timeout=10)
        self.clock.now += self.seconds
        if self.fails:
            raise RuntimeError
        return [f"{window.owner}{len(window.ids)}" for window in windows]


def item(owner: str, *lengths: int) -> list[Prepared]:
    return cast(list[Prepared], [Item([Windows(range(n), owner) for n in lengths])])


def turnstile(session: Session, **limits: int) -> Turnstile:
    sizes = {"max_waiting": 8, "max_waiting_tokens": 10_000} | limits
    return Turnstile(cast(QuestionAnswerer, session), clock=session.clock, **sizes)


def aside(work: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    """Run `work` in a thread; its result or its error comes in the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def waiting(turns: Turnstile, number: int) -> None:
    """Until `number` callers stand in the queue."""
    deadline = time.monotonic() + 10
    while len(turns._queue) != number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_logits_come_back_in_order_and_times_are_told() -> None:
    session = Session(Clock(), seconds=0.5)
    inferred = turnstile(session).infer(item("a", 5, 3, 9), deadline=200)
    assert cast(list[str], inferred.logits) == ["a5", "a3", "a9"]
    assert (inferred.waited, inferred.ran) == (0.0, 0.5)


def test_first_come_first_served() -> None:
    session = Session(Clock(), blocked=True)
    turns = turnstile(session)
    threads = []
    for position, owner in enumerate("abcd"):
        threads.append(aside(partial(turns.infer, item(owner, 1), deadline=200))[0])
        if position == 0:
            assert session.entered.acquire(timeout=10)
        else:
            waiting(turns, position)
    for _ in threads:
        session.go.release()
    for thread in threads:
        thread.join(10)
    assert [call[0].owner for call in session.calls] == list("abcd")


def test_a_long_request_lets_others_in_between_its_turns() -> None:
    session = Session(Clock(), blocked=True)
    turns = turnstile(session, max_waiting_tokens=10 * TURN_TOKENS)
    half = TURN_TOKENS // 2
    long_thread, long_outcome = aside(lambda: turns.infer(item("long", *[half] * 5), deadline=200))
    assert session.entered.acquire(timeout=10)
    short_thread, _ = aside(lambda: turns.infer(item("short", 7), deadline=200))
    waiting(turns, 1)
    for _ in range(4):
        session.go.release()
    long_thread.join(10)
    short_thread.join(10)
    assert [(call[0].owner, len(call)) for call in session.calls] == [
        *(("long", 2), ("short", 1)),
        *(("long", 2), ("long", 1)),
    ]
    assert len(long_outcome[0].logits) == 5


def test_a_window_longer_than_a_turn_still_runs() -> None:
    session = Session(Clock())
    turnstile(session).infer(item("a", TURN_TOKENS + 1, 1), deadline=200)
    assert [len(call) for call in session.calls] == [1, 1]


def test_places_are_limited_and_given_back() -> None:
    turns = turnstile(Session(Clock()), max_waiting=1)
    with turns.admit(), turns.admit():
        with pytest.raises(Overloaded), turns.admit():
            pass
        with pytest.raises(Overloaded), turns.admit():  # the refused one took no place
            pass
    with turns.admit(), turns.admit():
        pass


def test_waiting_tokens_are_limited_but_an_idle_model_takes_any_size() -> None:
    session = Session(Clock(), blocked=True, seconds=2.0)
    turns = turnstile(session, max_waiting_tokens=100)
    session.go.release()
    turns.infer(item("any size", 500), deadline=200)  # 2 s for 500 tokens
    session.entered.acquire()
    thread, outcome = aside(lambda: turns.infer(item("a", 90), deadline=200))
    assert session.entered.acquire(timeout=10)
    with pytest.raises(Overloaded) as refused:
        turns.infer(item("b", 11), deadline=200)
    assert refused.value.retry_after == pytest.approx(90 * 2.0 / 500)
    fits_thread, fits = aside(lambda: turns.infer(item("c", 10), deadline=200))
    waiting(turns, 1)
    session.go.release()
    session.go.release()
    thread.join(10)
    fits_thread.join(10)
    assert outcome[0].logits == ["a90"]
    assert fits[0].logits == ["c10"]
    session.go.release()
    turns.infer(item("d", 100), deadline=200)  # all tokens were given back


def test_a_deadline_passes_while_waiting() -> None:
    session = Session(Clock(), blocked=True)
    turns = turnstile(session)
    thread, outcome = aside(lambda: turns.infer(item("a", 1), deadline=200))
    assert session.entered.acquire(timeout=10)
    with pytest.raises(DeadlineExceeded):
        turns.infer(item("late", 1), deadline=session.clock.now + 0.05)
    session.go.release()
    thread.join(10)
    assert outcome[0].logits == ["a1"]
    session.go.release()
    assert turns.infer(item("b", 1), deadline=200).ran == 0.0
    assert [call[0].owner for call in session.calls] == ["a", "b"]


def test_a_deadline_passes_between_turns() -> None:
    session = Session(Clock(), seconds=5.0)
    turns = turnstile(session, max_waiting_tokens=100_000)
    with pytest.raises(DeadlineExceeded):
        turns.infer(item("a", TURN_TOKENS, TURN_TOKENS, TURN_TOKENS), deadline=108)
    assert len(session.calls) == 2
    turns.infer(item("b", 1), deadline=200)  # neither the model nor tokens stayed taken
    assert turns._tokens == 0


def test_a_past_deadline_runs_nothing() -> None:
    session = Session(Clock())
    with pytest.raises(DeadlineExceeded):
        turnstile(session).infer(item("a", 1), deadline=100)
    assert session.calls == []


def test_a_failing_run_frees_the_model() -> None:
    session = Session(Clock(), fails=True)
    turns = turnstile(session)
    with pytest.raises(RuntimeError):
        turns.infer(item("a", 5), deadline=200)
    session.fails = False
    assert turns.infer(item("b", 5), deadline=200).waited == 0.0
    assert turns._tokens == 0


def test_a_turn_that_comes_with_its_deadline_is_handed_on() -> None:
    session = Session(Clock(), blocked=True)
    turns = turnstile(session)
    first, _ = aside(lambda: turns.infer(item("a", 1), deadline=200))
    assert session.entered.acquire(timeout=10)
    late, late_outcome = aside(lambda: turns.infer(item("late", 1), deadline=150))
    waiting(turns, 1)
    third, third_outcome = aside(lambda: turns.infer(item("c", 1), deadline=300))
    waiting(turns, 2)
    session.clock.now = 150.0  # passes while the model is still taken
    session.go.release()
    session.go.release()
    for thread in (first, late, third):
        thread.join(10)
    assert isinstance(late_outcome[0], DeadlineExceeded)
    assert third_outcome[0].logits == ["c1"]


def test_one_caller_has_all_cores_and_many_have_one_each() -> None:
    session = Session(Clock(), threads=2, blocked=True)
    turns = turnstile(session)
    threads = [aside(partial(turns.infer, item("first", 1), deadline=200))[0]]
    assert session.entered.acquire(timeout=10)
    for number, owner in enumerate("abcd"):
        threads.append(aside(partial(turns.infer, item(owner, 1), deadline=200))[0])
        waiting(turns, number + 1)
    assert not session.entered.acquire(timeout=0.05)  # nobody runs beside a wide run
    session.go.release()
    for _ in range(3):  # two cores, and one run that fills the gaps: side by side
        assert session.entered.acquire(timeout=10)
    assert not session.entered.acquire(timeout=0.05)
    for _ in range(4):
        session.go.release()
    for thread in threads:
        thread.join(10)
    assert next(call[0].owner for call in session.calls) == "first"
    assert session.narrow == [False, *[True] * 4]
    session.go.release()
    turns.infer(item("alone", 1), deadline=200)
    assert session.narrow[-1] is False


def test_the_windows_of_one_request_run_side_by_side() -> None:
    session = Session(Clock(), threads=2, blocked=True, seconds=1.0)
    turns = turnstile(session, max_waiting_tokens=100_000)
    thread, outcome = aside(lambda: turns.infer(item("a", 1, 2, 3, 4, 5), deadline=200))
    assert session.entered.acquire(timeout=10)
    assert session.entered.acquire(timeout=10)
    session.go.release()
    session.go.release()
    thread.join(10)
    assert outcome[0].logits == ["a1", "a2", "a3", "a4", "a5"]
    assert sorted(len(call) for call in session.calls) == [2, 3]
    assert session.narrow == [True, True]
    assert (outcome[0].waited, outcome[0].ran) == (0.0, 2.0)
    session.go.release()
    turns.infer(item("b", 1), deadline=200)
    assert session.narrow[-1] is False  # a single one has all cores


def test_a_failing_share_takes_the_others_out_of_the_queue() -> None:
    session = Session(Clock(), threads=2, blocked=True, fails=True)
    turns = turnstile(session)
    busy, _ = aside(lambda: turns.infer(item("first", 1), deadline=200))
    assert session.entered.acquire(timeout=10)
    with pytest.raises(DeadlineExceeded):
        turns.infer(item("late", 1, 2, 3), deadline=session.clock.now + 0.05)
    waiting(turns, 0)
    session.go.release()
    busy.join(10)
    assert turns._tokens == 0


def test_a_caller_whose_deadline_passes_while_it_runs_is_told_at_once() -> None:
    session = Session(Clock(), blocked=True)
    turns = turnstile(session)
    with pytest.raises(DeadlineExceeded):
        turns.infer(item("a", 7), deadline=session.clock.now + 0.05)
    assert len(session.calls) == 1
    session.go.release()
    session.go.release()
    assert cast(list[str], turns.infer(item("b", 7), deadline=200).logits) == ["b7"]
    assert turns._tokens == 0
