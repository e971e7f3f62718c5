"""A state in this process's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.awaiting import discard
from pyrate_limiter.abstracts.locks import shared_lock
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.claim_queue import ClaimQueue
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.clocks import AbstractClock

_BEGINNING = -(1 << 62)
_FOREVER = 1 << 62
_ROUNDS = 64  # how often a policy may name a moment and then refuse it


class InMemoryStateStore(StateStore):
    """One state in this process's memory: thread-safe, picklable."""

    __slots__ = ("__weakref__", "_latest", "_lock", "_queue", "_skew", "_state")

    # The largest time seen. Time here never goes back: where the caller's does, by more than one
    # interval, `_skew` makes up for it.
    _latest: int
    _skew: int
    _state: State | None
    _queue: ClaimQueue | None

    def __init__(self) -> None:
        self._lock: Any = shared_lock()
        self._clear()

    def _clear(self) -> None:
        self._state = None
        self._queue = None
        self._latest = _BEGINNING
        self._skew = 0

    def check(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        """See `StateStore.check`."""
        with self._lock:
            return self._step(algorithm, rates, self._observe(now, rates), weight)

    def check_now(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], clock: AbstractClock, weight: int
    ) -> Decision | None:
        """`check` at the clock's time, read under the lock.

        Returns:
            None where the clock has to be awaited, or a keyed factory has dropped the bucket.
        """
        with self._lock:
            now = clock.now()
            if now.__class__ is not int:
                discard(now)
                return None
            if now < self._latest or self._skew:
                if self._latest == _FOREVER:
                    return None
                now = self._observe(now, rates)  # type: ignore[arg-type] # it is an int
            else:
                self._latest = now  # type: ignore[assignment]
            return self._step(algorithm, rates, now, weight)  # type: ignore[arg-type]

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Decision:
        """See `AbstractBucket.claim`."""
        weight = item.weight
        with self._lock:
            now = self._observe(item.timestamp, rates)
            moment, failing, state = self._plan(algorithm, rates, now, weight)
            if state is None or moment - now > patience_ms:
                return self._outlook(algorithm, rates, now, failing, moment)
            if moment > now:
                tail = now if self._queue is None else self._queue.newest
                if moment > tail:
                    moment = max(moment, min(moment + buffer_ms, now + patience_ms))
                    state, _ = algorithm.step(rates, self._current(algorithm, rates), moment, weight)
                if self._queue is None:
                    before = self._current(algorithm, rates)
                    self._queue = ClaimQueue(algorithm, rates, before)
                item.timestamp = moment
            if self._queue is not None:
                self._queue.add(moment, weight, gone=moment <= now)
            self._state = state
            return self._outlook(algorithm, rates, now, None, moment)

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
    ) -> Decision:
        """See `AbstractBucket.settle`."""
        with self._lock:
            now = self._observe(now, rates)
            queue = self._queue
            claim = None if queue is None else queue.find(item.timestamp, item.weight)
            if queue is None or claim is None:
                return ADMITTED
            state = queue.go(claim, now)
            if state is not None:
                self._state = state
            if claim.gone:
                return ADMITTED
            if claim.at - now > patience_ms:
                self._state = queue.drop(claim)
                return self._outlook(algorithm, rates, now, rates[0], claim.at)
            claim.key = claim.at
            item.timestamp = claim.at
            return Decision(wait_ms=claim.at - now)

    def release(self, item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        with self._lock:
            queue = self._queue
            claim = None if queue is None else queue.find(item.timestamp, item.weight)
            if queue is None or claim is None:
                return False
            self._state = queue.drop(claim)
            return True

    def forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        """See `AbstractBucket.check`."""
        with self._lock:
            now = self._observe(now, rates)
            moment, failing, _ = self._plan(algorithm, rates, now, weight)
            return self._outlook(algorithm, rates, now, failing, moment)

    def moment(self, item: RateItem) -> int:
        """When a claim is due, on the bucket's clock."""
        return item.timestamp - self._skew

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
        """See `StateStore.read`."""
        with self._lock:
            return self._current(algorithm, rates)

    def reset(self) -> None:
        """See `StateStore.reset`."""
        with self._lock:
            self._clear()

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """Refuse all use from now on, unless something is still owed at ``now``."""
        with self._lock:
            now = self._observe(now, rates)
            if self._queue is not None or algorithm.consumed(
                rates, self._current(algorithm, rates), now
            ):
                return False
            self._latest = _FOREVER
            return True

    # Everything below is called with the lock held.

    def _observe(self, now: int, rates: Sequence[Rate]) -> int:
        now += self._skew
        behind = self._latest - now
        if behind <= 0:
            self._latest = now
            return now
        if self._latest == _FOREVER:
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
        state = self._state
        if state is None:
            state = algorithm.initial(rates)
        if self._queue is not None:
            return self._step_behind_queue(algorithm, rates, now, weight)
        self._state, decision = algorithm.step(rates, state, now, weight)
        return decision

    def _step_behind_queue(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision:
        moment, failing, state = self._plan(algorithm, rates, now, weight)
        if failing is not None:
            return Decision(failing, None if moment == _FOREVER else moment - now)
        if self._queue is not None:
            self._queue.add(now, weight, gone=True)
        self._state = state
        return ADMITTED

    def _plan(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> tuple[int, Rate | None, State | None]:
        """When the weight fits behind all claims, what is in the way now, and the state after it.

        No state: it never fits, or a user's policy refuses at the moments that it has named.
        """
        if self._queue is not None and not self._queue.fold(now):
            self._queue = None
        moment = now if self._queue is None else max(now, self._queue.newest)
        failing = None if moment == now else rates[0]
        if weight == 0:
            return now, None, self._current(algorithm, rates)
        for _ in range(_ROUNDS):
            state, decision = algorithm.step(
                rates, self._current(algorithm, rates), moment, weight
            )
            if decision.failing_rate is None:
                return moment, failing, state
            failing = decision.failing_rate if failing is None else failing
            if decision.retry_after_ms is None:
                return _FOREVER, decision.failing_rate, None
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
        return Decision(failing, None if moment == _FOREVER else moment - now, 0, remaining, reset)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"_state": self._state, "_latest": self._latest, "_skew": self._skew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc] # an object made by pickle has no lock yet
        for name, value in state.items():
            setattr(self, name, value)
