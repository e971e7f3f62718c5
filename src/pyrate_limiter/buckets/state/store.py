"""What every store of a `StateRecord` does, written once over `RecordStore.transact`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.process_lock import LAST_SECONDS
from pyrate_limiter._core.timeline import NO_CLOCK
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state.rules import StateRules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem

T = TypeVar("T")

if TYPE_CHECKING:
    Undo = Callable[[T], Callable[[StateRules], object] | None]


class RecordStore(StateStore):
    """A store of one `StateRecord`. What is its own is how the record is had in hand, and kept."""

    __slots__ = ()

    last_ms: int = int(LAST_SECONDS * 1000)
    """How long a caller waits for the record whose time is up, to say what becomes of his units."""

    @abstractmethod
    def transact(
        self,
        rules: StateRules,
        use: Callable[[StateRules], T],
        within_ms: int | None = None,
        instead: Callable[[Decision], T] | None = None,
        undo: Undo[T] | None = None,
    ) -> T | Awaitable[T]:
        """Do something with the record, and keep what it has made of it: both, or nothing.

        Args:
            rules: those of the bucket, for the record that is had in hand here.
            use: what to do by the rules. It may be done again, on the record as others have left it
                meanwhile.
            within_ms: how long it may wait for others who have the record in hand; None is as long
                as is usual, and then that is an error.
            instead: what to answer where the record cannot be had within that time, or its server
                is away: made from the verdict that there is to give. None: that is an error.
            undo: of an answer of ``use``, what takes back what was kept with it, if there is such a
                thing: for a caller who is not there any more to be given the answer.
        """

    def check(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        rules = StateRules(algorithm, rates, clock)
        return self.transact(rules, lambda rules: rules.check(now, weight), instead=_verdict)

    def forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        rules = StateRules(algorithm, rates, clock)
        return self.transact(rules, lambda rules: rules.forecast(now, weight), instead=_verdict)

    def reserve(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> Decision | Awaitable[Decision]:
        stamp = item.timestamp

        def reserve(rules: StateRules) -> Decision:
            item.timestamp = stamp  # it may be done again
            return rules.reserve(item, max_wait_ms, buffer_ms)

        rules = StateRules(algorithm, rates, clock)
        return self.transact(rules, reserve, _within(max_wait_ms, limit_ms), _verdict, _cancelling)

    def reserve_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        max_wait_ms: int,
        buffer_ms: int,
        not_before: int | None,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        stamps = [item.timestamp for item in items]

        def reserve(rules: StateRules) -> list[Decision]:
            for item, stamp in zip(items, stamps):
                item.timestamp = stamp
            return rules.reserve_several(items, max_wait_ms, buffer_ms, not_before)

        rules = StateRules(algorithm, rates, clock)
        return self.transact(
            rules, reserve, _within(max_wait_ms, limit_ms), _alone, _cancelling_all
        )

    def confirm(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        reservation: Reservation,
        now: int,
        max_wait_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.confirm`. Where the record cannot be had in time, the units stay."""
        item = reservation.item
        moment = item.timestamp

        def confirm(rules: StateRules) -> Decision:
            item.timestamp = moment
            return rules.confirm(reservation, now, max_wait_ms)

        within_ms = max_wait_ms or self.last_ms
        rules = StateRules(algorithm, rates, clock)
        return self.transact(
            rules, confirm, within_ms, lambda verdict: self._unconfirmed(reservation, verdict)
        )

    def _unconfirmed(self, reservation: Reservation, verdict: Decision) -> Decision:
        del reservation
        return verdict

    def detach(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> Reservation | Awaitable[Reservation]:
        """See `StateStore.detach`. Where the record cannot be had in time, nothing changes."""
        rules = StateRules(algorithm, rates, NO_CLOCK)
        return self.transact(
            rules, lambda rules: rules.detach(reservation), self.last_ms, lambda _: reservation
        )

    def cancel(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> bool | Awaitable[bool]:
        """See `StateStore.cancel`. Where the record cannot be had in time, the units stay."""
        rules = StateRules(algorithm, rates, NO_CLOCK)
        return self.transact(
            rules, lambda rules: rules.cancel(reservation), self.last_ms, lambda _: False
        )

    def hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        hold_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> int | Awaitable[int]:
        rules = StateRules(algorithm, rates, clock)
        return self.transact(rules, lambda rules: rules.hold(now, hold_ms))

    def release_hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> bool | Awaitable[bool]:
        rules = StateRules(algorithm, rates, clock)
        return self.transact(rules, lambda rules: rules.release_hold(now))

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State | Awaitable[State]:
        return self.transact(StateRules(algorithm, rates, NO_CLOCK), lambda rules: rules.state())


def _within(max_wait_ms: int, limit_ms: int | None) -> int | None:
    """How long a caller waits for the record: as long as for room, unless he says otherwise."""
    return (max_wait_ms or None) if limit_ms is None else limit_ms


def _verdict(verdict: Decision) -> Decision:
    return verdict


def _alone(verdict: Decision) -> list[Decision]:
    return [verdict]


def _cancelling(decision: Decision) -> Callable[[StateRules], object] | None:
    return _cancelling_all([decision])


def _cancelling_all(decisions: list[Decision]) -> Callable[[StateRules], object] | None:
    """What went at once stays: it cannot be told from what others have taken."""
    reserved = [it for it in decisions if isinstance(it, Reservation) and it.wait_ms]
    return (lambda rules: [rules.cancel(it) for it in reserved]) if reserved else None


class BlockingRecordStore(RecordStore):
    """A `RecordStore` that answers at once."""

    __slots__ = ()

    is_async: bool | None = False

    if TYPE_CHECKING:

        def check(
            self,
            algorithm: StateAlgorithm,
            rates: Sequence[Rate],
            now: int,
            weight: int,
            clock: AbstractClock = NO_CLOCK,
        ) -> Decision:
            """See `StateStore.check`."""

        def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
            """See `StateStore.read`."""
