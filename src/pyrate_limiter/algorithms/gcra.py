"""The generic cell rate algorithm, and the token bucket that it is equivalent to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.files import text_of
from pyrate_limiter.algorithms.base import State, StateAlgorithm
from pyrate_limiter.algorithms.decision import ADMITTED, Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.rates import Rate

_US = 1000  # microseconds in a millisecond


class GCRA(StateAlgorithm):
    """Units spaced ``interval / limit`` apart, of which ``burst`` may be taken ahead.

    The state is one integer per rate: the theoretical arrival time (TAT), in microseconds, at
    which the bucket would be empty again. A unit moves it on by one emission interval; an item
    conforms while the TAT is not more than ``burst`` emission intervals ahead of now. Where
    programs with different numbers of rates share a state, as during a deploy, each judges by its
    own rates and leaves the integers of the others as they are.

    Source: ITU-T I.371 (the virtual scheduling algorithm), in the form that Stripe's and Bucket4j's
    limiters use.
    """

    def max_weight(self, rate: Rate) -> int:
        """``burst``: a heavier item never conforms."""
        return rate.burst

    def initial(self, rates: Sequence[Rate]) -> State:
        """Nothing owed under any rate."""
        return (0,) * len(rates)

    def step(
        self, rates: Sequence[Rate], state: State, now: int, weight: int
    ) -> tuple[State, Decision]:
        """All rates are judged before any is charged."""
        if len(state) != len(rates):
            state = _completed(rates, state)
            own, decision = self.step(rates, state[: len(rates)], now, weight)
            return own + state[len(rates) :], decision
        now_us = now * _US
        charged = []
        for rate, tat in zip(rates, state):
            emission = rate.emission_us
            owed = (max(now_us, tat)) + weight * emission
            if owed - now_us > rate.burst * emission:
                return state, _refusal(rates, state, now_us, weight)
            charged.append(owed)
        return tuple(charged), ADMITTED

    def remaining_and_reset(
        self, rates: Sequence[Rate], state: State, now: int
    ) -> tuple[int | None, int | None]:
        now_us = now * _US
        owed = [max(0, tat - now_us) for tat in _completed(rates, state)]
        remaining = min(
            rate.burst - -(-debt // rate.emission_us) for rate, debt in zip(rates, owed)
        )
        return max(0, int(remaining)), -(-int(max(owed)) // _US)

    def consumed(self, rates: Sequence[Rate], state: State, now: int) -> int:
        """Units owed under the rate that is owed most, rounded up."""
        now_us = now * _US
        return max(
            int(-(-max(0, tat - now_us) // rate.emission_us))
            for rate, tat in zip(rates, _completed(rates, state))
        )

    def decode(self, values: Sequence[str | bytes | float]) -> State:
        """Whole microseconds."""
        return tuple(int(value) for value in values)

    def redis_script(self) -> str:
        """The script beside this file; it says what it takes and gives."""
        return text_of("algorithms", "gcra.lua")

    def redis_args(self, rates: Sequence[Rate]) -> list[int]:
        """``[emission_us, burst, ...]``, two for each rate."""
        return [number for rate in rates for number in (rate.emission_us, rate.burst)]


def _completed(rates: Sequence[Rate], state: State) -> State:
    """The state of a program with fewer rates, with nothing owed under the others."""
    return (*state, *(0,) * (len(rates) - len(state)))


def _refusal(rates: Sequence[Rate], state: State, now_us: int, weight: int) -> Decision:
    """The first rate that does not conform, and the longest wait, rounded up to whole ms."""
    failing, wait_us = None, 0
    for rate, tat in zip(rates, state):
        if weight > rate.burst:
            return Decision(rate)
        ahead = (weight - rate.burst) * rate.emission_us
        early_us = max(int(tat), now_us) + ahead - now_us
        if early_us > 0:
            failing = failing or rate
            wait_us = max(wait_us, early_us)
    return Decision(failing, -(-wait_us // _US))


class TokenBucket(GCRA):
    """A bucket of ``burst`` tokens, refilled at ``limit / interval``.

    It admits exactly what `GCRA` admits: the tokens missing from the bucket are the units owed.
    """
