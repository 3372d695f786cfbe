"""Owns the cores: what the model runs next and on how many, who waits, who is refused; knows no HTTP."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.engine.answering import Prepared, QuestionAnswerer
from service.engine.memory import return_memory
from service.engine.windowing import Window, WindowLogits
from service.errors import DeadlineExceeded, Overloaded

# A request with more tokens than this gives up the model between turns, so that one long document
# does not hold up everybody's short questions. About 0.1 s of work for a small model on 2 cores.
TURN_TOKENS = 4096
# Weight of the newest turn in the running mean of the model's speed.
_SMOOTHING = 0.2
# Seconds without a run after which the memory of the runs is given back.
_REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Inferred:
    """Logits of a request's windows, the seconds it waited and ran, and the windows of each turn it took."""

    logits: list[WindowLogits]
    waited: float
    ran: float
    turns: list[int]


class _Turn:
    """Windows that run in one go, and what became of them once `done` is set."""

    __slots__ = ("asked", "deadline", "done", "error", "logits", "started", "tokens", "took", "windows")

    def __init__(self, windows: Sequence[Window], asked: float, deadline: float) -> None:
        self.windows = windows
        self.tokens = sum(len(window.ids) for window in windows)
        self.asked = asked
        self.deadline = deadline
        self.done = threading.Event()
        self.logits: list[WindowLogits] = []
        self.error: BaseException | None = None
        self.started = self.took = 0.0


class Turnstile:
    """Runs the model for many callers, in order of arrival.

    Few turns get all cores, one after the other: that is the shortest way for each of them. Once as
    many wait as there are cores, each gets one, side by side: that gives the most answers, since no
    core waits for another. The runs have threads of their own, so that a core goes from one turn to
    the next without waking anybody, and the memory of runs is that of so many threads. Callers
    tokenize and decode in theirs.
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
        self._cores = answerer.threads
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._changed = threading.Condition()
        # One run more than there are cores has its core while another's thread waits for Python's lock:
        # 16 callers over HTTP on 2 cores get 3% more answers.
        self._slots = self._cores + 1 if self._cores > 1 else 1
        self._free = self._slots
        self._queue: deque[_Turn] = deque()
        self._requests = 0  # admitted and not finished
        self._tokens = 0  # of those requests, not yet run
        self._seconds_per_token = 0.0  # of all cores together, running mean; 0 until the first run
        for number in range(self._slots):
            threading.Thread(target=self._run_turns, name=f"core-{number}", daemon=True).start()

    @property
    def requests(self) -> int:
        """Admitted and not finished."""
        return self._requests

    @property
    def full(self) -> bool:
        """Whether all places are taken at this moment."""
        return self._requests > self._max_waiting  # the one that runs is not waiting

    def overloaded(self) -> Overloaded:
        """What tells a client that there is no place, and when there may be one."""
        return Overloaded(
            f"{self._requests} requests with {self._tokens} tokens are waiting already: try again later.",
            retry_after=self._tokens * self._seconds_per_token,
        )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the places; raises Overloaded when all are taken.

        Meant to be entered before anything is spent on a request, so that refusing one is cheap.
        """
        with self._changed:
            if self.full:
                raise self.overloaded()
            self._requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._requests -= 1

    def infer(self, prepared: list[Prepared], deadline: float) -> Inferred:
        """Run the windows of one admitted request; `deadline` is a time of the clock.

        Raises Overloaded when too many tokens wait, and DeadlineExceeded as soon as the deadline
        passes; a turn that runs by then is finished for nobody.
        """
        windows = [window for item in prepared for window in item.windows]
        tokens = sum(item.token_count for item in prepared)
        with self._changed:
            # An idle model takes a request of any size.
            if self._tokens and self._tokens + tokens > self._max_waiting_tokens:
                raise self.overloaded()
            self._tokens += tokens
        logits: list[WindowLogits] = []
        waited = ran = 0.0
        sizes: list[int] = []
        try:
            for part, size in _turns(windows):
                turns = [_Turn(share, self._clock(), deadline) for share in _shares(part, self._cores)]
                self._await(turns)
                with self._changed:
                    self._tokens -= size
                tokens -= size
                started = min(turn.started for turn in turns)
                waited += started - turns[0].asked
                ran += max(turn.started + turn.took for turn in turns) - started
                logits += [found for turn in turns for found in turn.logits]
                sizes += [len(turn.windows) for turn in turns]
        finally:
            with self._changed:
                self._tokens -= tokens
        return Inferred(logits, waited, ran, sizes)

    def _await(self, turns: list[_Turn]) -> None:
        """Have all of them run; raises what the first bad one met."""
        with self._changed:
            if self._clock() >= turns[0].deadline:
                raise _too_late()
            self._queue.extend(turns)
            self._changed.notify()  # who takes one wakes the next
        try:
            for turn in turns:
                if not turn.done.wait(max(0.0, turn.deadline - self._clock())):
                    raise _too_late()
                if turn.error is not None:
                    raise turn.error
        except BaseException:
            with self._changed:
                for turn in turns:
                    if turn in self._queue:
                        self._queue.remove(turn)
            raise

    def _run_turns(self) -> None:
        """What each of the threads does, for ever."""
        tidy = True
        while True:
            with self._changed:
                while not (self._queue and self._free):
                    rested = not self._changed.wait(None if tidy else _REST_SECONDS)
                    if rested and self._free == self._slots:
                        return_memory()  # takes about a millisecond, when nobody waits for it
                        tidy = True
                tidy = False
                wide = self._free == self._slots and len(self._queue) < self._cores
                slots = self._slots if wide else 1
                turn = self._queue.popleft()
                self._free -= slots
                if self._queue and self._free:
                    self._changed.notify()
            turn.started = self._clock()
            try:
                if turn.started >= turn.deadline:
                    raise _too_late()
                turn.logits = self._answerer.infer(turn.windows, narrow=not wide)
            except BaseException as error:
                turn.error = error
            turn.took = self._clock() - turn.started
            with self._changed:
                self._free += slots
                if turn.error is None:
                    self._learn(turn.took * slots / self._slots / turn.tokens)
            turn.done.set()

    def _learn(self, seconds_per_token: float) -> None:
        known = self._seconds_per_token or seconds_per_token
        self._seconds_per_token = _SMOOTHING * seconds_per_token + (1 - _SMOOTHING) * known


def _turns(windows: Sequence[Window]) -> Iterator[tuple[list[Window], int]]:
    """Windows in order, in parts of at most TURN_TOKENS, or of one that is longer; and their tokens."""
    part: list[Window] = []
    size = 0
    for window in windows:
        if part and size + len(window.ids) > TURN_TOKENS:
            yield part, size
            part, size = [], 0
        part.append(window)
        size += len(window.ids)
    if part:
        yield part, size


def _shares(windows: list[Window], cores: int) -> Iterator[list[Window]]:
    """Windows in order, as even shares for all cores side by side; few windows stay together.

    A window on each core beats one after the other on all of them: 2 cores, 384 tokens: 5% more.
    """
    if len(windows) < cores:
        yield windows
        return
    for core in range(cores):
        yield windows[core * len(windows) // cores : (core + 1) * len(windows) // cores]


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("The time allowed for this request passed before it was answered.")
