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
    """Whether the methods have to be awaited; None is "look at what they return"."""

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

    keeps_claims: bool = False
    """Whether the store has the methods below. A bucket on a store that has not tries again after
    each wait."""

    bounds_claims: bool = False
    """Whether `claim` and `claim_at` take one more argument: how many ms they may take, also where
    there is no patience; None is for as long as that lasts."""

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.claim`."""
        raise NotImplementedError

    def claim_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None,
        *,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """See `AbstractBucket.claim_several`. This default claims for the first alone."""
        del not_before, limit_ms
        decision = self.claim(algorithm, rates, items[0], patience_ms, buffer_ms)
        return then(decision, lambda first: [first])

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.settle`."""
        raise NotImplementedError

    def release(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem
    ) -> bool | Awaitable[bool]:
        """See `AbstractBucket.release`."""
        raise NotImplementedError

    def forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.check`."""
        raise NotImplementedError

    def hold(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int | None, hold_ms: int
    ) -> int | Awaitable[int]:
        """See `AbstractBucket.hold`. This default has no such thing."""
        del algorithm, rates, now, hold_ms
        raise CannotHold(self)

    def release_hold(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int | None
    ) -> bool | Awaitable[bool]:
        """See `AbstractBucket.release_hold`. This default has no such thing."""
        del algorithm, rates, now
        raise CannotHold(self)

    keeps_time: bool = False
    """Whether the store can judge claims by a clock of its own, read in the same step. It then has
    `claim_at`, `settle_at` and `seconds_left`, and a bucket on its `default_clock` uses them. For
    `hold` and `release_hold` such a bucket gives None as ``now``."""

    def claim_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Decision | Awaitable[Decision]:
        """`claim` by the store's clock."""
        raise NotImplementedError

    def settle_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem, patience_ms: int
    ) -> Decision | Awaitable[Decision]:
        """`settle` by the store's clock."""
        raise NotImplementedError

    def seconds_left(self, item: RateItem) -> float:
        """How long the holder of a claim by the store's clock has yet to sleep."""
        raise NotImplementedError

    asks_clock: bool = False
    """Whether `check`, `claim`, `claim_several`, `settle`, `forecast`, `hold` and `release_hold`
    take one more argument, the bucket's clock: to be asked, in the same step, where stamps are not
    in order."""

    def ahead_ms(self) -> int:
        """How much the time of the store, by which claims are stamped, is ahead of the clock."""
        return 0

    @property
    def retired(self) -> bool:
        """Whether `retire` has succeeded, and the store refuses all use."""
        return False

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """See `StateBucket.retire`."""
        del algorithm, rates, now
        return False
