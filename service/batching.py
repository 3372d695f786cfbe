"""Owns the model's time: who may run next, who must wait, who is refused; knows no HTTP."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.engine.answering import Prepared, QuestionAnswerer
from service.engine.session import WindowLogits
from service.engine.windowing import Window
from service.errors import DeadlineExceeded, Overloaded

# A request with more tokens than this gives up the model between turns, so that one long document
# does not hold up everybody's short questions. About 0.1 s of work for a small model on 2 cores.
TURN_TOKENS = 4096
# Weight of the newest turn in the running mean of the model's speed.
_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class Inferred:
    """Logits of a request's windows, and the seconds it waited and ran."""

    logits: list[WindowLogits]
    waited: float
    ran: float


class Turnstile:
    """Lets one caller at a time run the model, in order of arrival.

    One run already uses every CPU the service may use, so runs side by side would share the same
    cores and only add contention; callers overlap their tokenizing and decoding with it instead.
    """

    def __init__(
        self,
        answerer: QuestionAnswerer,
        *,
        max_waiting: int,
        max_waiting_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answerer = answerer
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._busy = False
        self._queue: deque[threading.Event] = deque()
        self._requests = 0  # admitted and not finished
        self._tokens = 0  # of those requests, not yet run
        self._seconds_per_token = 0.0  # running mean; 0 until the first run

    @property
    def requests(self) -> int:
        """Admitted and not finished."""
        return self._requests

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the places; raises Overloaded when all are taken.

        Meant to be entered before anything is spent on a request, so that refusing one is cheap.
        """
        with self._lock:
            if self._requests > self._max_waiting:  # the one that runs is not waiting
                raise self._overloaded()
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    def infer(self, prepared: list[Prepared], deadline: float) -> Inferred:
        """Run the windows of one admitted request; `deadline` is a time of the clock.

        Raises Overloaded when too many tokens wait, and DeadlineExceeded as soon as the deadline
        passes, waiting or between turns.
        """
        windows = [window for item in prepared for window in item.windows]
        tokens = sum(item.token_count for item in prepared)
        with self._lock:
            # An idle model takes a request of any size.
            if self._tokens and self._tokens + tokens > self._max_waiting_tokens:
                raise self._overloaded()
            self._tokens += tokens
        logits: list[WindowLogits] = []
        waited = ran = 0.0
        try:
            while len(logits) < len(windows):
                turn: list[Window] = []
                size = 0
                for window in windows[len(logits) :]:
                    if turn and size + len(window.ids) > TURN_TOKENS:
                        break
                    turn.append(window)
                    size += len(window.ids)
                asked = self._clock()
                self._enter(deadline)
                started = self._clock()
                try:
                    logits += self._answerer.infer(turn)
                finally:
                    took = self._clock() - started
                    tokens -= size
                    self._leave(size, took)
                waited += started - asked
                ran += took
        finally:
            with self._lock:
                self._tokens -= tokens
        return Inferred(logits, waited, ran)

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{self._requests} requests with {self._tokens} tokens are waiting already: try again later.",
            retry_after=self._tokens * self._seconds_per_token,
        )

    def _enter(self, deadline: float) -> None:
        with self._lock:
            if not self._busy:
                if self._clock() >= deadline:
                    raise _too_late()
                self._busy = True
                return
            turn = threading.Event()
            self._queue.append(turn)
        if turn.wait(max(0.0, deadline - self._clock())) and self._clock() < deadline:
            return
        with self._lock:
            if turn.is_set():  # the turn came together with the deadline: hand it on
                self._hand_on()
            else:
                self._queue.remove(turn)
        raise _too_late()

    def _leave(self, tokens: int, took: float) -> None:
        with self._lock:
            self._tokens -= tokens
            speed = took / tokens
            if self._seconds_per_token:
                speed = _SMOOTHING * speed + (1 - _SMOOTHING) * self._seconds_per_token
            self._seconds_per_token = speed
            self._hand_on()

    def _hand_on(self) -> None:
        """Pass the model to the longest waiting caller; the lock is held."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._busy = False


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("The time allowed for this request passed before it was answered.")
