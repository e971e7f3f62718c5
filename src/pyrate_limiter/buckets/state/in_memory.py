"""A state in this process's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.after_fork import note_reservations
from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.fork_safe_locks import Whole, shared_lock
from pyrate_limiter._core.timeline import NO_CLOCK
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.algorithm import GCRA, Decision, TokenBucket
from pyrate_limiter.buckets.state.record import StateRecord
from pyrate_limiter.buckets.state.rules import StateRules
from pyrate_limiter.buckets.state.store import BlockingRecordStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.state.record import Numbers
    from pyrate_limiter.buckets.state.store import Undo

T = TypeVar("T")

# The policies under which nothing as heavy fits before what was refused does.
_MONOTONE = frozenset({GCRA, TokenBucket})


class InMemoryStateStore(StateRecord, BlockingRecordStore):
    """One state in this process's memory: thread-safe, picklable."""

    __module__ = "pyrate_limiter.buckets.state_bucket"

    __slots__ = ("__weakref__", "_full", "_lock")

    # Until when, from which weight on, for which rates everything is refused, and by which of them.
    _full: tuple[int, int, Sequence[Rate], Rate | None] | None
    _lock: AbstractContextManager[object]

    def __init__(self) -> None:
        super().__init__()
        self._lock = shared_lock()
        self._full = None

    @classmethod
    def member(cls, lock: AbstractContextManager[object]) -> InMemoryStateStore:
        """A store whose lock belongs to the factory that keeps it."""
        store = cls.__new__(cls)
        StateRecord.__init__(store)
        store._lock, store._full = lock, None
        return store

    def _whole(self) -> AbstractContextManager[None]:
        """Around a change that takes several steps. Its user holds the lock."""
        return Whole(self, self.dump())

    def _restore(self, before: Numbers) -> None:
        self._full = None
        self.load(before)

    def transact(
        self,
        rules: StateRules,
        use: Callable[[StateRules], T],
        within_ms: int | None = None,
        instead: Callable[[Decision], T] | None = None,
        undo: Undo[T] | None = None,
    ) -> T:
        """See `RecordStore.transact`. Nothing keeps the record for long."""
        del within_ms, instead, undo
        with self._lock, self._whole():
            self._full = None
            answer = use(rules.on(self))
            if self._queue is not None:
                note_reservations(self)
            return answer

    def take_now(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], clock: AbstractClock, weight: int
    ) -> Rate | bool | None:
        """`check` at the clock's time, read under the lock, with as little as possible around it.

        Returns:
            None when admitted, else the rate that refused. False where it cannot be said: the clock
            has to be awaited, or a keyed factory has dropped the bucket.
        """
        with self._lock:
            now = clock.now()
            if now.__class__ is not int:
                discard(now)
                return False
            if now < self._latest or self._ahead:
                if self._latest == FOREVER:
                    return False
                with self._whole():
                    now = self._judged_now(now, rates)
            else:
                self._latest = now
            full = self._full
            if full is not None and now < full[0] and weight >= full[1] and rates is full[2]:
                return full[3]
            state = self._state
            if self._queue is None and self._hold is None:
                before = algorithm.initial(rates) if state is None else state
                after, decision = algorithm.step(rates, before, now, weight)
                if self._state is not state:  # a signal handler was here
                    return self.take_now(algorithm, rates, clock, weight)
                self._state = after
                if decision.failing_rate is None and self._latest < now:
                    self._latest = now
            else:
                with self._whole():
                    decision = StateRules(algorithm, rates, clock).on(self).take(now, weight)
            retry = decision.retry_after_ms
            if (
                retry is not None
                and self._hold is None  # what is held goes by the clock
                and len(rates) == 1  # of several, another one may be what refuses a moment later
                and algorithm.__class__ in _MONOTONE
            ):
                self._full = (now + retry, weight, rates, decision.failing_rate)
            return decision.failing_rate

    def forget_reservations(self) -> None:
        """Take out what is reserved and not used yet: of a copy, for whom nobody waits."""
        with self._lock, self._whole():
            if self._queue is not None:
                self._state, self._queue = self._queue.gone, None
                self._full = None

    def ahead_ms(self) -> int:
        return self._ahead

    def reset(self) -> None:
        with self._lock, self._whole():
            self._full = None
            self._clear()

    @property
    def retired(self) -> bool:
        """Whether it refuses all use; see `retire`."""
        return self._latest == FOREVER

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """Refuse all use from now on, unless something is still owed at ``now``."""
        with self._lock, self._whole():
            if self._latest == FOREVER:
                return True
            if not StateRules(algorithm, rates, NO_CLOCK).on(self).is_idle(now):
                return False
            self._latest = FOREVER
            return True

    def __getstate__(self) -> Numbers:
        with self._lock:
            return self.dump()

    def __setstate__(self, numbers: Numbers) -> None:
        self._lock = shared_lock()
        self._full = None
        self._clear()
        self.load(numbers)
        self.forget_reservations()
