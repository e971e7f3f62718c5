"""The log in this process's memory."""

from __future__ import annotations

from copy import copy
from operator import attrgetter
from typing import TYPE_CHECKING

from pyrate_limiter._core.after_fork import note_reservations
from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.clocks import AbstractClock, MonotonicClock, WallClock
from pyrate_limiter._core.closing import StoppedClock
from pyrate_limiter._core.fork_safe_locks import Whole, shared_lock
from pyrate_limiter._core.timeline import NO_STAMP
from pyrate_limiter._core.validation import FOREVER, Unread
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter.abstracts.algorithm import SlidingWindowLog
from pyrate_limiter.buckets.log.array_log import ArrayLog
from pyrate_limiter.buckets.log.rules import LogRules
from pyrate_limiter.buckets.log.run_length import UnitLog
from pyrate_limiter.buckets.log.units_view import UnitsView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate

_QUICK = {MonotonicClock, WallClock, StoppedClock}
_OWN = ("_stamps", "_ends", "_names", "_name_ends", "_pending")  # what a copy must not share
_STORED = (*UnitLog.__slots__, "_full", "_latest", "_trusted", "failing_rate")
_stored = attrgetter(*_STORED)


class InMemoryBucket(ArrayLog):
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

    if not TYPE_CHECKING:
        __slots__ = ()

    puts_at_once = True

    def __init__(self, rates: Rate | Sequence[Rate], algorithm: LogAlgorithm | None = None) -> None:
        super().__init__(rates, algorithm)
        self._lock = shared_lock()

    @classmethod
    def member(cls, rates: RateList, lock: AbstractContextManager[object]) -> InMemoryBucket:
        """A bucket with the stock policy whose lock belongs to the factory that keeps it."""
        bucket = cls.__new__(cls)
        LogRules.__init__(bucket, rates)
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
        """See `LogBucket.straight`; there is none for a policy of a user."""
        return super().straight() if type(self._algorithm) is SlidingWindowLog else None

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

    def _note_reservations(self) -> None:
        note_reservations(self)

    def forget_reservations(self) -> None:
        """Take out what is reserved and not used yet: of a copy, for which nobody waits."""
        with self._lock, self._whole():
            pending, self._pending = self._pending, None
            if pending:
                self._changed()
                self._take_out_newest(pending)

    def __getstate__(self) -> dict[str, object]:
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
        self.forget_reservations()
