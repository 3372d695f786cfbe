"""Makes the wall clock jump by hours, forward and back, at every read."""

import datetime as dt
import itertools
import time
from typing import Self

_HOURS = itertools.cycle((0, 5, -7, 30, -24))
_seconds, _nanoseconds = time.time, time.time_ns


def _jump() -> int:
    return 3600 * next(_HOURS)


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return super().now(tz) + dt.timedelta(seconds=_jump())


time.time = lambda: _seconds() + _jump()
time.time_ns = lambda: _nanoseconds() + _jump() * 1_000_000_000
dt.datetime = _Datetime  # type: ignore[misc] # replaced on purpose
