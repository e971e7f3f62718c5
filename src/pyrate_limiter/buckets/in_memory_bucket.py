"""The log in this process's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import (
    ADMITTED,
    Decision,
    LogAlgorithm,
    SlidingWindowLog,
)
from pyrate_limiter.abstracts.awaiting import discard, then
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.locks import shared_lock
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.checks import check_item, pad_ms
from pyrate_limiter.buckets.unit_log import BEGINNING, FOREVER, UnitLog, UnitsView
from pyrate_limiter.clocks import MonotonicClock
from pyrate_limiter.errors import AlgorithmMismatch, BucketRetired
from pyrate_limiter.utils import RateList, sorted_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
_ROUNDS = 64  # how often a policy may name a moment and then refuse it
_SAME_CLOCK_MS = 60_000  # stamps this close to the clock's reading were read off it


class InMemoryBucket(UnitLog, AbstractBucket):
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
        "_algorithm",
        "_clock",
        "_full",
        "_latest",
        "_lock",
        "_rates",
        "_stepped",
        "failing_rate",
    )

    is_async = False

    # The earliest moment, the weight and the rate of the last refusal. Until that moment anything
    # as heavy is refused without a look, for new units can only make it later.
    _full: tuple[int, int, Rate] | None
    # The largest clock reading so far. What is stored after it is a claim still to come.
    _latest: int
    # By how much the clock has stepped back so far: claims carry their moment plus this.
    _stepped: int

    def __init__(self, rates: Sequence[Rate], algorithm: LogAlgorithm | None = None) -> None:
        if algorithm is None:
            algorithm = _STOCK
        elif not isinstance(algorithm, LogAlgorithm):
            raise AlgorithmMismatch(algorithm, type(self).__name__, "a LogAlgorithm")
        self._rates = sorted_rates(rates)
        self._algorithm = algorithm
        self._clock = _CLOCK
        self._lock: Any = shared_lock()
        self.failing_rate = None
        self._full = None
        self._latest = BEGINNING
        self._stepped = 0
        self._clear()

    @property
    def rates(self) -> RateList:
        """See `AbstractBucket.rates`."""
        return self._rates

    @rates.setter
    def rates(self, rates: Sequence[Rate]) -> None:
        checked = sorted_rates(rates)
        with self._lock:
            self._rates = checked
            self._full = None

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

    def put(self, item: RateItem) -> bool:
        """See `AbstractBucket.put`."""
        check_item(item)
        with self._lock:
            now = self._observe(item.timestamp)
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
            if self.failing_rate is None:
                return 0
            full = self._full
            if full is not None and full[1] == item.weight:
                moment = full[0]
            else:
                moment = self._earliest(self._observe(item.timestamp), item.weight)[0]
        return -1 if moment == FOREVER else max(0, moment - item.timestamp)

    def claim(
        self, item: RateItem, patience_ms: int = 0, buffer_ms: int | None = None
    ) -> Decision:
        """See `AbstractBucket.claim`."""
        check_item(item)
        weight = item.weight
        with self._lock:
            now = self._observe(item.timestamp)
            moment, failing = self._earliest(now, weight) if weight else (now, None)
            if moment - now > patience_ms or self._is_estimate(moment, weight):
                self._refuse(weight, moment, failing)
                return self._outlook(now, self.failing_rate, moment)
            if moment > now:
                moment = self._behind_queue(moment, now + patience_ms, failing, buffer_ms)
                item.timestamp = moment + self._stepped
            self._append(item.name, weight, moment)
            self._latest = now
            self.failing_rate = None
            return self._outlook(now, None, moment)

    def settle(self, item: RateItem, now: int, patience_ms: int = 0) -> Decision:
        """See `AbstractBucket.settle`."""
        stamp, name, weight = item.timestamp - self._stepped, item.name, item.weight
        with self._lock:
            now = self._observe(now)
            own = self._before(stamp + 1)
            moment, failing = max(now, stamp), None
            for _ in range(_ROUNDS):
                # Judged as if the log ended at that moment: what is stored behind it comes after.
                fits, short = self._next_fit(moment, self._before(moment + 1), weight, own)
                if fits == moment:
                    break
                moment, failing = fits, short
            if moment == stamp:
                return ADMITTED
            if moment == FOREVER or moment - now > patience_ms:
                self._remove(stamp, name, weight)
                self._refuse(weight, moment, failing)
                return self._outlook(now, self.failing_rate, moment)
            if not self._move(stamp, name, weight, moment):
                return ADMITTED
            self._full = None
            item.timestamp = moment + self._stepped
            return self._outlook(now, None, max(now, moment))

    def release(self, item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        with self._lock:
            self._full = None
            return self._remove(item.timestamp - self._stepped, item.name, item.weight)

    def check(self, item: RateItem) -> Decision:
        """See `AbstractBucket.check`."""
        check_item(item)
        with self._lock:
            now = self._observe(item.timestamp)
            moment, failing = self._earliest(now, item.weight) if item.weight else (now, None)
            return self._outlook(now, failing, moment)

    def pause(self, item: RateItem, decision: Decision) -> float:
        """See `AbstractBucket.pause`."""
        exact = self._clock.seconds_until(item.timestamp - self._stepped)
        return decision.wait_ms / 1000 if exact is None else max(0.0, exact)

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
            self._latest = BEGINNING
            self._full = None
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

    def retire(self, now: int) -> bool:
        """Refuse all use from now on, unless a unit is still live at ``now`` or yet to come."""
        with self._lock:
            if self._total > self._base and self._newest >= self._algorithm.leak_bound(
                self._rates, now
            ):
                return False
            self._newest = FOREVER
            return True

    # Everything below is called with the lock held.

    def _put_now(self, name: str, weight: int, now: int) -> bool:
        full = self._full
        if full is not None and now < full[0] and weight >= full[1]:
            self.failing_rate = full[2]
            return False
        if self._newest > now or self._algorithm.__class__ is not SlidingWindowLog:
            return self._put_slowly(name, weight, now)
        newest_then, base = self._total + weight, self._base
        for limit, interval, _ in self._rates.bounds:
            place = newest_then - limit
            # The unit at this place has to leave first; if it was dropped, it has left.
            if place > base and (weight > limit or self._stamp(place) + interval >= now):
                return self._put_slowly(name, weight, now)
        # This is `_append`, spelled out: it is the path of nearly every call.
        if now != self._newest:
            if self._total > base:
                self._seal()
                if len(self._stamps) >= self._sweep_at:
                    self._sweep(now - self._rates.longest_ms)
            self._newest = now
        if name is not self._name and name != self._name:
            self._seal_name()
            self._name = name
        self._latest = now
        self._total = newest_then
        self.failing_rate = None
        return True

    def _put_slowly(self, name: str, weight: int, now: int) -> bool:
        moment, failing = self._earliest(now, weight)
        if failing is not None:
            self._refuse(weight, moment, failing)
            return False
        self._append(name, weight, now)
        self._latest = now
        self.failing_rate = None
        return True

    def _earliest(self, now: int, weight: int) -> tuple[int, Rate | None]:
        """The first moment from ``now`` on at which the weight fits, behind all that is stored.

        Returns:
            The moment, `FOREVER` if there is none; and the first rate that is in the way, None if
            the moment is now.
        """
        for rate in self._rates:
            if weight > self._algorithm.max_weight(rate):
                return FOREVER, rate
        queue = self._newest if self._total > self._base else now
        moment, failing = self._next_fit(max(now, queue), self._total + weight, weight)
        if queue > now and failing is None:
            failing = self._rates[0]
        return moment, failing

    def _next_fit(
        self, moment: int, upto: int, weight: int, own: int | None = None
    ) -> tuple[int, Rate | None]:
        """The first moment from ``moment`` on that suits every rate.

        Args:
            moment: ms on the bucket's clock.
            upto: the number that the item's last unit has, or would have.
            weight: the item's units, which do not count.
            own: the last of the item's units where they are stored already, earlier in the log.
        """
        if self._algorithm.__class__ is not SlidingWindowLog:
            return self._next_fit_by_policy(moment, upto, weight, own)
        fits, failing = moment, None
        for limit, interval, rate in self._rates.bounds:
            place = upto - limit
            if own is not None and place > own - weight:
                place += weight
            if place > self._base:
                leaves = self._stamp(place) + interval + 1
                if leaves > moment:
                    failing = failing or rate
                    fits = max(fits, leaves)
        return fits, failing

    def _next_fit_by_policy(
        self, moment: int, upto: int, weight: int, own: int | None
    ) -> tuple[int, Rate | None]:
        """`_next_fit` for any policy: ask it, and ask again at the moment that it names."""
        policy, rates = self._algorithm, self._rates
        own_stamp = FOREVER if own is None else self._stamp(own)

        def peek_timestamp(offset: int) -> int | None:
            place = upto - weight - offset
            if own is not None and place > own - weight:
                place += weight
            return self._stamp(place) if self._base < place <= self._total else None

        first = None
        for _ in range(_ROUNDS):
            starts = [policy.window_start(rate, moment) for rate in rates]
            counts = [
                max(0, upto - weight - self._before(start) + (weight if own_stamp < start else 0))
                for start in starts
            ]
            decision = policy.decide(rates, counts, weight, moment, peek_timestamp)
            if decision.failing_rate is None:
                break
            first = first or decision.failing_rate
            if decision.retry_after_ms is None:
                return FOREVER, first
            moment += max(1, decision.retry_after_ms)
        return moment, first

    def _behind_queue(
        self, moment: int, deadline: int, failing: Rate | None, buffer_ms: int | None
    ) -> int:
        """Where a claim goes: one pad after the earliest moment, or beside the last claim."""
        if moment <= self._newest:
            return moment
        if buffer_ms is None:
            buffer_ms = pad_ms((failing or self._rates[0]).interval)
        return max(moment, min(moment + buffer_ms, deadline))

    def _is_estimate(self, moment: int, weight: int) -> bool:
        """Whether a user's policy would refuse at the very moment that it has named."""
        if self._algorithm.__class__ is SlidingWindowLog or moment == FOREVER:
            return False
        return self._next_fit(moment, self._total + weight, weight)[0] != moment

    def _refuse(self, weight: int, moment: int, failing: Rate | None) -> None:
        failing = failing or self._rates[0]
        self.failing_rate = failing
        self._full = (moment, weight, failing)

    def _outlook(self, now: int, failing: Rate | None, moment: int) -> Decision:
        """The verdict, and what else there is to know at ``now``."""
        policy, rates = self._algorithm, self._rates
        live = [
            self._total - self._before(policy.window_start(rate, now)) if self._total > self._base else 0
            for rate in rates
        ]
        remaining = min(max(0, rate.limit - count) for rate, count in zip(rates, live))
        reset = 0
        if any(live):
            last = max(now, self._newest)
            reset = max(
                last - now + policy.retry_after(rate, last, self._newest) for rate in rates
            )
        if failing is None:
            return Decision(None, None, moment - now, remaining, reset)
        retry = None if moment == FOREVER else moment - now
        return Decision(failing, retry, 0, remaining, reset)

    def _observe(self, stamp: int) -> int:
        """The time that an item stamped ``stamp`` is judged at.

        Two callers race and the older stamp arrives second: it is judged as the newest. A clock
        that has stepped back takes the log with it, so that nobody is refused until it catches up.
        """
        if self._newest == FOREVER:
            raise BucketRetired
        behind = self._latest - stamp
        if behind <= 0:
            return stamp
        if behind <= self._rates.shortest_ms or self._is_late(behind):
            return self._latest
        self._step_back(behind)
        return stamp

    def _is_late(self, behind: int) -> bool:
        """Whether the stamp is old rather than the clock behind: the clock itself can tell."""
        now = self._clock.now()
        if now.__class__ is not int:
            discard(now)
            return False
        return 0 <= now - self._latest < _SAME_CLOCK_MS  # type: ignore[operator] # it is an int

    def _step_back(self, milliseconds: int) -> None:
        self._shift(milliseconds)
        self._latest -= milliseconds
        self._stepped += milliseconds
        self._full = None

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
