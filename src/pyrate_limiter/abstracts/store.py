"""What users subclass to keep the state of a `StateAlgorithm` somewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pyrate_limiter.abstracts.algorithm import Decision, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate
from pyrate_limiter.clocks import AbstractClock, MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter.abstracts.algorithm import State

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

    is_async: bool | None = False
    """Whether the methods have to be awaited; None is "look at what they return"."""

    default_clock: AbstractClock = MonotonicClock()
    """The clock of a `StateBucket` on this store for which none was chosen."""

    @abstractmethod
    def check(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision | Awaitable[Decision]:
        """One `StateAlgorithm.step` at ``now`` ms; an admitted one is stored."""

    @abstractmethod
    def read(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate]
    ) -> State | Awaitable[State]:
        """The state as it is, the initial one if nothing is stored."""

    @abstractmethod
    def reset(self) -> None | Awaitable[None]:
        """Forget the state."""

    def close(self) -> None:
        """Release what the store opened; may be called again."""
        return
