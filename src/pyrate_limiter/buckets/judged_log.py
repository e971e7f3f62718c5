"""A log and the rates over it: it decides when a weight fits."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog
from pyrate_limiter.abstracts.awaiting import discard
from pyrate_limiter.abstracts.checks import BEGINNING, FOREVER, Unread, pad_ms
from pyrate_limiter.buckets.unit_log import SLACK, UnitLog
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.clocks import AbstractClock
    from pyrate_limiter.utils import RateList

ROUNDS = 64  # how often a policy may name a moment and then refuse it
_ABANDONED_MS = 60_000  # a claim this much overdue counts as used
_SAME_CLOCK_MS = 60_000  # stamps this close to the clock's reading were read off it


class JudgedLog(UnitLog):
    """A `UnitLog` that answers when a weight fits. Its user holds the lock.

    With `SlidingWindowLog` it looks at one unit per rate. Any other policy, a user's own subclass
    too, is asked through the methods that `LogAlgorithm` has for it.
    """

    __slots__ = (
        "_algorithm",
        "_clock",
        "_full",
        "_latest",
        "_pending",
        "_rates",
        "_stepped",
        "failing_rate",
    )

    _algorithm: Any
    _clock: AbstractClock
    _rates: RateList
    failing_rate: Rate | None
    # Of the last refusal: until when anything as heavy is refused by the same rate, for new units
    # can only make that later; the weight; the rate; and the earliest moment, which held while the
    # log had so many units.
    _full: tuple[int, int, Rate, int, int] | None
    # The largest clock reading so far. What is stored after it is a claim still to come.
    _latest: int
    # Units by moment that are claimed, and whose waiters have not gone yet; in order.
    _pending: dict[int, int] | None
    # By how much the clock has stepped back so far: claims carry their moment plus this.
    _stepped: int

    def __init__(self, rates: RateList, algorithm: LogAlgorithm, clock: AbstractClock) -> None:
        self._rates = rates
        self._algorithm = algorithm
        self._clock = clock
        self.failing_rate = None
        self._stepped = 0
        self._clear()

    def _clear(self) -> None:
        super()._clear()
        self._full = None
        self._pending = None
        self._latest = BEGINNING

    def _whole(self) -> AbstractContextManager[None]:
        """Around a change that takes several steps."""
        raise NotImplementedError

    def _put_now(self, name: str, weight: int, now: int) -> bool:  # noqa: C901 - a call costs more
        full = self._full
        if full is not None and now < full[0] and weight >= full[1]:
            self.failing_rate = full[2]
            return False
        if self._newest > now or self._algorithm.__class__ is not SlidingWindowLog:
            return self._put_slowly(name, weight, now)
        total, base = self._total, self._base
        newest_then = total + weight
        for limit, interval, _ in self._rates.bounds:
            place = newest_then - limit
            # The unit at this place has to leave first; if it was dropped, it has left.
            if place > base and (weight > limit or self._stamp(place) + interval >= now):
                return self._put_slowly(name, weight, now)
        # This is `_store`, spelled out: it is the path of nearly every call.
        if name is not self._name and name != self._name:
            self._seal_name()
            if self._total == total:
                self._name = name
        if now != self._newest:
            if total > base:
                self._seal()
                if len(self._stamps) >= self._sweep_at:
                    self._sweep(now)
            if self._total == total:
                self._newest = now
        if self._total != total:  # a signal handler was here; from now on nothing is called
            return JudgedLog._put_now(self, name, weight, max(now, self._latest))
        self._latest = now
        self._total = newest_then
        self.failing_rate = None
        return True

    def _put_slowly(self, name: str, weight: int, now: int) -> bool:
        total, now = self._total, max(now, self._latest)
        moment, failing = self._earliest(now, weight)
        if self._total != total:  # a signal handler was here
            return self._put_slowly(name, weight, now)
        if failing is not None:
            self._refuse(weight, moment, failing)
            return False
        with self._whole():
            self._store(name, weight, now, now)
        return True

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        """Append units for ``moment``, and drop the expired ones when there are many."""
        self._append(name, weight, moment)
        self._latest = now
        self.failing_rate = None
        if len(self._stamps) >= self._sweep_at:
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        """Drop what is expired; the next time is when the log has doubled."""
        self._drop_before(self._algorithm.leak_bound(self._rates, now))
        self._sweep_at = max(SLACK, 2 * len(self._stamps))

    def _earliest(self, now: int, weight: int) -> tuple[int, Rate | None]:
        """The first moment from ``now`` on at which the weight fits, behind all that is stored.

        Returns:
            The moment, `FOREVER` if there is none; and the first rate that is in the way, None if
            the moment is now.
        """
        if self._algorithm.__class__ is SlidingWindowLog:  # `decide` asks any other policy itself
            for rate in self._rates:
                if weight > rate.limit:
                    return FOREVER, rate
        queue = self._newest if self._total > self._base else now
        moment, failing = self._next_fit(max(now, queue), self._total + weight, weight)
        if queue > now and failing is None:
            failing = self._rates[0]
        return moment, failing

    def _next_departure(self, moment: int, weight: int) -> tuple[int, Rate | None]:
        """When a waiter may go who wants to at ``moment``, and what is in the way.

        Judged by those who have gone by then. Who is still to wake will be judged after it.
        """
        pending = []
        for stamp, units in (self._pending or {}).items():
            if stamp > moment:
                break
            pending.append((stamp, units))
        gone = self._before(moment + 1) - sum(units for _, units in pending)
        return self._next_fit(moment, gone + weight, weight, pending)

    def _awaited(self, moment: int) -> int:
        """How many units are claimed for a moment whose waiters have not gone yet."""
        return (self._pending or {}).get(moment, 0)

    def _expect(self, moment: int, units: int, now: int) -> None:
        """Note that units are claimed for ``moment``; negative, that their waiter has gone."""
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
        for stamp in list(islice(pending, 1)):  # a claim that nobody settled must not stay for ever
            if stamp + self._rates.longest_ms + _ABANDONED_MS < now:
                del pending[stamp]

    def _number(self, place: int, pending: Sequence[tuple[int, int]]) -> int:
        """The number of the unit at a place among those that are not pending."""
        for stamp, units in pending:
            if place <= self._before(stamp):
                break
            place += units
        return place

    def _next_fit(
        self, moment: int, upto: int, weight: int, pending: Sequence[tuple[int, int]] = ()
    ) -> tuple[int, Rate | None]:
        """The first moment from ``moment`` on that suits every rate.

        Args:
            moment: ms on the bucket's clock.
            upto: the place that the item's last unit would have among those that count.
            weight: the item's units.
            pending: the units, by moment, that do not count.
        """
        if self._algorithm.__class__ is not SlidingWindowLog:
            return self._next_fit_by_policy(moment, upto, weight, pending)
        fits, failing = moment, None
        for limit, interval, rate in self._rates.bounds:
            place = upto - limit
            if pending:
                place = self._number(place, pending)
            if place > self._base:
                leaves = self._stamp(place) + interval + 1
                if leaves > moment:
                    failing = failing or rate
                    fits = max(fits, leaves)
        return fits, failing

    def _next_fit_by_policy(
        self, moment: int, upto: int, weight: int, pending: Sequence[tuple[int, int]]
    ) -> tuple[int, Rate | None]:
        """`_next_fit` for any policy: ask it, and ask again at the moment that it names."""
        policy, rates = self._algorithm, self._rates
        counted = upto - weight

        def count(start: int) -> int:
            older = self._before(start) - sum(units for stamp, units in pending if stamp < start)
            return max(0, counted - older)

        def peek_timestamp(offset: int) -> int | None:
            place = self._number(counted - offset, pending)
            return self._stamp(place) if self._base < place <= self._total else None

        first = None
        for _ in range(ROUNDS):
            counts = [count(policy.window_start(rate, moment)) for rate in rates]
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
        rates = self._rates
        failing = failing or rates[0]
        self.failing_rate = failing
        until = moment
        if len(rates) > 1 and moment != FOREVER:
            # Another rate may refuse later on, or something heavier, unless this is the first one.
            until = BEGINNING
            place = self._total + weight - failing.limit
            exact = self._algorithm.__class__ is SlidingWindowLog
            if exact and failing is rates[0] and place > self._base:
                until = self._stamp(place) + failing.interval + 1
        self._full = (until, weight, failing, moment, self._total)

    def _outlook(self, now: int, failing: Rate | None, moment: int) -> Decision:
        """The verdict, and what else there is to know at ``now``."""
        policy, rates = self._algorithm, self._rates
        live = [self._total - self._before(policy.window_start(rate, now)) for rate in rates]
        remaining = min(max(0, rate.limit - count) for rate, count in zip(rates, live))
        reset = 0
        if any(live):
            last = max(now, self._newest)
            reset = max(last - now + policy.retry_after(rate, last, self._newest) for rate in rates)
        if failing is None:
            return Decision(None, None, moment - now, remaining, reset)
        retry = None if moment == FOREVER else moment - now
        return Decision(failing, retry, 0, remaining, reset)

    def _fresh(self, stamp: int) -> int:
        """The stamp, or what the clock reads now that it is the item's turn."""
        if stamp.__class__ is not Unread:
            return stamp
        now: Any = self._clock.now()
        if now.__class__ is int:
            return now
        discard(now)
        return int(stamp)

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
        if behind <= self._rates.shortest_ms or self._is_late():
            return self._latest
        with self._whole():
            self._step_back(behind)
        return stamp

    def _is_late(self) -> bool:
        """Whether the stamp is old rather than the clock behind: the clock itself can tell."""
        now = self._clock.now()
        if now.__class__ is not int:
            discard(now)
            return False
        return 0 <= now - self._latest < _SAME_CLOCK_MS

    def _step_back(self, milliseconds: int) -> None:
        self._shift(milliseconds)
        self._latest -= milliseconds
        self._stepped += milliseconds
        if self._pending:
            self._pending = {at - milliseconds: units for at, units in self._pending.items()}
        self._full = None
