"""What users subclass to keep the state of a `StateAlgorithm` somewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.clocks import AbstractClock, MonotonicClock
from pyrate_limiter.abstracts.algorithm import Decision, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate
from pyrate_limiter.errors import CannotHold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter.abstracts.algorithm import State
    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.abstracts.reservation import Reservation

__all__ = [
    "AbstractClock",
    "Decision",
    "MonotonicClock",
    "Rate",
    "StateAlgorithm",
    "StateStore",
]


class StateStore(ABC):
    """Keeps one state, and steps it atomically."""

    __slots__ = ()

    blocks: bool = False
    """Whether a call may wait for a disk, a socket or a lock, see `AbstractBucket.blocks`."""

    @property
    def store_id(self) -> object:
        """See `AbstractBucket.store_id`."""
        return id(self)

    is_async: bool | None = False
    """Whether the methods have to be awaited; None: what they return tells."""

    answers_in_order: bool = False
    """See `AbstractBucket.answers_in_order`."""

    default_clock: AbstractClock = MonotonicClock()
    """The clock of a `StateBucket` on this store for which none was chosen."""

    @abstractmethod
    def check(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision | Awaitable[Decision]:
        """One `StateAlgorithm.step` at ``now`` ms; an admitted one is stored."""

    @abstractmethod
    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State | Awaitable[State]:
        """The state as it is, the initial one if nothing is stored."""

    @abstractmethod
    def reset(self) -> Awaitable[None] | None:
        """Forget the state."""

    def close(self) -> None:
        """Release what the store opened; may be called again."""
        return

    reserves: bool = False
    """Whether the store has the methods below; set for each class by what it defines. A bucket on
    a store without them tries again after each wait."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        lineage = cls.__mro__
        check, reserve = (
            next(place for place, kind in enumerate(lineage) if name in vars(kind))
            for name in ("check", "reserve")
        )
        # A subclass with a `check` of its own knows nothing of reservations, as in 4.5.1.
        cls.reserves = reserve <= check and lineage[reserve] is not StateStore

    def reserve(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int,
        clock: AbstractClock,
        limit_ms: int | None = None,
    ) -> Decision | Awaitable[Decision]:
        """Take the item's units now, or reserve the first moment within ``max_wait_ms`` for them.

        One atomic step, at the time of the item's timestamp; or at that of the store's own clock,
        read in the same step, where ``clock`` is its `default_clock`.

        Args:
            algorithm: the policy.
            rates: the limits.
            item: its ``timestamp`` becomes the moment that is reserved.
            max_wait_ms: how long its caller is willing to wait.
            buffer_ms: kept clear after the earliest moment.
            clock: the bucket's. A store may read it, in the same step, where timestamps are not in
                order. The built-in stores do without it when they are called by hand.
            limit_ms: how long the call itself may take; None is as long as the caller waits.

        Returns:
            A `Reservation` where the units are taken or reserved; otherwise nothing is stored.
            While the store's server is away, an outage policy may also admit without one.
        """
        raise NotImplementedError

    def reserve_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        max_wait_ms: int,
        buffer_ms: int,
        not_before: int | None,
        clock: AbstractClock,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """`reserve` for the first waiters of a queue, in one step.

        This default reserves for the first alone.

        Args:
            algorithm: the policy.
            rates: the limits.
            items: in their order, at least one.
            max_wait_ms: as in `reserve`, for each of them.
            buffer_ms: as in `reserve`.
            not_before: the last moment that the queue has reserved already; None: it has none.
            clock: as in `reserve`.
            limit_ms: as in `reserve`.

        Returns:
            The answers for the items from the first on. It ends with the first refusal, and may end
            earlier. No moment is before that of the item ahead.
        """
        del not_before
        terms = (max_wait_ms, buffer_ms, clock, limit_ms)
        return then(self.reserve(algorithm, rates, items[0], *terms), lambda first: [first])

    def confirm(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        reservation: Reservation,
        now: int,
        max_wait_ms: int,
        clock: AbstractClock,
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.confirm`."""
        raise NotImplementedError

    def detach(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> Reservation | Awaitable[Reservation]:
        """See `AbstractBucket.detach`. This default lets others wait for the holder for a while."""
        del algorithm, rates
        return reservation

    def cancel(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> bool | Awaitable[bool]:
        """See `AbstractBucket.cancel`."""
        raise NotImplementedError

    def forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock,
    ) -> Decision | Awaitable[Decision]:
        """What `reserve` would answer to somebody who does not wait; nothing is stored."""
        raise NotImplementedError

    def hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        hold_ms: int,
        clock: AbstractClock,
    ) -> int | Awaitable[int]:
        """See `AbstractBucket.hold`. This default has no such thing."""
        del algorithm, rates, now, hold_ms, clock
        raise CannotHold(self)

    def release_hold(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, clock: AbstractClock
    ) -> bool | Awaitable[bool]:
        """See `AbstractBucket.release_hold`. This default has no such thing."""
        del algorithm, rates, now, clock
        raise CannotHold(self)

    def ahead_ms(self) -> int:
        """How many ms the time of the store, that of its reservations, is ahead of the clock."""
        return 0

    @property
    def retired(self) -> bool:
        """Whether `retire` has succeeded, and the store refuses all use."""
        return False

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """See `StateBucket.retire`."""
        del algorithm, rates, now
        return False
