"""Owns when a worker may be started after others ended before they had loaded; knows no process."""

import time
from collections.abc import Callable

# Failures in a row after which a server without any loaded worker gives up.
_ATTEMPTS = 5
_LONGEST_SECONDS = 60.0


class Restarts:
    """Exponential back-off: the first retry comes at once, the next after 1, 2, 4 ... seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether a worker may be started now."""
        return self._clock() >= self._due

    @property
    def exhausted(self) -> bool:
        """Whether further attempts are not worth making."""
        return self._failures >= _ATTEMPTS

    def failed(self) -> float:
        """Record a failure; the seconds until the next attempt."""
        self._failures += 1
        wait = min(_LONGEST_SECONDS, 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        self._due = self._clock() + wait
        return wait

    def succeeded(self) -> None:
        """Record that a worker has loaded."""
        self._failures, self._due = 0, 0.0
