"""A log and the rates over it: what it stores, when it drops it, and what it knows of the time."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING

from pyrate_limiter._core.clocks import MonotonicClock
from pyrate_limiter._core.timeline import NO_STAMP, Timeline
from pyrate_limiter._core.validation import BEGINNING, FOREVER
from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.log.moments import LogMoments
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem

ABANDONED_MS = 60_000
"""So long after its moment a reservation counts as used that nobody has confirmed."""


def reset_after_ms(algorithm: LogAlgorithm, rates: Sequence[Rate], newest: int, now: int) -> int:
    """How many ms after ``now`` a log is as good as new whose newest unit has that timestamp."""
    last = max(now, newest)
    return last - now + max(algorithm.retry_after(rate, last, newest) or 0 for rate in rates)


STOCK = SlidingWindowLog()
CLOCK = MonotonicClock()


class Handle:
    """That of a reservation for a moment to come: whether its units have been used."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used: bool = False


class LogRules(LogMoments, Timeline):
    """A log that stores what fits, and remembers what it refused. Its user holds the lock.

    What is stored after its time is a reservation still to come.
    """

    if not TYPE_CHECKING:
        __slots__ = ()

    _own_clock: AbstractClock
    failing_rate: Rate | None
    # Of the last refusal: until when anything as heavy is refused by the same rate, for new units
    # can only make that later; the weight; the rate; and the earliest moment, which held while the
    # log had so many units.
    _full: tuple[int, int, Rate, int, int] | None
    # By how much the clock has stepped back so far: reservations carry their moment plus this.
    _stepped: int = 0

    def __init__(
        self, rates: RateList, algorithm: LogAlgorithm = STOCK, clock: AbstractClock = CLOCK
    ) -> None:
        self._rates = rates
        self._algorithm = algorithm
        self._own_clock = clock
        self.failing_rate = None
        self._clear()

    @property
    def _clock(self) -> AbstractClock:
        """The clock; programs assign another one."""
        return self._own_clock

    @_clock.setter
    def _clock(self, clock: AbstractClock) -> None:
        self._own_clock = clock

    def _clear(self) -> None:
        self._empty()
        self._pending = self._full = None
        self._latest, self._trusted = BEGINNING, NO_STAMP
        if self._ahead:
            self._ahead = 0
        if self._crammed is not None:
            self._crammed = None
        if self._hold is not None:
            self._hold = None

    def _trust(self, until: int) -> None:
        # Many keys never have a second unit, which could be spared a look at the clock.
        if self._total > self._base or until < self._trusted:
            self._trusted = until

    def _changed(self) -> None:
        """Something was taken out or moved: what is known of refusals holds no more."""
        self._full = None
        if self._crammed is not None:
            self._crammed = None

    def _note_reservations(self) -> None:
        """Some are to come: here nothing, for they count in whichever process they were made."""

    def _rates_changed(self) -> None:
        """They are others from now on."""
        self._changed()

    def _keep_hold(self, hold: tuple[int, int] | None) -> None:
        super()._keep_hold(hold)
        self._changed()

    def _whole(self) -> AbstractContextManager[None]:
        """Around a change that takes several steps: here nothing, for the lock undoes it."""
        return nullcontext()

    def _put_now(self, name: str, weight: int, now: int) -> bool:
        """Store what fits at ``now``, which was observed; else say no."""
        return self._put_slowly(name, weight, now)

    def _put_slowly(self, name: str, weight: int, now: int) -> bool:
        total, now = self._total, max(now, self._latest)
        if self._hold is not None:
            self._look_at(self._hold, now)
        moment, failing = self._earliest(now, weight)
        if self._total != total:  # a signal handler was here
            return self._put_slowly(name, weight, now)
        if failing is not None:
            self._refuse(weight, moment, failing, now)
            return False
        with self._whole():
            self._store(name, weight, now, now)
        return True

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        """Store units for ``moment``, and drop the expired ones when there are many."""
        if moment < self._newest and self._total > self._base:
            self._add(name, weight, moment)
        else:
            self._append(name, weight, moment)
        self._latest = now
        self.failing_rate = None
        if self._has_grown():
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        """Drop expired units."""
        self._trim(self._leak_bound(now))
        if self._crammed is not None:  # it tells units by their numbers
            self._crammed = None

    def _leak_bound(self, now: int) -> int:
        """The oldest timestamp that still matters."""
        if self._algorithm.__class__ is SlidingWindowLog:
            return now - self._rates.longest_ms
        return self._algorithm.leak_bound(self._rates, now)

    def _awaited(self, moment: int) -> int:
        """How many units are reserved for a moment whose waiters have not gone yet."""
        return (self._pending or {}).get(moment, 0)

    def _expect(self, moment: int, units: int, now: int) -> None:
        """Note that units are reserved for ``moment``; negative, that their waiter has gone."""
        pending = self._pending
        if pending is None:
            pending = self._pending = {}
        left = pending.get(moment, 0) + units
        if left <= 0:
            pending.pop(moment, None)
        elif moment in pending or not pending or moment > next(reversed(pending)):
            pending[moment] = left
        else:
            self._pending = pending = dict(sorted([*pending.items(), (moment, left)]))
        for stamp in list(islice(pending, 1)):  # what nobody confirmed must not stay for ever
            if stamp + self._rates.longest_ms + ABANDONED_MS < now:
                del pending[stamp]

    def _refuse(self, weight: int, moment: int, failing: Rate | None, now: int) -> None:
        rates = self._rates
        failing = failing or rates[0]
        self.failing_rate = failing
        until = moment
        if len(rates) > 1 and moment != FOREVER:
            # Another rate may refuse later on, or something heavier, unless this is the first one.
            until = BEGINNING
            place = self._total + weight - failing.limit
            exact = self._algorithm.__class__ is SlidingWindowLog and self._newest <= now
            if exact and failing is rates[0] and place > self._base:
                until = self._stamp(place) + failing.interval + 1
        self._full = (until, weight, failing, moment, self._total)

    def _verdict(
        self,
        now: int,
        failing: Rate | None,
        moment: int,
        stored: RateItem | None = None,
        handle: Handle | None = None,
    ) -> Decision:
        """The verdict, and what else there is to know at ``now``, where ``stored`` is by then."""
        policy, rates = self._algorithm, self._rates
        live = [self._total - self._before(policy.window_start(rate, now)) for rate in rates]
        remaining = min(max(0, rate.limit - count) for rate, count in zip(rates, live))
        reset = 0
        if any(live):
            reset = reset_after_ms(policy, rates, self._newest, now)
        held = self._held(now) - now
        if held:
            remaining, reset = 0, max(reset, held)
        if stored is not None:
            return Reservation(stored, moment - now, handle, remaining, reset)
        if failing is None:
            return Decision(None, None, moment - now, remaining, reset)
        retry = None if moment == FOREVER else moment - now
        return Decision(failing, retry, 0, remaining, reset)

    def _observe(self, stamp: int, *, asks: bool = False) -> int:
        """The time by which an item stamped ``stamp`` is judged; ``asks``: nothing is stored."""
        if self._newest == FOREVER:
            raise BucketRetired
        now = self._judged(stamp, self._clock, self._rates, asks=asks)
        if self._hold is not None:
            self._look_at(self._hold, now)
        return now

    def _step_back(self, milliseconds: int, now: int) -> None:
        """Take what is ahead of its clock back with it, unless items are stamped by another one."""
        if self._ahead:
            super()._step_back(milliseconds, now)
            return
        floor, place = BEGINNING, self._before(now + 1)
        if self._base < place < self._total:
            # It was ahead since then: as much later it may be now as it was stored later.
            floor = self._stamp(place)
            milliseconds = max(milliseconds, self._stamp(place + 1) - floor)
        with self._whole():
            self._latest = now
            self._trust(NO_STAMP)
            self._move_back(milliseconds, now, floor)

    def _move_back(self, milliseconds: int, now: int, floor: int) -> None:
        """Give all that is ahead of ``now`` an earlier time, ``floor`` at the most."""
        self._shift(milliseconds, now, floor)
        self._stepped += milliseconds
        self._changed()
        pending, self._pending = self._pending, None
        for at, units in (pending or {}).items():
            moved = max(floor, at - milliseconds) if at > now else at
            LogRules._expect(self, moved, units, now)  # it is one record, where there are records
