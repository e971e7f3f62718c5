"""How long a caller waits, and how."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from pyrate_limiter._core.validation import number_of
from pyrate_limiter.errors import (
    InvalidReserveAhead,
    InvalidTimeout,
    OutOfRange,
    TimeoutWithoutBlocking,
    WrongType,
)

if TYPE_CHECKING:
    from typing import TypeAlias

    from pyrate_limiter.algorithms.decision import Decision

    Timeout: TypeAlias = "float | None"

ENDLESS_MS = 1 << 60
"""How long a caller waits who waits for ever."""


def monotonic() -> float:
    """The clock of callers' deadlines, in seconds."""
    return time.monotonic()


class _Holds:
    """How many holds were ended in this process."""

    released = 0


holds = _Holds()


class AdaptiveBuffer(int):
    """The default of ``buffer_ms``: 50, or 5 % of the failing interval where that is less."""

    __slots__ = ()


ADAPTIVE = AdaptiveBuffer(50)


class WaitOptions:
    """How long a caller waits, and how.

    Args:
        blocking: whether it waits at all.
        seconds: for how long at the most, -1 for ever.
        buffer_ms: added to each wait; None or `ADAPTIVE` adapts it to the failing interval.
        known: whether to answer at once where the wait is known to be too long; otherwise the
            caller sleeps until its time is up, and then takes what is free. A caller who wants to
            know also gets a fresh outlook after a wait.
        on_loop: whether the call waits in an event loop.
        replaced: whether a test has put something else in the place of sleeping: then every wait is
            one call of that, and its end is the end of the wait.
    """

    __slots__ = (
        "_deadline",
        "_released",
        "at_once",
        "blocking",
        "buffer_ms",
        "known",
        "on_loop",
        "replaced",
    )

    def __init__(
        self,
        *,
        blocking: bool,
        seconds: float,
        buffer_ms: int | None,
        known: bool,
        on_loop: bool = False,
        replaced: bool = False,
    ) -> None:
        self.blocking = blocking
        self.at_once: bool = not blocking or seconds == 0
        """Whether the caller takes what is free now, however long it takes to find that out."""
        self.buffer_ms = None if isinstance(buffer_ms, AdaptiveBuffer) else buffer_ms
        self.known = known
        self.on_loop = on_loop
        self._released: int = holds.released
        self.replaced = replaced
        for_ever = seconds == -1 or seconds * 1000 >= ENDLESS_MS
        self._deadline = None if for_ever else time.monotonic() + seconds

    def may_fit_by_now(self) -> bool:
        """Whether a hold was ended since this was asked last; what a bucket has said may be old."""
        before, self._released = self._released, holds.released
        return self._released != before

    @property
    def bounds_steps(self) -> bool:
        """Whether what is awaited for the caller may take no longer than the caller waits."""
        return not self.at_once and self._deadline is not None

    def since(self, began: float) -> WaitOptions:
        """The same options for a call that began earlier, on that clock."""
        if self._deadline is not None:
            self._deadline -= time.monotonic() - began
        return self

    def max_wait_ms(self) -> int:
        """How much longer the caller is willing to wait."""
        if not self.blocking:
            return 0
        return self.limit_ms()

    def gives_up(self, refusal: Decision) -> bool:
        """Whether the caller takes a refusal as the answer, and does not wait until it fits."""
        retry, max_wait = refusal.retry_after_ms, self.max_wait_ms()
        return retry is None or max_wait == 0 or (self.known and retry > max_wait)

    def limit_ms(self) -> int:
        """How long a call may take, also one that is made at the end of the caller's time."""
        if self._deadline is None:
            return ENDLESS_MS
        left = math.ceil((self._deadline - time.monotonic()) * 1000)  # never gives up too early
        return min(ENDLESS_MS, max(0, left))

    def seconds_left(self) -> float | None:
        """How much longer the caller is willing to wait; None is for ever."""
        if self._deadline is None:
            return None
        return min(threading.TIMEOUT_MAX, max(0.0, self._deadline - time.monotonic()))

    def lock_seconds(self) -> float | None:
        """How long to wait for a lock. One who does not block still waits for his turn."""
        return None if self.at_once or not self.blocking else self.seconds_left()


def ahead_ms(reserve_ahead: float) -> int:
    """How far ahead to reserve, in ms, for what `Limiter` was given."""
    if not isinstance(reserve_ahead, (bool, int, float)) or not 0 <= reserve_ahead < math.inf:
        raise InvalidReserveAhead(reserve_ahead)
    return round(reserve_ahead * 1000)


def check_seconds(field: str, value: object, expected: str, most: float = math.inf) -> float:
    """A number of seconds from 0 to ``most``, which is else a `WrongType` or an `OutOfRange`."""
    seconds = number_of(value)
    if seconds is None:
        raise WrongType(field, value, expected)
    if not 0 <= seconds <= most:  # which a NaN is not
        raise OutOfRange(field, value, expected)
    return seconds


def check_timeout(timeout: Timeout, blocking: bool) -> float:
    """The timeout in seconds, -1 for ever; None is that too.

    Raises:
        InvalidTimeout: it is no number of 0 or more.
        TimeoutWithoutBlocking: it is for a call that does not wait.
    """
    seconds = -1 if timeout is None else number_of(timeout)
    if seconds == -1:
        return -1
    if seconds is None or not seconds >= 0:  # which a NaN is not
        raise InvalidTimeout(timeout)
    if not blocking:
        raise TimeoutWithoutBlocking(timeout)
    return seconds
