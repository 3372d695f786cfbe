"""A scheduler over a fake session that blocks on demand, with a fake clock."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from service.batching import Scheduler
from service.engine.answering import Prepared, QuestionAnswerer


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
