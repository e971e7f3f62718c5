"""When a weight fits into a log: the one question, answered from where its units stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.timeline import ROUNDS
from pyrate_limiter._core.validation import FOREVER, pad_ms
from pyrate_limiter.abstracts.algorithm import SlidingWindowLog
from pyrate_limiter.buckets.log.storage import LogStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate


class LogMoments(LogStorage):
    """A log that knows its rates, and which of its units are reserved for a moment to come.

    With `SlidingWindowLog` it looks at few units per rate. Other policies, a user's own subclasses
    too, are asked through the methods that `LogAlgorithm` has for it.
    """

    if not TYPE_CHECKING:
        __slots__ = ()  # whoever has a storage names them beside its own

    _algorithm: LogAlgorithm
    _rates: RateList
    # Units by moment that are reserved, and whose waiters have not gone yet; in order.
    _pending: dict[int, int] | None
    # A weight, and two units: nothing so heavy fits anywhere behind the one and in front of the
    # other. That holds until something is taken out or moved.
    _crammed: tuple[int, int, int] | None = None
    _looks: int = 128  # at how many moments, and at how many units behind each, to look for room

    if TYPE_CHECKING:  # its user has the time

        def _held(self, moment: int) -> int: ...

    def _earliest(self, now: int, weight: int) -> tuple[int, Rate | None]:
        """The first moment from ``now`` on at which the weight fits beside all that is stored.

        That may be in front of reservations; under a user's policy, only behind them.

        Returns:
            The moment, `FOREVER` if there is none; and the first rate that is in the way, None if
            the moment is now.
        """
        held = self._held(now)
        if held > now:
            moment, failing = self._earliest(held, weight)
            return moment, failing or self._rates[0]
        queue = self._newest if self._total > self._base else now
        if self._algorithm.__class__ is SlidingWindowLog:  # `decide` asks any other policy itself
            for limit, _, rate in self._rates.bounds:
                if weight > limit:
                    return FOREVER, rate
            room = self._room_ahead(now, weight) if queue > now else None
            if room is not None:
                return room, None if room == now else self._rates[0]
        moment, failing = self._next_fit(max(now, queue), self._total + weight, weight)
        if queue > now and failing is None:
            failing = self._rates[0]
        return moment, failing

    def _room_ahead(self, now: int, weight: int) -> int | None:
        """The first moment from ``now`` on at which the weight fits in front of the newest unit.

        Reservations stay where they are: each must have its room also with ``weight`` more before
        it. A unit ahead whose waiter has gone tells that the clock was further on: there is no room
        before it. None: there is no such moment, or not among the first ones.
        """
        moment, place = now, self._before(now + 1)
        first, crammed = place, self._crammed
        if crammed is not None and crammed[0] <= weight and crammed[1] <= place < crammed[2]:
            first, place = crammed[1:]
            moment = max(now, self._stamp(place))
        for _ in range(self._looks):
            if place == self._total:
                break
            for limit, interval, _ in self._rates.bounds:
                leaves = place + weight - limit
                if leaves > self._base:
                    moment = max(moment, self._stamp(leaves) + interval + 1)
            behind = self._before(moment + 1)
            if behind == place:
                crowded = self._crowded(moment, place, weight)
                if crowded is None:
                    awaited = self._total - place == self._awaited_after(moment)
                    return moment if awaited else None
                moment = self._stamp(crowded)
                behind = self._before(moment + 1)
            place = behind
        self._crammed = weight, first, place
        return None

    def _crowded(self, moment: int, place: int, weight: int) -> int | None:
        """A unit ahead that would lack room if ``weight`` were stored behind ``place``, if any."""
        for limit, interval, _ in self._rates.bounds:
            last = place + limit - weight  # of those in whose window no more than older units count
            if last < self._total and self._stamp(last + 1) <= moment + interval:
                return place + 1
            unit = min(last, self._total)
            for _ in range(self._looks):
                if unit <= place:
                    break
                stamp, first = self._stamp(unit), unit + weight - limit
                if first > self._base and self._stamp(first) + interval >= stamp:
                    return unit
                unit = self._before(stamp)
            else:
                return self._total
        return None

    def _next_departure(self, moment: int, weight: int) -> tuple[int, Rate | None]:
        """When a waiter may go who wants to at ``moment``, and what is in the way.

        Judged by those who have gone by then. Who is still to wake will be judged after it.
        """
        oldest = self._algorithm.leak_bound(self._rates, moment)  # others may have been dropped
        pending = [
            (stamp, units)
            for stamp, units in (self._pending or {}).items()
            if oldest <= stamp <= moment
        ]
        gone = self._before(moment + 1) - sum(units for _, units in pending)
        return self._next_fit(moment, gone + weight, weight, pending)

    def _awaited_after(self, moment: int) -> int:
        """How many units are reserved for later moments whose waiters have not gone yet."""
        return sum(units for at, units in (self._pending or {}).items() if at > moment)

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

    def _padded(
        self, moment: int, weight: int, deadline: int, failing: Rate | None, buffer_ms: int | None
    ) -> int:
        """Where a reservation goes: one pad after the earliest moment, or beside others."""
        if buffer_ms is None:
            buffer_ms = pad_ms((failing or self._rates[0]).interval)
        padded = max(moment, min(moment + buffer_ms, deadline))
        if moment > self._newest:
            return padded
        if moment < self._newest and self._earliest(padded, weight)[0] == padded:
            return padded
        return moment

    def _is_estimate(self, moment: int, weight: int) -> bool:
        """Whether a user's policy would refuse at the very moment that it has named."""
        if self._algorithm.__class__ is SlidingWindowLog or moment == FOREVER:
            return False
        return self._next_fit(moment, self._total + weight, weight)[0] != moment
