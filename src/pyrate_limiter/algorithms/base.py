"""What a policy has to answer: over a log of units, or over a few numbers per key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Tuple, Union  # noqa: UP035 - see State

from pyrate_limiter.algorithms.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter._core.rates import Rate

State = Tuple[Union[int, float], ...]  # noqa: UP006, UP007 - a name of 4.5.1, and a value at run time
"""What a `StateAlgorithm` keeps per key: a small tuple of numbers."""


class Algorithm(ABC):  # noqa: B024 - its two kinds have nothing abstract in common
    """A policy: stateless, shared between buckets and threads."""

    def max_weight(self, rate: Rate) -> int:
        """The heaviest item that ``rate`` can ever admit."""
        return rate.limit


class LogAlgorithm(Algorithm):
    """A policy over a log of units, each with the time at which it was admitted."""

    @abstractmethod
    def admit(self, rates: Sequence[Rate], counts: Sequence[int], weight: int) -> Decision:
        """Whether ``weight`` more units fit beside ``counts`` units in each rate's window."""

    @abstractmethod
    def window_start(self, rate: Rate, now: int) -> int:
        """The oldest timestamp, in ms, that still counts at ``now``."""

    @abstractmethod
    def retry_after(self, rate: Rate, now: int, blocking_timestamp: int | None) -> int:
        """Milliseconds after ``now`` until the unit of ``blocking_timestamp`` no longer counts."""

    def blocking_offset(self, rate: Rate, weight: int) -> int | None:
        """The unit that must leave before ``weight`` fits, counted in places from the newest.

        It is the one ``limit - weight`` places away: once it has left, at most ``limit - weight``
        units are in the window. None: no single unit decides.
        """
        return rate.limit - weight

    def leak_bound(self, rates: Sequence[Rate], now: int) -> int:
        """The oldest timestamp that any of the rates still looks at."""
        return min(self.window_start(rate, now) for rate in rates)

    def decide(
        self,
        rates: Sequence[Rate],
        counts: Sequence[int],
        weight: int,
        now: int,
        peek_timestamp: Callable[[int], int | None],
    ) -> Decision:
        """Admit, or refuse and say how long the first rate that is short will refuse.

        Args:
            rates: ordered by interval.
            counts: units in each rate's window.
            weight: units asked for.
            now: ms on the bucket's clock.
            peek_timestamp: gives the timestamp of the unit so many places from the newest. Not
                called when the item is admitted, nor when it can never fit.
        """
        decision = self.admit(rates, counts, weight)
        rate = decision.failing_rate
        if rate is None or weight > self.max_weight(rate):
            return decision
        offset = self.blocking_offset(rate, weight)
        blocking = None if offset is None else peek_timestamp(offset)
        return Decision(rate, self.retry_after(rate, now, blocking))


class StateAlgorithm(Algorithm):
    """A policy over a small tuple of numbers per key."""

    @abstractmethod
    def initial(self, rates: Sequence[Rate]) -> State:
        """The state of a key that was never used."""

    @abstractmethod
    def step(
        self, rates: Sequence[Rate], state: State, now: int, weight: int
    ) -> tuple[State, Decision]:
        """Judge ``weight`` units at ``now`` ms.

        Returns:
            The new state and ``ADMITTED`` itself, or the state as it was and a refusal.
        """

    def consumed(self, rates: Sequence[Rate], state: State, now: int) -> int:
        """How many units are owed at ``now``, under the rate that is owed most."""
        del rates, state, now
        return 0

    def remaining_and_reset(
        self, rates: Sequence[Rate], state: State, now: int
    ) -> tuple[int | None, int | None]:
        """Units still free at ``now``, and ms until nothing is owed; None is "cannot say"."""
        del rates, state, now
        return None, None

    def decode(self, values: Sequence[str | bytes | float]) -> State:
        """Read a state back from a store that keeps text."""
        return tuple(float(value) for value in values)

    def redis_script(self) -> str | None:
        """The Lua script that does `step` inside Redis; None if there is none."""
        return None

    def redis_args(self, rates: Sequence[Rate]) -> list[int]:
        """The script's arguments that depend on the rates."""
        del rates
        return []
