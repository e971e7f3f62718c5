"""The log in this process's memory."""

from __future__ import annotations

from contextlib import nullcontext
from copy import copy
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard, then
from pyrate_limiter._core.clocks import AbstractClock, MonotonicClock, WallClock
from pyrate_limiter._core.closing import Closable, StoppedClock
from pyrate_limiter._core.fork_safe_locks import Whole, shared_lock
from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter._core.timeline import NO_STAMP
from pyrate_limiter._core.validation import FOREVER, Unread, check_item
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter.abstracts.algorithm import (
    ADMITTED,
    Decision,
    LogAlgorithm,
    SlidingWindowLog,
)
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.log.moments import LogMoments
from pyrate_limiter.buckets.log.rules import ROUNDS, JudgedLog, Pending
from pyrate_limiter.buckets.log.run_length import UnitLog
from pyrate_limiter.buckets.log.units_view import UnitsView
from pyrate_limiter.buckets.memory.after_fork import note_claims
from pyrate_limiter.buckets.state.reservations import reserve_in_line
from pyrate_limiter.errors import AlgorithmMismatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter.abstracts.reservation import Reservation

_CLOCK = MonotonicClock()
_QUICK = {MonotonicClock, WallClock, StoppedClock}
_OWN = ("_stamps", "_ends", "_names", "_name_ends", "_pending")  # what a copy must not share
_STOCK = SlidingWindowLog()
_STORED = (*UnitLog.__slots__, *LogMoments.__slots__, *JudgedLog.__slots__)
_stored = attrgetter(*_STORED)


class InMemoryBucket(JudgedLog, Closable, AbstractBucket):
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

    __module__ = "pyrate_limiter.buckets.in_memory_bucket"

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_lock",
    )

    is_async: bool | None = False
    puts_at_once = True
    failing_rate: Rate | None

    def __init__(self, rates: Rate | Sequence[Rate], algorithm: LogAlgorithm | None = None) -> None:
        if algorithm is None:
            algorithm = _STOCK
        elif not isinstance(algorithm, LogAlgorithm):
            raise AlgorithmMismatch(algorithm, type(self).__name__, "a LogAlgorithm")
        super().__init__(sorted_rates(rates), algorithm, _CLOCK)
        self._lock: Any = shared_lock()

    @classmethod
    def member(cls, rates: RateList, lock: object) -> InMemoryBucket:
        """A bucket with the stock policy whose lock belongs to the factory that keeps it."""
        bucket = cls.__new__(cls)
        JudgedLog.__init__(bucket, rates, _STOCK, _CLOCK)
        bucket._lock = lock
        return bucket

    def _whole(self) -> AbstractContextManager[None]:
        """Around a change that takes several steps. Its user holds the lock."""
        pending = self._pending
        return Whole(self, (_stored(self), pending if pending is None else pending.copy()))

    def _restore(self, before: tuple[tuple[object, ...], dict[int, int] | None]) -> None:
        stored, pending = before
        for name, value in zip(_STORED, stored):
            setattr(self, name, value)
        self._pending = pending

    @property
    def rates(self) -> RateList:
        return self._rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        checked = sorted_rates(rates)
        with getattr(self, "_lock", None) or nullcontext():  # it may come before `__init__`
            self._rates = checked
            self._rates_changed()

    if TYPE_CHECKING:  # as the clock is; a program that sets an async one awaits it

        def now(self) -> int:
            """See `AbstractBucket.now`."""

    @property
    def _clock(self) -> AbstractClock:
        """See `AbstractBucket`. It is read under the lock."""
        return self._own_clock

    @_clock.setter
    def _clock(self, clock: AbstractClock) -> None:
        if self.__class__ is InMemoryBucket and clock.__class__ not in _QUICK:
            with self._lock:  # which others may share, see `member`
                self._lock = shared_lock()  # a user's clock may be slow, or use other buckets
        self._own_clock = clock

    @property
    def items(self) -> UnitsView:
        """The stored units as a sequence of `RateItem`, oldest first."""
        return UnitsView(self, self._lock)

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; None where a subclass or policy differs."""
        changed = any(
            getattr(type(self), name) is not getattr(InMemoryBucket, name)
            for name in ("put", "put_decision", "waiting", "reserve", "now", "limiter_lock")
        )
        return None if changed or type(self._algorithm) is not SlidingWindowLog else self.take

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that cannot be said at once: somebody waits, the clock has to be awaited, or
            a keyed factory has dropped the bucket.
        """
        if waited_for and id(self) in waited_for:
            return None
        with self._lock:
            now = self._own_clock.now()
            if now.__class__ is not int:
                discard(now)
                return None
            if now < self._newest:
                if self._newest == FOREVER:
                    return None
                now = self._judged_now(now, self._rates)
            return self._put_now(name, weight, now)

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
            if self.put(item):
                return ADMITTED
            wait = self.waiting(item)
            return Decision(self.failing_rate, None if wait < 0 else wait)

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
                if type(self).peek is type(self)._stock_peek:
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
            return self._outlook(now, None, now)
        handle = None
        start = now if not_before is None else max(now, not_before - self._stepped)
        moment, failing = self._earliest(start, weight)
        if moment - now > max_wait_ms or self._is_estimate(moment, weight):
            self._refuse(weight, moment, failing, now)
            if start > now:
                self._full = None  # somebody else may fit earlier
            return self._outlook(now, self.failing_rate, moment)
        if moment > now:
            moment = self._padded(moment, weight, now + max_wait_ms, failing, buffer_ms)
            self._expect(moment, weight, now)
            self._note_claims()
            self._full = None
            handle = Pending()
        item.timestamp = moment + self._stepped
        self._store(item.name, weight, moment, now)
        return self._outlook(now, None, moment, item, handle)

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
                self._full = None  # newcomers also wait for claims behind this one
                return self._outlook(now, self.failing_rate, moment)
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
            return self._outlook(now, failing, moment)

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

    _stock_peek = peek  # a subclass with another one has its wait from that

    @property
    def retired(self) -> bool:
        """Whether it refuses all use; see `retire`."""
        return self._newest == FOREVER

    def retire(self, now: int) -> bool:
        """Refuse all use from now on, unless a unit is still live or yet to come.

        ``now`` is what the bucket's clock says.
        """
        with self._lock:
            if id(self) in waited_for:
                return False
            if self._newest == FOREVER:
                return True
            if now < self._latest or self._ahead:
                now = self._judged(Unread(now), self._clock, self._rates)
            if self._hold is not None:
                self._look_at(self._hold, now)
            if self._hold is not None:
                return False
            total, bound = self._total, self._leak_bound(now)
            if self._total != total or (total > self._base and self._newest >= bound):
                return False
            self._newest = FOREVER
            self._trust(NO_STAMP)
            return True

    def close(self) -> None:
        """See `AbstractBucket.close`. What it holds can still be looked at."""
        self._clock = StoppedClock()
        super().close()

    def _note_claims(self) -> None:
        note_claims(self)

    def forget_claims(self) -> None:
        """Take out what is claimed and not used yet: of a copy, for whom nobody waits."""
        with self._lock, self._whole():
            pending, self._pending = self._pending, None
            if pending:
                self._changed()
                self._take_out_newest(pending)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            slots = (name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ()))
            skipped = ("__dict__", "__weakref__", "_lock")
            state = {name: getattr(self, name) for name in slots if name not in skipped}
            own = {name: copy(state[name]) for name in _OWN}
            return {**state, **own, **self.__dict__}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._lock = shared_lock()
        for name, value in state.items():
            setattr(self, name, value)
        self.forget_claims()
