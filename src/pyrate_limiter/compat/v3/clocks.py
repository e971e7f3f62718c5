"""The clocks of 3.x that have another name today."""

from __future__ import annotations

from pyrate_limiter import (
    AbstractClock,
    MonotonicClock,
    PostgresClock,
    SQLiteBucket,
    SQLiteClock,
    WallClock,
)
from pyrate_limiter.compat.v3.utils import dedicated_sqlite_clock_connection

__all__ = [
    "AbstractClock",
    "MonotonicClock",
    "PostgresClock",
    "SQLiteBucket",
    "SQLiteClock",
    "TimeAsyncClock",
    "TimeClock",
    "dedicated_sqlite_clock_connection",
]


class TimeClock(WallClock):
    """`WallClock`: milliseconds since the Unix epoch."""

    __slots__ = ()


class TimeAsyncClock(AbstractClock):
    """`TimeClock` in awaitable form."""

    __slots__ = ()

    async def now(self) -> int:
        return self._get_wall_ms()
