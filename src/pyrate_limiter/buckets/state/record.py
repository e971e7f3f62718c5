"""A state and the claims on it: all that a state store has to keep, and every step of it.

A store brings atomicity: it calls these methods on a record that no other caller has in hand, and
keeps the record, or what `dump` makes of it, wherever it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pyrate_limiter._core.timeline import Timeline
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.buckets.state.reservations import ClaimQueue, claims_in_line
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.state.reservations import Claim

_ROUNDS = 64  # how often a policy may name a moment and then refuse it


class _Plan(NamedTuple):
    """Where something fits."""

    moment: int
    failing: Rate | None  # what is in the way now
    after: State | None  # None: it fits nowhere
    free: Claim | None = None  # what was given back, and is used


class StateRecord(Timeline):
    """One state with its claims.

    Stamps come with their ``clock``, to be asked where they are not in order. Without one they are
    taken for what a clock has said in this very step.
    """

    __slots__ = ("_ahead", "_hold", "_latest", "_queue", "_state")

    _state: State | None
    _queue: ClaimQueue | None

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._state = None
        self._queue = None
        self._ahead = 0
        self._hold = None
        self._begin_time()

    def _observe(
        self,
        stamp: int,
        rates: Sequence[Rate],
        clock: AbstractClock | None = None,
        *,
        asks: bool = False,
    ) -> int:
        """The time by which an item stamped ``stamp`` is judged; ``asks``: nothing is stored."""
        if self._latest == FOREVER:
            raise BucketRetired
        if clock is None:
            now = self._judged_now(stamp, rates)
        else:
            now = self._judged(stamp, clock, rates, asks=asks)
        if self._hold is not None:
            self._look_at(self._hold, now)
        return now

    def _begin_hold(
        self, rates: Sequence[Rate], now: int | None, hold_ms: int, clock: AbstractClock
    ) -> int:
        """See `StateStore.hold`."""
        now = self._latest = self._observe(now or 0, rates, clock)
        return self._hold_for(now, hold_ms)

    def _release_hold(self, rates: Sequence[Rate], now: int | None, clock: AbstractClock) -> bool:
        """See `StateStore.release_hold`."""
        return self._end_hold(self._observe(now or 0, rates, clock, asks=True))

    def _current(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int = 0) -> State:
        queue, now = self._queue, now or self._latest
        if queue is not None and (not queue.is_played or queue.is_late(now)):
            self._state = queue.played(now, algorithm, rates)
        return algorithm.initial(rates) if self._state is None else self._state

    def _step(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        """Take ``weight`` now or not at all; ``now`` is an observed time."""
        if self._hold is not None:
            self._look_at(self._hold, now)
        if self._queue is not None or self._hold is not None:
            plan = self._plan(algorithm, rates, now, weight)
            if plan.failing is not None:
                wait = None if plan.moment == FOREVER else plan.moment - now
                return Decision(plan.failing, wait)
            self._take(algorithm, rates, plan, now, weight)
            return ADMITTED
        state = self._state
        if state is None:
            state = algorithm.initial(rates)
        self._state, decision = algorithm.step(rates, state, now, weight)
        if decision.failing_rate is None:
            self._latest = now
        return decision

    def _claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None = None,
        clock: AbstractClock | None = None,
    ) -> Decision:
        """See `AbstractBucket.claim`, and of ``not_before`` `AbstractBucket.claim_several`."""
        now = self._observe(item.timestamp, rates, clock)
        return self._claim_at(algorithm, rates, item, now, patience_ms, buffer_ms, not_before)

    def _claim_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
        buffer_ms: int = 0,
        not_before: int | None = None,
    ) -> Decision:
        weight = item.weight
        start = now if not_before is None else max(now, not_before)
        plan = self._plan(algorithm, rates, now, weight, start)
        moment = plan.moment
        if plan.after is None or moment - now > patience_ms:
            return self._outlook(algorithm, rates, now, plan.failing, moment)
        if moment > now:
            before = self._current(algorithm, rates, now)
            queue = self._queue
            if queue is None:
                queue = self._queue = ClaimQueue(before)
            if moment > max(start, queue.newest):
                padded = max(moment, min(moment + buffer_ms, now + patience_ms))
                after, _ = algorithm.step(rates, before, padded, weight)
                plan = plan._replace(moment=padded, after=after)
            item.timestamp = plan.moment
        self._take(algorithm, rates, plan, now, weight)
        return self._outlook(algorithm, rates, now, None, plan.moment)

    def _claim_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None,
        clock: AbstractClock | None = None,
    ) -> list[Decision]:
        """See `AbstractBucket.claim_several`."""

        def claim(item: RateItem, at: int | None) -> Decision:
            return self._claim(algorithm, rates, item, patience_ms, buffer_ms, at, clock)

        return claims_in_line(items, not_before, claim)

    def _take(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        plan: _Plan,
        now: int,
        weight: int,
    ) -> None:
        """Store what was planned: a claim, or units that go at once."""
        if not weight:
            return
        self._latest = now
        queue = self._queue
        self._state = plan.after
        if queue is None:
            return
        if plan.free is not None:
            queue.use(plan.free, weight)
        if plan.moment > now:
            queue.add(plan.moment, weight)
        else:
            queue.gone, _ = algorithm.step(rates, queue.gone, now, weight)

    def _settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
        clock: AbstractClock | None = None,
    ) -> Decision:
        """See `AbstractBucket.settle`. Judged by those who have gone by then."""
        now = self._latest = self._observe(now, rates, clock)
        queue, weight, claimed = self._queue, item.weight, item.timestamp
        if queue is None or not queue.has(claimed, weight):
            # Forgotten, because the state was reset or the waiter is so very late.
            return self._claim_at(algorithm, rates, item, now, patience_ms)
        # A waiter that wakes early is taken at its word.
        due = max(now, claimed)
        start = self._held(due)
        moment, failing, after = _first_fit(algorithm, rates, (queue.gone,), start, weight)
        failing = failing or rates[0]
        if after is not None and moment == due:
            queue.take_out(claimed, weight)
            queue.gone, self._latest = after, due
            return ADMITTED
        if after is None or moment - now > patience_ms:
            queue.give_back(claimed, weight)
            return self._outlook(algorithm, rates, now, failing, moment)
        queue.take_out(claimed, weight)
        queue.add(moment, weight)
        item.timestamp = moment
        return Decision(wait_ms=moment - now)

    def _release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        del algorithm, rates
        queue = self._queue
        if queue is None or not queue.has(item.timestamp, item.weight):
            return False
        queue.give_back(item.timestamp, item.weight)
        return True

    def _forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock | None = None,
    ) -> Decision:
        """See `AbstractBucket.check`."""
        now = self._observe(now, rates, clock, asks=True)
        plan = self._plan(algorithm, rates, now, weight)
        return self._outlook(algorithm, rates, now, plan.failing, plan.moment)

    def _is_idle(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """Whether nothing is owed and nobody waits; the clock has said ``now`` just before."""
        now = self._judged_now(now, rates, awaited=True)
        self._fold(algorithm, rates, now)
        if self._hold is not None:
            self._look_at(self._hold, now)
        return (
            self._queue is None
            and self._hold is None
            and not algorithm.consumed(rates, self._current(algorithm, rates, now), now)
        )

    def _fold(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> None:
        queue = self._queue
        if queue is not None and not queue.fold(now):
            self._current(algorithm, rates, now)
            self._queue = None

    def _plan(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        start: int | None = None,
    ) -> _Plan:
        """When the weight fits, from ``start`` on: where claims were given back, or behind all."""
        self._fold(algorithm, rates, now)
        queue, state = self._queue, self._current(algorithm, rates, now)
        if weight == 0:
            return _Plan(now, None, state)
        start = self._held(now if start is None else start)
        states: tuple[State, ...] = (state,)
        if queue is not None:
            room = queue.room(now, start, weight, algorithm, rates)
            if room is not None:
                moment, free = room
                _, decision = algorithm.step(rates, queue.gone, moment, weight)
                if decision.failing_rate is None:
                    return _Plan(moment, None if moment == now else rates[0], state, free)
            start = max(start, queue.newest)
            states = (state, queue.gone)
        moment, failing, after = _first_fit(algorithm, rates, states, start, weight)
        return _Plan(moment, failing if moment == FOREVER or start == now else rates[0], after)

    def _outlook(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        failing: Rate | None,
        moment: int,
    ) -> Decision:
        remaining, reset = algorithm.outlook(rates, self._current(algorithm, rates, now), now)
        held = self._held(now) - now
        if held:
            remaining, reset = 0, None if reset is None else max(reset, held)
        if failing is None:
            return Decision(None, None, moment - now, remaining, reset)
        return Decision(failing, None if moment == FOREVER else moment - now, 0, remaining, reset)

    def dump(self) -> tuple[Any, ...]:
        """The record as plain numbers in tuples and lists."""
        queue = None if self._queue is None else self._queue.dump()
        return self._latest, self._ahead, self._state, queue, self._hold

    def load(self, numbers: Sequence[Any]) -> None:
        """Make this the record that `dump` gave."""
        self._latest, self._ahead, state, queue, hold = numbers
        self._state = None if state is None else tuple(state)
        self._queue = None if queue is None else ClaimQueue.restored(queue)
        self._hold = None if hold is None else tuple(hold)


def _first_fit(
    algorithm: StateAlgorithm,
    rates: Sequence[Rate],
    states: tuple[State, ...],
    moment: int,
    weight: int,
) -> tuple[int, Rate | None, State | None]:
    """The first moment from ``moment`` on at which each of the states admits the weight.

    Returns:
        The moment; what is in the way at first; and the first of the states after it. None for
        that: it never fits, or a user's policy refuses at the moments that it has named.
    """
    failing: Rate | None = None
    for _ in range(_ROUNDS):
        steps = [algorithm.step(rates, state, moment, weight) for state in states]
        refusals = [decision for _, decision in steps if decision.failing_rate is not None]
        if not refusals:
            return moment, failing, steps[0][0]
        failing = failing or refusals[0].failing_rate
        waits = [decision.retry_after_ms for decision in refusals]
        if None in waits:
            return FOREVER, refusals[0].failing_rate, None
        moment += max(1, *(wait for wait in waits if wait is not None))
    return moment, failing, None
