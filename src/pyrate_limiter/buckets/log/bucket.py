"""What a bucket over a log does, wherever its units are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.in_line import reserve_in_line
from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter._core.timeline import ROUNDS
from pyrate_limiter._core.validation import FOREVER, Unread, check_item
from pyrate_limiter._core.waited_for import is_unchanged
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, LogAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.log.rules import CLOCK, STOCK, Handle, LogRules
from pyrate_limiter.errors import AlgorithmMismatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.abstracts.reservation import Reservation


class LogBucket(LogRules, AbstractBucket):
    """The methods of a bucket over a log. A backend adds its `LogStorage` and its lock."""

    if not TYPE_CHECKING:
        __slots__ = ()

    is_async: bool | None = False
    failing_rate: Rate | None

    if TYPE_CHECKING:

        @property
        def _lock(self) -> AbstractContextManager[object]:
            """What is held around each operation."""

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        algorithm: LogAlgorithm | None = None,
        clock: AbstractClock = CLOCK,
    ) -> None:
        super().__init__(*self._checked(rates, algorithm), clock)

    @classmethod
    def _checked(
        cls, rates: Rate | Sequence[Rate], algorithm: LogAlgorithm | None
    ) -> tuple[RateList, LogAlgorithm]:
        if algorithm is None:
            algorithm = STOCK
        elif not isinstance(algorithm, LogAlgorithm):
            raise AlgorithmMismatch(algorithm, cls.__name__, "a LogAlgorithm")
        return sorted_rates(rates), algorithm

    @property
    def rates(self) -> RateList:
        return self._rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        self._set_rates(sorted_rates(rates))

    def _set_rates(self, rates: RateList) -> None:
        self._rates = rates
        self._rates_changed()

    if TYPE_CHECKING:  # as the clock is; a program that sets an async one awaits it

        def now(self) -> int:
            """See `AbstractBucket.now`."""

        def take(self, name: str, weight: int) -> bool | None:
            """`put` an item of this moment, without making the item; None: it takes longer."""

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; None where a subclass differs."""
        return self.take if is_unchanged(type(self), self._backend()) else None

    @classmethod
    def _backend(cls) -> type:
        """The class of the backend, which has `take`; programs may have one under it."""
        return next(base for base in cls.__mro__ if "take" in vars(base))

    def stamp(self) -> int | Awaitable[int]:
        return then(self.now(), Unread) if type(self).now is AbstractBucket.now else self.now()

    def put(self, item: RateItem) -> bool:
        now, weight = item.timestamp, item.weight
        with self._lock:
            # Most stamps are in order: nothing has to be looked at but that.
            if (
                now.__class__ is int
                and self._latest <= now <= self._trusted
                and weight.__class__ is int
                and weight > 0
            ):
                return self._put_now(item.name, weight, now)
            check_item(item)
            now = self._observe(item.timestamp)
            if item.weight == 0:
                self.failing_rate = None
                return True
            return self._put_now(item.name, item.weight, now)

    def put_decision(self, item: RateItem) -> Decision:
        with self._lock:
            return ADMITTED if self.put(item) else self._denied(self.waiting(item))

    def waiting(self, item: RateItem) -> int:
        moment: int | None = None
        with self._lock:
            if self.failing_rate is None or item.weight == 0:
                return 0
            full = self._full
            if full is not None and full[1] == item.weight and full[4] == self._total:
                moment = full[3]
            else:
                check_item(item)
                # Another `peek` says what the wait is.
                if is_unchanged(type(self), self._backend(), ("peek",)):
                    now = self._observe(item.timestamp, asks=True)
                    moment = self._earliest(now, item.weight)[0]
                largest = min(map(self._algorithm.max_weight, self._rates))
                if moment == FOREVER and item.weight <= largest:
                    moment = None  # its policy named none
        if moment is None:
            held = self._held(item.timestamp) - item.timestamp
            return then(super().waiting(item), lambda wait: wait if wait < 0 else max(wait, held))  # type: ignore[return-value] # as `peek` is
        return -1 if moment == FOREVER else max(0, moment - item.timestamp)

    def reserve(
        self, item: RateItem, max_wait_ms: int = 0, buffer_ms: int | None = None
    ) -> Decision:
        check_item(item)
        with self._lock, self._whole():
            return self._reserve(item, max_wait_ms, buffer_ms)

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        del limit_ms
        for item in items:
            check_item(item)
        with self._lock, self._whole():
            return reserve_in_line(
                items, not_before, lambda item, at: self._reserve(item, max_wait_ms, buffer_ms, at)
            )

    def _reserve(
        self, item: RateItem, max_wait_ms: int, buffer_ms: int | None, not_before: int | None = None
    ) -> Decision:
        weight = item.weight
        now = self._observe(item.timestamp)
        if weight == 0:
            self.failing_rate = None
            return self._verdict(now, None, now)
        handle = None
        start = now if not_before is None else max(now, not_before - self._stepped)
        moment, failing = self._earliest(start, weight)
        if moment - now > max_wait_ms or self._is_estimate(moment, weight):
            self._refuse(weight, moment, failing, now)
            if start > now:
                self._full = None  # somebody else may fit earlier
            return self._verdict(now, self.failing_rate, moment)
        if moment > now:
            moment = self._padded(moment, weight, now + max_wait_ms, failing, buffer_ms)
            self._expect(moment, weight, now)
            self._note_reservations()
            self._full = None
            handle = Handle()
        item.timestamp = moment + self._stepped
        self._store(item.name, weight, moment, now)
        return self._verdict(now, None, moment, item, handle)

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        item, handle = reservation.item, reservation.handle
        name, weight = item.name, item.weight
        with self._lock, self._whole():
            now = self._latest = self._observe(now)
            stamp = item.timestamp - self._stepped
            if handle is None or handle.used:  # by somebody who was not told of it
                return reservation.with_wait()
            own = self._before(stamp + 1)
            if self._awaited(stamp) < weight or own == self._base or self._stamp(own) != stamp:
                # Flushed, or so late that it has expired and was dropped.
                self._expect(stamp, -weight, now)
                item.timestamp = now
                return self._reserve(item, max_wait_ms, 0)
            moment, failing = self._held(max(now, stamp)), None
            for _ in range(ROUNDS):
                fits, short = self._next_departure(moment, weight)
                if fits == moment:
                    break
                moment, failing = fits, short
            self._expect(stamp, -weight, now)
            handle.used = True
            if moment == stamp:
                return reservation.with_wait()
            self._changed()
            if moment == FOREVER or moment - now > max_wait_ms:
                self._remove(stamp, name, weight)
                self._refuse(weight, moment, failing, now)
                self._full = None  # newcomers also wait for reservations behind this one
                return self._verdict(now, self.failing_rate, moment)
            moved = self._move(stamp, name, weight, moment)
            if moved:
                item.timestamp = moment + self._stepped
            if not moved or moment <= now:
                return reservation.with_wait()
            self._expect(moment, weight, now)
            handle.used = False
            return reservation.with_wait(moment - now)

    def cancel(self, reservation: Reservation) -> bool:
        item, handle = reservation.item, reservation.handle
        with self._lock, self._whole():
            stamp = item.timestamp - self._stepped
            if not self._remove(stamp, item.name, item.weight):
                return False
            self._changed()
            if handle is not None and not handle.used:
                self._expect(stamp, -item.weight, stamp)
            return True

    def hold(self, item: RateItem, hold_ms: int) -> int:
        check_item(item)
        with self._lock:
            now = self._latest = self._observe(item.timestamp)
            return self._hold_for(now, hold_ms)

    def release_hold(self, item: RateItem) -> bool:
        check_item(item)
        with self._lock:
            return self._end_hold(self._observe(item.timestamp, asks=True))

    def check(self, item: RateItem) -> Decision:
        check_item(item)
        with self._lock:
            now = self._observe(item.timestamp, asks=True)
            moment, failing = self._earliest(now, item.weight) if item.weight else (now, None)
            return self._verdict(now, failing, moment)

    def pause(self, reservation: Reservation) -> float:
        moment = reservation.item.timestamp
        if reservation.handle is not None:  # else it is no moment of this log
            moment -= self._stepped + self._ahead
        return self._clock.pause(moment, reservation.wait_ms)

    def leak(self, current_timestamp: int | None = None) -> int:
        if current_timestamp is None:
            now = self.now()
            return then(now, lambda now: self._leak_at(Unread(now)))  # type: ignore[return-value] # as the clock is
        return self._leak_at(current_timestamp)

    def _leak_at(self, now: int) -> int:
        with self._lock:
            if now.__class__ is Unread:
                now = self._judged(now, self._clock, self._rates)
            self._changed()
            return self._drop_before(self._leak_bound(now))

    def flush(self) -> None:
        with self._lock, self._whole():
            self._clear()
            self.failing_rate = None

    def count(self) -> int:
        return self._total - self._base

    def peek(self, index: int) -> RateItem | None:
        with self._lock:
            number = self._total - index
            if index < 0 or number <= self._base:
                return None
            return RateItem(self._name_of(number), self._stamp(number))
