"""The rules of a log over arrays in this process's memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from pyrate_limiter._core.closing import Closable, StoppedClock
from pyrate_limiter.abstracts.algorithm import SlidingWindowLog
from pyrate_limiter.buckets.log.bucket import LogBucket
from pyrate_limiter.buckets.log.run_length import MANY, UnitLog

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyrate_limiter._core.rate_list import RateList


class ArrayLog(Closable, LogBucket, UnitLog):
    """A `LogBucket` whose storage is a `UnitLog`: rules and arrays are one object.

    Two objects would cost 40 to 80 bytes more for each key, and 50 ns more for each call.
    """

    if not TYPE_CHECKING:
        # What most logs never need has no slot: it is in the `__dict__` of those that do.
        __slots__ = (
            "__dict__",
            "__weakref__",
            "_algorithm",
            "_full",
            "_latest",
            "_lock",
            "_own_clock",
            "_pending",
            "_rates",
            "_trusted",
            "failing_rate",
        )

    _lock: AbstractContextManager[object]

    def _set_rates(self, rates: RateList) -> None:
        with getattr(self, "_lock", None) or nullcontext():  # it may come before `__init__`
            super()._set_rates(rates)

    def _put_now(self, name: str, weight: int, now: int) -> bool:  # noqa: C901 - a call costs more
        """`_put_slowly`, spelled out for the path of nearly every call."""
        full = self._full
        if full is not None and now < full[0] and weight >= full[1]:
            self.failing_rate = full[2]
            return False
        newest = self._newest
        if (
            newest > now
            or self._hold is not None
            or self._algorithm.__class__ is not SlidingWindowLog
        ):
            return self._put_slowly(name, weight, now)
        total, base = self._total, self._base
        newest_then = total + weight
        if newest_then - base > self._rates.least:
            for limit, interval, _ in self._rates.bounds:
                place = newest_then - limit
                # The unit at this place has to leave first; if it was dropped, it has left.
                if place > base and (weight > limit or self._stamp(place) + interval >= now):
                    return self._put_slowly(name, weight, now)
        # This is `_store`.
        if name is not self._name and name != self._name:
            self._seal_name()
            if self._total == total:
                self._name = name
        if now != newest:
            if total > base and (self._seal() >= self._sweep_at or newest_then > MANY):
                self._sweep(now)
            if self._newest != newest:  # a signal handler was here
                return ArrayLog._put_now(self, name, weight, max(now, self._latest))
            if self._total == total:
                self._newest = now
        if self._total != total:  # as above; from now on nothing is called
            return ArrayLog._put_now(self, name, weight, max(now, self._latest))
        self._latest = now
        self._total = newest_then
        self.failing_rate = None
        return True

    def close(self) -> None:
        """See `AbstractBucket.close`. What it holds can still be looked at."""
        self._clock = StoppedClock()
        super().close()
