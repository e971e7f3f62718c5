"""Claims on a state: who may go when, kept until their waiters have gone.

A state is a few numbers, from which nothing can be taken out again. So the queue keeps the state
from before the first open claim, and plays the claims again where one of them changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate

_ABANDONED_MS = 60_000  # a claim this much overdue counts as used


class Claim:
    """``weight`` units claimed for ``key`` ms; ``at`` is where they count by now."""

    __slots__ = ("at", "gone", "key", "weight")

    def __init__(self, key: int, weight: int, *, gone: bool) -> None:
        self.key = self.at = key
        self.weight = weight
        self.gone = gone


class ClaimQueue:
    """The open claims in the order of their moments. Its user holds the lock."""

    __slots__ = ("_algorithm", "_before", "_claims", "_disturbed", "_rates")

    def __init__(self, algorithm: StateAlgorithm, rates: Sequence[Rate], state: State) -> None:
        self._algorithm = algorithm
        self._rates = rates
        self._before = state
        self._claims: list[Claim] = []
        self._disturbed = False

    @property
    def newest(self) -> int:
        """The moment of the last claim; there is one."""
        return self._claims[-1].at

    def add(self, moment: int, weight: int, *, gone: bool) -> None:
        """Append a claim, or units that go at once."""
        self._claims.append(Claim(moment, weight, gone=gone))

    def find(self, key: int, weight: int) -> Claim | None:
        """The oldest open claim of that moment and weight."""
        for claim in self._claims:
            if claim.key == key and claim.weight == weight and not claim.gone:
                return claim
        return None

    def go(self, claim: Claim, now: int) -> State | None:
        """Its waiter wants to go at ``now``: mark the claim as gone, or move it to a later moment.

        Returns:
            The new state of the whole queue where that has changed.
        """
        state = None
        planned = claim.at
        if now > planned or self._disturbed:
            claim.at = max(planned, now)
            self._disturbed = True
            state = self.replay()
        # A waiter that wakes early is taken at its word; one that was pushed back is not.
        claim.gone = claim.at <= max(now, claim.key)
        return state

    def drop(self, claim: Claim) -> State:
        """Take a claim out; returns the state without it."""
        self._claims.remove(claim)
        return self.replay()

    def replay(self) -> State:
        """The state after all claims, each moved to where it fits behind those before it."""
        self._claims.sort(key=lambda claim: claim.at)
        state = self._before
        for claim in self._claims:
            at = claim.at
            after, decision = self._algorithm.step(self._rates, state, at, claim.weight)
            while decision.retry_after_ms is not None:
                at += max(1, decision.retry_after_ms)
                after, decision = self._algorithm.step(self._rates, state, at, claim.weight)
            if not claim.gone:
                claim.at = at
            state = after
        return state

    def fold(self, now: int) -> bool:
        """Forget the claims at the front that are done; returns whether any is left."""
        done = 0
        for claim in self._claims:
            if not claim.gone and claim.at + _ABANDONED_MS > now:
                break
            self._before, _ = self._algorithm.step(
                self._rates, self._before, claim.at, claim.weight
            )
            done += 1
        del self._claims[:done]
        return bool(self._claims)
