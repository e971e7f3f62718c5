"""The rules of a state and of the reservations on it.

A store brings atomicity: it gives these rules a record that no other caller has in hand, and keeps
the record, or what `StateRecord.dump` makes of it, wherever it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter._core.in_line import reserve_in_line
from pyrate_limiter._core.timeline import ROUNDS
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.state.reservations import DETACHED, HELD, ReservationQueue
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.state.record import StateRecord
    from pyrate_limiter.buckets.state.reservations import Units


class Reading(AbstractClock):
    """What a clock has said in this very step: it counts, whatever the stamps say.

    Args:
        now: the time, in ms.
        waited_ms: how long ago the caller asked.
    """

    __slots__ = ("_now", "waited_ms")

    def __init__(self, now: int, waited_ms: int = 0) -> None:
        self._now = now
        self.waited_ms: int = waited_ms

    def now(self) -> int:
        """The time that was read, in ms."""
        return self._now


class _Plan(NamedTuple):
    """Where something fits."""

    moment: int
    failing: Rate | None  # what is in the way now
    after: State | None  # None: it fits nowhere
    free: Units | None = None  # what was given back, and is used


class StateRules:
    """What is done with a record under a policy and its rates.

    Args:
        algorithm: the policy.
        rates: the limits.
        clock: the bucket's. It is asked where stamps are not in order; see also `Reading`.
    """

    __slots__ = ("algorithm", "clock", "rates", "record")

    def __init__(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], clock: AbstractClock
    ) -> None:
        self.algorithm: StateAlgorithm = algorithm
        self.rates: Sequence[Rate] = rates
        self.clock: AbstractClock = clock

    def on(self, record: StateRecord) -> StateRules:
        """Have them hold for this record, which nobody else has in hand."""
        self.record: StateRecord = record
        return self

    def step(self, state: State, now: int, weight: int) -> tuple[State, Decision]:
        """See `StateAlgorithm.step`."""
        return self.algorithm.step(self.rates, state, now, weight)

    def state(self, now: int = 0) -> State:
        """The state, all reservations included; the initial one if nothing is stored.

        ``now``: the record's own time; without it, the latest at which something was stored.
        """
        record = self.record
        queue, now = record._queue, now or record._latest
        if queue is not None and (not queue.is_played or queue.is_late(now)):
            record._state = queue.played(now, self.step)
        state = record._state
        return self.algorithm.initial(self.rates) if state is None else state

    def check(self, stamp: int, weight: int) -> Decision:
        """See `StateStore.check`."""
        return self.take(self._observe(stamp), weight)

    def take(self, now: int, weight: int) -> Decision:
        """Take units now or not at all; ``now`` is the record's own time."""
        record = self.record
        if record._hold is not None:
            record._look_at(record._hold, now)
        if record._queue is not None or record._hold is not None:
            plan = self._plan(now, weight)
            if plan.failing is not None:
                return Decision(plan.failing, _wait(now, plan.moment))
            self._store(plan, now, weight)
            return ADMITTED
        state = record._state
        if state is None:
            state = self.algorithm.initial(self.rates)
        record._state, decision = self.algorithm.step(self.rates, state, now, weight)
        if decision.failing_rate is None:
            record._latest = now
        return decision

    def reserve(
        self, item: RateItem, max_wait_ms: int, buffer_ms: int, not_before: int | None = None
    ) -> Decision:
        """See `StateStore.reserve`, and of ``not_before`` `StateStore.reserve_several`."""
        now = self._observe(item.timestamp)
        if isinstance(self.clock, Reading):
            max_wait_ms = max(0, max_wait_ms - self.clock.waited_ms)
        return self._reserve(item, now, max_wait_ms, buffer_ms, not_before)

    def _reserve(
        self,
        item: RateItem,
        now: int,
        max_wait_ms: int,
        buffer_ms: int = 0,
        not_before: int | None = None,
    ) -> Decision:
        weight, record = item.weight, self.record
        start = now if not_before is None else max(now, not_before)
        plan = self._plan(now, weight, start)
        moment = plan.moment
        if plan.after is None or moment - now > max_wait_ms:
            return self._refusal(now, plan.failing, moment)
        if moment > now:
            before = self.state(now)
            queue = record._queue
            if queue is None:
                queue = record._queue = ReservationQueue(before)
            if moment > max(start, queue.newest):
                moment = max(moment, min(moment + buffer_ms, now + max_wait_ms))
                after, _ = self.step(before, moment, weight)
                plan = plan._replace(moment=moment, after=after)
            item.timestamp = moment
        self._store(plan, now, weight)
        return Reservation(item, moment - now, None, *self._remaining_and_reset(now))

    def reserve_several(
        self, items: Sequence[RateItem], max_wait_ms: int, buffer_ms: int, not_before: int | None
    ) -> list[Decision]:
        """See `StateStore.reserve_several`."""
        return reserve_in_line(
            items, not_before, lambda item, at: self.reserve(item, max_wait_ms, buffer_ms, at)
        )

    def confirm(self, reservation: Reservation, stamp: int, max_wait_ms: int) -> Decision:
        """See `StateStore.confirm`. Judged by those who have gone by then."""
        item, record = reservation.item, self.record
        weight, reserved = item.weight, item.timestamp
        now = record._latest = self._observe(stamp)
        queue = record._queue
        if queue is not None:  # its own units are not abandoned as long as they are there
            queue.fold(now, self.step, abandoned_ms=FOREVER)
        if queue is None or not queue.has(reserved, weight):
            # Forgotten, because the state was reset or its holder is so very late.
            return self._reserve(item, now, max_wait_ms)
        # A holder that wakes early is taken at its word.
        due = max(now, reserved)
        moment, failing, after = self._first_fit((queue.gone,), record._held(due), weight)
        if after is not None and moment == due:
            queue.take_out(reserved, weight)
            queue.gone, record._latest = after, due
            return reservation.with_wait()
        if after is None or moment - now > max_wait_ms:
            queue.give_back(reserved, weight)
            return self._refusal(now, failing or self.rates[0], moment)
        queue.take_out(reserved, weight)
        queue.add(moment, weight)
        item.timestamp = moment
        return reservation.with_wait(moment - now)

    def detach(self, reservation: Reservation) -> Reservation:
        """See `StateStore.detach`."""
        item, queue = reservation.item, self.record._queue
        if queue is None or not queue.detach(item.timestamp, item.weight):
            return reservation  # the units went at once, or were forgotten
        return Reservation.of(item, reservation, DETACHED)

    def cancel(self, reservation: Reservation) -> bool:
        """See `StateStore.cancel`."""
        item, queue = reservation.item, self.record._queue
        if queue is None or not queue.has(item.timestamp, item.weight):
            return False
        queue.give_back(item.timestamp, item.weight, reservation.handle or HELD)
        return True

    def forecast(self, stamp: int, weight: int) -> Decision:
        """See `StateStore.forecast`."""
        now = self._observe(stamp, asks=True)
        plan = self._plan(now, weight)
        if plan.failing is not None:
            return self._refusal(now, plan.failing, plan.moment)
        return Decision(None, None, plan.moment - now, *self._remaining_and_reset(now))

    def hold(self, stamp: int, hold_ms: int) -> int:
        """See `StateStore.hold`."""
        now = self.record._latest = self._observe(stamp)
        return self.record._hold_for(now, hold_ms)

    def release_hold(self, stamp: int) -> bool:
        """See `StateStore.release_hold`."""
        return self.record._end_hold(self._observe(stamp, asks=True))

    def is_idle(self, now: int) -> bool:
        """Whether nothing is owed and nobody waits; the clock has said ``now`` just before."""
        record = self.record
        now = record._judged_now(now, self.rates, awaited=True)
        self._fold(now)
        if record._hold is not None:
            record._look_at(record._hold, now)
        return (
            record._queue is None
            and record._hold is None
            and not self.algorithm.consumed(self.rates, self.state(now), now)
        )

    def _observe(self, stamp: int, *, asks: bool = False) -> int:
        """The time by which an item stamped ``stamp`` is judged; ``asks``: nothing is stored."""
        record, clock = self.record, self.clock
        if record._latest == FOREVER:
            raise BucketRetired
        if clock.__class__ is Reading:
            now = record._judged_now(clock.now(), self.rates)
        else:
            now = record._judged(stamp, clock, self.rates, asks=asks)
        if record._hold is not None:
            record._look_at(record._hold, now)
        return now

    def _store(self, plan: _Plan, now: int, weight: int) -> None:
        """Store what was planned: a reservation, or units that go at once."""
        if not weight:
            return
        record = self.record
        record._latest = now
        record._state = plan.after
        queue = record._queue
        if queue is None:
            return
        if plan.free is not None:
            queue.use(plan.free, weight)
        if plan.moment > now:
            queue.add(plan.moment, weight)
        else:
            queue.gone, _ = self.step(queue.gone, now, weight)

    def _fold(self, now: int) -> None:
        queue = self.record._queue
        if queue is not None and not queue.fold(now, self.step):
            self.state(now)
            self.record._queue = None

    def _plan(self, now: int, weight: int, start: int | None = None) -> _Plan:
        """When the weight fits, from ``start`` on: where units were given back, or behind all."""
        self._fold(now)
        record, rates = self.record, self.rates
        queue, state = record._queue, self.state(now)
        if weight == 0:
            return _Plan(now, None, state)
        start = record._held(now if start is None else start)
        states: tuple[State, ...] = (state,)
        if queue is not None:
            room = queue.room(now, start, weight, self.step)
            if room is not None:
                moment, free = room
                _, decision = self.step(queue.gone, moment, weight)
                if decision.failing_rate is None:
                    return _Plan(moment, None if moment == now else rates[0], state, free)
            start = max(start, queue.newest)
            states = (state, queue.gone)
        moment, failing, after = self._first_fit(states, start, weight)
        return _Plan(moment, failing if moment == FOREVER or start == now else rates[0], after)

    def _first_fit(
        self, states: tuple[State, ...], moment: int, weight: int
    ) -> tuple[int, Rate | None, State | None]:
        """The first moment from ``moment`` on at which each of the states admits the weight.

        Returns:
            The moment; what is in the way at first; and the first of the states after it. None for
            that: it never fits, or a user's policy refuses at the moments that it has named.
        """
        failing: Rate | None = None
        for _ in range(ROUNDS):
            steps = [self.step(state, moment, weight) for state in states]
            refusals = [decision for _, decision in steps if decision.failing_rate is not None]
            if not refusals:
                return moment, failing, steps[0][0]
            failing = failing or refusals[0].failing_rate
            waits = [decision.retry_after_ms for decision in refusals]
            if None in waits:
                return FOREVER, refusals[0].failing_rate, None
            moment += max(1, *(wait for wait in waits if wait is not None))
        return moment, failing, None

    def _refusal(self, now: int, failing: Rate | None, moment: int) -> Decision:
        return Decision(failing, _wait(now, moment), 0, *self._remaining_and_reset(now))

    def _remaining_and_reset(self, now: int) -> tuple[int | None, int | None]:
        """See `StateAlgorithm.remaining_and_reset`; nothing is free while a hold stands."""
        remaining, reset = self.algorithm.remaining_and_reset(self.rates, self.state(now), now)
        held = self.record._held(now) - now
        if held:
            remaining, reset = 0, None if reset is None else max(reset, held)
        return remaining, reset


def _wait(now: int, moment: int) -> int | None:
    return None if moment == FOREVER else moment - now
