"""Where the time comes from. Every clock answers whole milliseconds."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

_NS = 1_000_000  # nanoseconds in a millisecond


class AbstractClock(ABC):
    """A source of time."""

    __module__ = "pyrate_limiter.clocks"

    __slots__ = ()

    @abstractmethod
    def now(self) -> int | Awaitable[int]:
        """The time in ms, or an awaitable of it. Where it starts is the clock's own affair."""

    def seconds_until(self, moment: int) -> float | None:
        """The exact time left until the clock will read ``moment`` ms, in seconds.

        None: this clock cannot say it more finely than `now` does.
        """
        del moment
        return None

    def pause(self, moment: int, wait_ms: int) -> float:
        """How long somebody sleeps until ``moment`` who was told to wait ``wait_ms``, in seconds.

        As exactly as the clock can say, and no longer than told: it may step back meanwhile.
        """
        exact, told = self.seconds_until(moment), wait_ms / 1000
        return told if exact is None else min(told, max(0.0, exact))

    @staticmethod
    def _get_wall_ms() -> int:
        return time.time_ns() // _NS


class MonotonicClock(AbstractClock):
    """Milliseconds that never go backwards; they mean nothing to other machines."""

    __module__ = "pyrate_limiter.clocks"

    __slots__ = ()

    def now(self) -> int:
        return time.monotonic_ns() // _NS

    def seconds_until(self, moment: int) -> float | None:
        if type(self).now is not MonotonicClock.now:
            return None  # a subclass tells another time
        return (moment * _NS - time.monotonic_ns()) / 1e9


class MonotonicAsyncClock(AbstractClock):
    """`MonotonicClock` in awaitable form."""

    __module__ = "pyrate_limiter.clocks"

    __slots__ = ()

    async def now(self) -> int:
        return time.monotonic_ns() // _NS


class WallClock(AbstractClock):
    """Milliseconds since the Unix epoch, as this machine's clock has it."""

    __module__ = "pyrate_limiter.clocks"

    __slots__ = ()

    def now(self) -> int:
        return time.time_ns() // _NS

    def seconds_until(self, moment: int) -> float | None:
        if type(self).now is not WallClock.now:
            return None  # a subclass tells another time
        return (moment * _NS - time.time_ns()) / 1e9
