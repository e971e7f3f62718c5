"""The log in this process's memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import (
    ADMITTED,
    Decision,
    LogAlgorithm,
    SlidingWindowLog,
)
from pyrate_limiter.abstracts.awaiting import discard, then
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.checks import FOREVER, Unread, check_item
from pyrate_limiter.abstracts.locks import shared_lock
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.judged_log import ROUNDS, JudgedLog
from pyrate_limiter.buckets.unit_log import UnitsView
from pyrate_limiter.clocks import MonotonicClock
from pyrate_limiter.errors import AlgorithmMismatch
from pyrate_limiter.utils import RateList, sorted_rates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = [
    "ADMITTED",
    "AbstractBucket",
    "Decision",
    "InMemoryBucket",
    "LogAlgorithm",
    "Rate",
    "RateItem",
]

_CLOCK = MonotonicClock()
_STOCK = SlidingWindowLog()


class InMemoryBucket(JudgedLog, AbstractBucket):
    """A log of units in this process's memory: exact, thread-safe, picklable.

    It keeps timestamps and run lengths in flat arrays, so an item costs the same whatever its
    weight, and an operation the same whatever the number of live units. Expired units are dropped
    as the bucket is used.

    Args:
        rates: the limits; all of them hold.
        algorithm: a `LogAlgorithm`; `SlidingWindowLog` if left out.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: the algorithm does not work on a log.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_lock",
    )

    is_async: bool | None = False
    failing_rate: Rate | None

    def __init__(self, rates: Rate | Sequence[Rate], algorithm: LogAlgorithm | None = None) -> None:
        if algorithm is None:
            algorithm = _STOCK
        elif not isinstance(algorithm, LogAlgorithm):
            raise AlgorithmMismatch(algorithm, type(self).__name__, "a LogAlgorithm")
        super().__init__(sorted_rates(rates), algorithm, _CLOCK)
        self._lock: Any = shared_lock()

    @property
    def rates(self) -> RateList:
        """See `AbstractBucket.rates`."""
        return self._rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        checked = sorted_rates(rates)
        with getattr(self, "_lock", None) or nullcontext():  # it may come before `__init__`
            self._rates = checked
            self._full = None

    if TYPE_CHECKING:  # as the clock is; a program that sets an async one awaits it

        def now(self) -> int:
            """See `AbstractBucket.now`."""

    @property
    def items(self) -> UnitsView:
        """The stored units as a sequence of `RateItem`, oldest first."""
        return UnitsView(self, self._lock)

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; None where a subclass or policy differs."""
        changed = any(
            getattr(type(self), name) is not getattr(InMemoryBucket, name)
            for name in ("put", "put_decision", "waiting", "claim", "now", "limiter_lock")
        )
        return None if changed or type(self._algorithm) is not SlidingWindowLog else self.take

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that cannot be said at once: the clock has to be awaited, or a keyed factory
            has dropped the bucket.
        """
        with self._lock:
            now = self._clock.now()
            if now.__class__ is not int:
                discard(now)
                return None
            if now < self._newest:
                if self._newest == FOREVER:
                    return None
                now = self._observe(now)
            return self._put_now(name, weight, now)

    def stamp(self) -> int | Awaitable[int]:
        """See `AbstractBucket.stamp`."""
        return then(self.now(), Unread) if type(self).now is AbstractBucket.now else self.now()

    def put(self, item: RateItem) -> bool:
        """See `AbstractBucket.put`."""
        check_item(item)
        with self._lock:
            now = self._observe(self._fresh(item.timestamp))
            if item.weight == 0:
                self.failing_rate = None
                return True
            return self._put_now(item.name, item.weight, now)

    def put_decision(self, item: RateItem) -> Decision:
        """See `AbstractBucket.put_decision`."""
        with self._lock:
            if self.put(item):
                return ADMITTED
            wait = self.waiting(item)
            return Decision(self.failing_rate, None if wait < 0 else wait)

    def waiting(self, item: RateItem) -> int:
        """See `AbstractBucket.waiting`."""
        with self._lock:
            if self.failing_rate is None or item.weight == 0:
                return 0
            full = self._full
            if full is not None and full[1] == item.weight and full[4] == self._total:
                moment = full[3]
            else:
                check_item(item)
                if type(self).peek is not type(self)._stock_peek:
                    return super().waiting(item)  # type: ignore[return-value] # as `peek` is
                moment = self._earliest(self._observe(item.timestamp), item.weight)[0]
                largest = min(map(self._algorithm.max_weight, self._rates))
                if moment == FOREVER and item.weight <= largest:  # its policy named no moment
                    return super().waiting(item)  # type: ignore[return-value] # as `peek` is
        return -1 if moment == FOREVER else max(0, moment - item.timestamp)

    def claim(self, item: RateItem, patience_ms: int = 0, buffer_ms: int | None = None) -> Decision:
        """See `AbstractBucket.claim`."""
        check_item(item)
        weight = item.weight
        with self._lock:
            now = self._observe(self._fresh(item.timestamp))
            if weight == 0:
                self.failing_rate = None
                return self._outlook(now, None, now)
            moment, failing = self._earliest(now, weight)
            if moment - now > patience_ms or self._is_estimate(moment, weight):
                self._refuse(weight, moment, failing)
                return self._outlook(now, self.failing_rate, moment)
            if moment > now:
                moment = self._behind_queue(moment, now + patience_ms, failing, buffer_ms)
                self._expect(moment, weight, now)
                self._full = None
            item.timestamp = moment + self._stepped
            self._store(item.name, weight, moment, now)
            return self._outlook(now, None, moment)

    def settle(self, item: RateItem, now: int, patience_ms: int = 0) -> Decision:
        """See `AbstractBucket.settle`."""
        name, weight = item.name, item.weight
        with self._lock:
            now = self._latest = self._observe(self._fresh(now))
            stamp = item.timestamp - self._stepped
            own = self._before(stamp + 1)
            if self._awaited(stamp) < weight or own == self._base or self._stamp(own) != stamp:
                # Flushed, or so late that it has expired and was dropped.
                self._expect(stamp, -weight, now)
                item.timestamp = now
                return self.claim(item, patience_ms, 0)
            moment, failing = max(now, stamp), None
            for _ in range(ROUNDS):
                fits, short = self._next_departure(moment, weight)
                if fits == moment:
                    break
                moment, failing = fits, short
            self._expect(stamp, -weight, now)
            if moment == stamp:
                return ADMITTED
            self._full = None
            if moment == FOREVER or moment - now > patience_ms:
                self._remove(stamp, name, weight)
                self._refuse(weight, moment, failing)
                return self._outlook(now, self.failing_rate, moment)
            if not self._move(stamp, name, weight, moment):
                return ADMITTED
            item.timestamp = moment + self._stepped
            if moment <= now:
                return ADMITTED
            self._expect(moment, weight, now)
            return Decision(wait_ms=moment - now)

    def release(self, item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        with self._lock:
            stamp = item.timestamp - self._stepped
            self._full = None
            self._expect(stamp, -item.weight, stamp)
            return self._remove(stamp, item.name, item.weight)

    def check(self, item: RateItem) -> Decision:
        """See `AbstractBucket.check`."""
        check_item(item)
        with self._lock:
            now = self._observe(item.timestamp)
            moment, failing = self._earliest(now, item.weight) if item.weight else (now, None)
            return self._outlook(now, failing, moment)

    def pause(self, item: RateItem, decision: Decision) -> float:
        """See `AbstractBucket.pause`."""
        return self._clock.pause(item.timestamp - self._stepped, decision.wait_ms)

    def leak(self, current_timestamp: int | None = None) -> int:
        """See `AbstractBucket.leak`."""
        if current_timestamp is None:
            return then(self.now(), self._leak_at)  # type: ignore[return-value] # as the clock is
        return self._leak_at(current_timestamp)

    def _leak_at(self, now: int) -> int:
        with self._lock:
            self._full = None
            return self._drop_before(self._algorithm.leak_bound(self._rates, now))

    def flush(self) -> None:
        """See `AbstractBucket.flush`."""
        with self._lock:
            self._clear()
            self.failing_rate = None

    def count(self) -> int:
        """See `AbstractBucket.count`."""
        return self._total - self._base

    def peek(self, index: int) -> RateItem | None:
        """See `AbstractBucket.peek`."""
        with self._lock:
            number = self._total - index
            if index < 0 or number <= self._base:
                return None
            return RateItem(self._name_of(number), self._stamp(number))

    _stock_peek = peek  # a subclass with another one has its wait from that

    def retire(self, now: int) -> bool:
        """Refuse all use from now on, unless a unit is still live at ``now`` or yet to come."""
        with self._lock:
            if self._total > self._base and self._newest >= self._algorithm.leak_bound(
                self._rates, now
            ):
                return False
            self._newest = FOREVER
            return True

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            slots = (name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ()))
            skipped = ("__dict__", "__weakref__", "_lock")
            state = {name: getattr(self, name) for name in slots if name not in skipped}
            return {**state, **self.__dict__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = shared_lock()
        for name, value in state.items():
            setattr(self, name, value)
