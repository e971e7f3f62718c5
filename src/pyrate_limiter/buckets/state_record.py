"""A state and the claims on it: all that a state store has to keep, and every step of it.

A store brings atomicity: it calls these methods on a record that no other caller has in hand, and
keeps the record, or what `dump` makes of it, wherever it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.checks import BEGINNING, FOREVER
from pyrate_limiter.buckets.claim_queue import ClaimQueue
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem

_ROUNDS = 64  # how often a policy may name a moment and then refuse it


class StateRecord:
    """One state with its claims. Times are those of the caller's clock, ``now`` included."""

    __slots__ = ("_latest", "_queue", "_skew", "_state")

    # The largest time seen. Time here never goes back: where the caller's does, by more than one
    # interval, `_skew` makes up for it.
    _latest: int
    _skew: int
    _state: State | None
    _queue: ClaimQueue | None

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._state = None
        self._queue = None
        self._latest = BEGINNING
        self._skew = 0

    def _observe(self, now: int, rates: Sequence[Rate]) -> int:
        """The time that a caller of ``now`` is judged at."""
        now += self._skew
        behind = self._latest - now
        if behind <= 0:
            self._latest = now
            return now
        if self._latest == FOREVER:
            raise BucketRetired
        if behind > rates[0].interval:
            self._skew += behind
        return self._latest

    def _current(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
        state = self._state
        return algorithm.initial(rates) if state is None else state

    def _step(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        """Take ``weight`` now or not at all; ``now`` is an observed time."""
        if self._queue is not None:
            return self._step_behind_queue(algorithm, rates, now, weight)
        state = self._state
        if state is None:
            state = algorithm.initial(rates)
        self._state, decision = algorithm.step(rates, state, now, weight)
        return decision

    def _step_behind_queue(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        moment, failing, state = self._plan(algorithm, rates, now, weight)
        if failing is not None:
            return Decision(failing, None if moment == FOREVER else moment - now)
        if self._queue is not None:
            self._queue.add(now, weight, gone=True)
        self._state = state
        return ADMITTED

    def _claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Decision:
        """See `AbstractBucket.claim`."""
        weight = item.weight
        now = self._observe(item.timestamp, rates)
        moment, failing, state = self._plan(algorithm, rates, now, weight)
        if state is None or moment - now > patience_ms:
            return self._outlook(algorithm, rates, now, failing, moment)
        if moment > now:
            before = self._current(algorithm, rates)
            if self._queue is None:
                self._queue = ClaimQueue(before)
            if moment > max(now, self._queue.newest):
                moment = max(moment, min(moment + buffer_ms, now + patience_ms))
                state, _ = algorithm.step(rates, before, moment, weight)
            item.timestamp = moment
        if self._queue is not None:
            self._queue.add(moment, weight, gone=moment <= now)
        self._state = state
        return self._outlook(algorithm, rates, now, None, moment)

    def _settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
    ) -> Decision:
        """See `AbstractBucket.settle`."""
        now = self._observe(now, rates)
        queue = self._queue
        claim = None if queue is None else queue.find(item.timestamp, item.weight)
        if queue is None or claim is None:
            # Forgotten, because the state was reset or the waiter is so very late.
            item.timestamp = now - self._skew
            return self._claim(algorithm, rates, item, patience_ms, 0)
        state = queue.go(claim, now, algorithm, rates)
        if state is not None:
            self._state = state
        if claim.gone:
            return ADMITTED
        if claim.at - now > patience_ms:
            self._state = queue.drop(claim, algorithm, rates)
            return self._outlook(algorithm, rates, now, rates[0], claim.at)
        item.timestamp = claim.key = claim.at
        return Decision(wait_ms=claim.at - now)

    def _release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        queue = self._queue
        claim = None if queue is None else queue.find(item.timestamp, item.weight)
        if queue is None or claim is None:
            return False
        self._state = queue.drop(claim, algorithm, rates)
        return True

    def _forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        """See `AbstractBucket.check`."""
        now = self._observe(now, rates)
        moment, failing, _ = self._plan(algorithm, rates, now, weight)
        return self._outlook(algorithm, rates, now, failing, moment)

    def _is_idle(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """Whether nothing is owed and nobody waits."""
        now = self._observe(now, rates)
        return self._queue is None and not algorithm.consumed(
            rates, self._current(algorithm, rates), now
        )

    def _plan(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> tuple[int, Rate | None, State | None]:
        """When the weight fits behind all claims, what is in the way now, and the state after it.

        No state: it never fits, or a user's policy refuses at the moments that it has named.
        """
        if self._queue is not None and not self._queue.fold(now, algorithm, rates):
            self._queue = None
        state = self._current(algorithm, rates)
        if weight == 0:
            return now, None, state
        moment = now if self._queue is None else max(now, self._queue.newest)
        failing = None if moment == now else rates[0]
        for _ in range(_ROUNDS):
            after, decision = algorithm.step(rates, state, moment, weight)
            if decision.failing_rate is None:
                return moment, failing, after
            failing = decision.failing_rate if failing is None else failing
            if decision.retry_after_ms is None:
                return FOREVER, decision.failing_rate, None
            moment += max(1, decision.retry_after_ms)
        return moment, failing, None

    def _outlook(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        failing: Rate | None,
        moment: int,
    ) -> Decision:
        remaining, reset = algorithm.outlook(rates, self._current(algorithm, rates), now)
        if failing is None:
            return Decision(None, None, moment - now, remaining, reset)
        return Decision(failing, None if moment == FOREVER else moment - now, 0, remaining, reset)

    def dump(self) -> tuple[Any, ...]:
        """The record as plain numbers in tuples and lists."""
        queue = None if self._queue is None else self._queue.dump()
        return self._latest, self._skew, self._state, queue

    def load(self, numbers: Sequence[Any]) -> None:
        """Make this the record that `dump` gave."""
        self._latest, self._skew, state, queue = numbers
        self._state = None if state is None else tuple(state)
        self._queue = None if queue is None else ClaimQueue.restored(queue)
