"""Buckets of a few numbers per key instead of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.closing import Closable, StoppedClock
from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter._core.validation import Unread, check_clock, check_item, pad_ms
from pyrate_limiter._core.waited_for import is_unchanged, waited_for
from pyrate_limiter.abstracts.algorithm import ADMITTED, GCRA, Decision, StateAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state.in_memory import InMemoryStateStore
from pyrate_limiter.errors import AlgorithmMismatch, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import State
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.abstracts.reservation import Reservation

_STOCK = GCRA()


class StateBucket(Closable, AbstractBucket):
    """A bucket that runs a `StateAlgorithm` over a `StateStore`.

    Args:
        rates: the limits; all of them hold.
        algorithm: `GCRA` if left out.
        store: where the state lives; in this process's memory if left out. A store that has to be
            awaited makes the bucket async.
        clock: the store's ``default_clock`` if left out.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: the algorithm works on a log.
        WrongType: ``store`` is no `StateStore`.
    """

    __module__ = "pyrate_limiter.buckets.state_bucket"

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_algorithm",
        "_clock",
        "_learnt",
        "_rates",
        "failing_rate",
        "is_async",
        "store",
    )

    failing_rate: Rate | None
    is_async: bool | None
    _algorithm: StateAlgorithm
    # The weight and the moment of the last refusal, -1 for never.
    _learnt: tuple[int, int] | None

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        algorithm: StateAlgorithm | None = None,
        store: StateStore | None = None,
        clock: AbstractClock | None = None,
    ) -> None:
        if algorithm is None:
            algorithm = _STOCK
        elif not isinstance(algorithm, StateAlgorithm):
            raise AlgorithmMismatch(algorithm, type(self).__name__, "a StateAlgorithm")
        if store is not None and not isinstance(store, StateStore):
            raise WrongType("store", store, "a StateStore, such as RedisStateStore(client, key)")
        if clock is not None:
            check_clock(clock)
        self._rates = sorted_rates(rates)
        self._algorithm = algorithm
        self.store: StateStore = InMemoryStateStore() if store is None else store
        self._clock = self.store.default_clock if clock is None else clock
        self.is_async = self.store.is_async
        self.failing_rate = None
        self._learnt = None

    @classmethod
    def member(cls, rates: RateList, lock: AbstractContextManager[object]) -> StateBucket:
        """A stock bucket in memory whose lock belongs to the factory that keeps it."""
        return cls(rates, store=InMemoryStateStore.member(lock))

    @property
    def algorithm(self) -> StateAlgorithm:
        """The policy in use."""
        return self._algorithm

    @property
    def blocks(self) -> bool:  # type: ignore[override] # it is the store's affair
        return self.store.blocks

    @property
    def answers_in_order(self) -> bool:  # type: ignore[override] # as above
        return self.store.answers_in_order

    @property
    def puts_at_once(self) -> bool:  # type: ignore[override] # as above
        return "take_now" in vars(type(self.store))

    @property
    def store_id(self) -> object:
        return self.store.store_id

    @property
    def rates(self) -> RateList:
        return self._rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        self._rates = sorted_rates(rates)
        self._learnt = None

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; None where a subclass or store differs."""
        return self.take if self.puts_at_once and is_unchanged(type(self), StateBucket) else None

    def asking(self) -> Callable[[str, int], bool | None] | None:
        """`ask`, where it does what `put` would do; None where a subclass or store differs."""
        asks = "take_at" in vars(type(self.store)) and not self.is_async
        return self.ask if asks and is_unchanged(type(self), StateBucket) else None

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that cannot be said at once: somebody waits, the clock has to be awaited, or
            a keyed factory has dropped the bucket.
        """
        if waited_for and id(self) in waited_for:
            return None
        del name
        store: Any = self.store  # one that has it
        failing = store.take_now(self._algorithm, self._rates, self._clock, weight)
        if failing is False:
            return None
        self.failing_rate = failing
        return failing is None

    def ask(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item, by asking a server.

        Returns:
            None where that takes more than the one call: somebody waits, the bucket's clock is
            another one or a method of it was replaced, or the store says so.
        """
        del name
        if (waited_for and id(self) in waited_for) or vars(self):
            return None
        store: Any = self.store  # one that has `take_at`
        if self._clock is not store.default_clock:
            return None
        decision = store.take_at(self._algorithm, self._rates, weight)
        if decision is None:
            return None
        return self._learn(self._clock.now(), weight, decision).failing_rate is None

    def stamp(self) -> int | Awaitable[int]:
        again = self.store.reserves and type(self).now is AbstractBucket.now
        return then(self.now(), Unread) if again else self.now()

    def put(self, item: RateItem) -> bool | Awaitable[bool]:
        verdict = self.put_decision(item)
        if verdict.__class__ is Decision:
            return verdict.failing_rate is None
        return then(verdict, lambda decision: decision.failing_rate is None)

    def put_decision(self, item: RateItem) -> Decision | Awaitable[Decision]:
        check_item(item)
        if item.weight == 0:
            self.failing_rate = None
            return ADMITTED
        store: Any = self.store  # one that reserves also takes the clock
        clocks = (self._clock,) if store.reserves else ()
        verdict = store.check(self._algorithm, self._rates, item.timestamp, item.weight, *clocks)
        return self._learnt_from(item.timestamp, item.weight, verdict)

    def _learn(self, now: int, weight: int, decision: Decision) -> Decision:
        self.failing_rate = decision.failing_rate
        if decision.failing_rate is not None:
            retry = decision.retry_after_ms
            self._learnt = (weight, -1 if retry is None else now + retry)
        return decision

    def _learnt_from(
        self, now: int, weight: int, verdict: Decision | Awaitable[Decision]
    ) -> Decision | Awaitable[Decision]:
        if isinstance(verdict, Decision):
            return self._learn(now, weight, verdict)

        def learn(decision: Decision) -> Decision:
            return self._learn(now, weight, decision)

        return then(verdict, learn)

    def waiting(self, item: RateItem) -> int | Awaitable[int]:
        if self.failing_rate is None:
            return 0
        learnt = self._learnt
        if learnt is not None and learnt[0] == item.weight:
            return -1 if learnt[1] == -1 else max(0, learnt[1] - item.timestamp)

        def wait(decision: Decision) -> int:
            failing, retry = decision.failing_rate, decision.retry_after_ms
            if retry is None and failing and item.weight > self._algorithm.max_weight(failing):
                return -1
            return retry or 0  # a policy that names no wait leaves it at trying again

        return then(self.check(item), wait)

    def check(self, item: RateItem) -> Decision | Awaitable[Decision]:
        check_item(item)
        algorithm, rates, now = self._algorithm, self._rates, item.timestamp
        if self.store.reserves:
            return self.store.forecast(algorithm, rates, now, item.weight, self._clock)

        def decide(state: State) -> Decision:
            verdict = algorithm.step(rates, state, now, item.weight)[1] if item.weight else ADMITTED
            outlook = algorithm.remaining_and_reset(rates, state, now)
            return Decision(verdict.failing_rate, verdict.retry_after_ms, 0, *outlook)

        return then(self.store.read(algorithm, rates), decide)

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Decision | Awaitable[Decision]:
        del brief
        if not self.store.reserves:
            return self.put_decision(item)
        check_item(item)
        now, terms = item.timestamp, (max_wait_ms, self._pad(buffer_ms), self._clock, limit_ms)
        verdict = self.store.reserve(self._algorithm, self._rates, item, *terms)
        return self._learnt_from(now, item.weight, verdict)

    def _pad(self, buffer_ms: int | None) -> int:
        return pad_ms(self._rates.spacing_ms) if buffer_ms is None else buffer_ms

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        if not self.store.reserves:
            return super().reserve_several(items, max_wait_ms, buffer_ms, not_before, limit_ms)
        for item in items:
            check_item(item)

        def learn(decisions: list[Decision]) -> list[Decision]:
            self.failing_rate = decisions[-1].failing_rate
            self._learnt = None  # without those before it, the last one might fit earlier
            return decisions

        terms = (max_wait_ms, self._pad(buffer_ms), not_before, self._clock, limit_ms)
        answers = self.store.reserve_several(self._algorithm, self._rates, items, *terms)
        return then(answers, learn)

    def confirm(
        self, reservation: Reservation, now: int, max_wait_ms: int = 0
    ) -> Decision | Awaitable[Decision]:
        if not self.store.reserves:
            return reservation.with_wait()
        terms = (reservation, now, max_wait_ms, self._clock)
        return self.store.confirm(self._algorithm, self._rates, *terms)

    def detach(self, reservation: Reservation) -> Reservation | Awaitable[Reservation]:
        return self.store.detach(self._algorithm, self._rates, reservation)

    def cancel(self, reservation: Reservation) -> bool | Awaitable[bool]:
        if not self.store.reserves:
            return False
        return self.store.cancel(self._algorithm, self._rates, reservation)

    def hold(self, item: RateItem, hold_ms: int) -> int | Awaitable[int]:
        check_item(item)
        self._learnt = None
        return self.store.hold(self._algorithm, self._rates, item.timestamp, hold_ms, self._clock)

    def release_hold(self, item: RateItem) -> bool | Awaitable[bool]:
        check_item(item)
        self._learnt = None
        return self.store.release_hold(self._algorithm, self._rates, item.timestamp, self._clock)

    def pause(self, reservation: Reservation) -> float:
        stamp = reservation.item.timestamp
        # One that was not read yet is the clock's own; else it is the moment of a reservation.
        ahead_ms = 0 if stamp.__class__ is Unread else self.store.ahead_ms()
        return self._clock.pause(stamp - ahead_ms, reservation.wait_ms)

    def leak(self, current_timestamp: int | None = None) -> int:
        """0: a state holds nothing that could leak."""
        del current_timestamp
        return 0

    def flush(self) -> Awaitable[None] | None:
        def done(_: None) -> None:
            self.failing_rate = self._learnt = None

        return then(self.store.reset(), done)

    def count(self) -> int | Awaitable[int]:
        """Units owed now, rounded up."""

        def owed(state: State) -> int | Awaitable[int]:
            ahead, owed_at = self.store.ahead_ms(), self._algorithm.consumed
            return then(self.now(), lambda now: owed_at(self._rates, state, now + ahead))

        return then(self.store.read(self._algorithm, self._rates), owed)

    def peek(self, index: int) -> RateItem | None:
        """None: a state knows no units."""
        del index
        return None

    @property
    def retired(self) -> bool:
        """Whether it refuses all use; see `retire`."""
        return self.store.retired

    def retire(self, now: int) -> bool:
        """Refuse all use from now on, unless something is still owed at ``now``."""
        if id(self) in waited_for:
            return False
        return self.store.retire(self._algorithm, self._rates, now)

    def close(self) -> None:
        self._clock = StoppedClock()
        super().close()
        self.store.close()

    def _let_go(self) -> None:
        self.store.close()
