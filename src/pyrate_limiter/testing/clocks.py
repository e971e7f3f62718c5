"""Clocks that stand still until a test moves them."""

from __future__ import annotations

import threading

from pyrate_limiter._core.validation import whole_number
from pyrate_limiter.clocks import AbstractClock
from pyrate_limiter.errors import OutOfRange, WrongType


class _ManualTime(AbstractClock):
    """What both forms share: the time, and how it is moved."""

    __slots__ = ("_lock", "_ms")

    def __init__(self, start_ms: int = 0) -> None:
        self._ms = _whole("start_ms", start_ms)
        self._lock = threading.Lock()

    @property
    def ms(self) -> int:
        """The time, in ms, without awaiting anything."""
        return self._ms

    def advance(self, ms: int) -> int:
        """Move the clock on, and return the new time in ms.

        Raises:
            WrongType: ``ms`` is no whole number.
            OutOfRange: it is negative; to step back, use `set`.
        """
        ms = _whole("ms", ms)
        if ms < 0:
            raise OutOfRange("ms", ms, "0 or more: use set() for a clock that steps back")
        with self._lock:
            self._ms += ms
            return self._ms

    def set(self, ms: int) -> None:
        """Put the clock to ``ms``, which may lie before the present.

        Raises:
            WrongType: it is no whole number.
        """
        with self._lock:
            self._ms = _whole("ms", ms)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._ms})"


class ManualClock(_ManualTime):
    """A clock that moves only when told to: ``bucket._clock = ManualClock()``.

    Thread-safe. It knows no fractions of a millisecond, so a waiter on it sleeps whole ones; see
    `sleeping_advances` for a way to make such waits pass at once.

    Args:
        start_ms: the time at first, in ms.
    """

    __slots__ = ()

    def now(self) -> int:
        return self._ms


class ManualAsyncClock(_ManualTime):
    """`ManualClock` in awaitable form, for code that has to await its clock.

    Args:
        start_ms: the time at first, in ms.
    """

    __slots__ = ()

    async def now(self) -> int:
        return self._ms


def _whole(field: str, value: int) -> int:
    number = whole_number(value)
    if number is None:
        raise WrongType(field, value, "a whole number of milliseconds")
    return number
