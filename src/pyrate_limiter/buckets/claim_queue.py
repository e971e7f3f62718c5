"""Claims on a state: who may go when, kept until their waiters have gone.

A state is a few numbers, from which nothing can be taken out again. So the queue keeps the state
from before the first open claim, and plays the claims again where one of them changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.checks import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate

_ABANDONED_MS = 60_000  # a claim this much overdue counts as used


class Claim:
    """``weight`` units claimed for ``key`` ms; ``at`` is where they count by now."""

    __slots__ = ("at", "gone", "key", "weight")

    def __init__(self, key: int, weight: int, *, gone: bool) -> None:
        self.key: int = key
        self.at: int = key
        self.weight: int = weight
        self.gone: bool = gone


class ClaimQueue:
    """The open claims in the order of their moments. Its user holds the lock."""

    __slots__ = ("_before", "_claims", "_disturbed")

    def __init__(self, before: State) -> None:
        self._before = before
        self._claims: list[Claim] = []
        self._disturbed = False

    @property
    def newest(self) -> int:
        """The moment of the last claim, long ago if there is none."""
        return self._claims[-1].at if self._claims else BEGINNING

    def add(self, moment: int, weight: int, *, gone: bool) -> None:
        """Append a claim, or units that go at once."""
        self._claims.append(Claim(moment, weight, gone=gone))

    def find(self, key: int, weight: int) -> Claim | None:
        """The oldest open claim of that moment and weight."""
        for claim in self._claims:
            if claim.key == key and claim.weight == weight and not claim.gone:
                return claim
        return None

    def go(
        self, claim: Claim, now: int, algorithm: StateAlgorithm, rates: Sequence[Rate]
    ) -> State | None:
        """Its waiter wants to go at ``now``: mark the claim as gone, or move it to a later moment.

        Returns:
            The new state of the whole queue where that has changed.
        """
        state = None
        if now > claim.at or self._disturbed:
            claim.at = max(claim.at, now)
            self._disturbed = True
            state = self._replay(algorithm, rates)
        # A waiter that wakes early is taken at its word; one that was pushed back is not.
        claim.gone = claim.at <= max(now, claim.key)
        return state

    def drop(self, claim: Claim, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
        """Take a claim out; returns the state without it."""
        self._claims.remove(claim)
        return self._replay(algorithm, rates)

    def fold(self, now: int, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> bool:
        """Forget the claims at the front that are done; returns whether any is left."""
        done = 0
        for claim in self._claims:
            if not claim.gone and claim.at + _ABANDONED_MS > now:
                break
            self._before = _charged(claim, self._before, algorithm, rates)[0]
            done += 1
        del self._claims[:done]
        return bool(self._claims)

    def _replay(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
        """The state after all claims, each moved to where it fits behind those before it."""
        # Of one moment, those who have gone come first: nobody can push them back any more.
        self._claims.sort(key=lambda claim: (claim.at, not claim.gone))
        state = self._before
        for claim in self._claims:
            state, at = _charged(claim, state, algorithm, rates)
            if not claim.gone:
                claim.at = at
        return state

    def dump(self) -> list[Any]:
        """The queue as plain numbers."""
        claims = [(claim.key, claim.at, claim.weight, claim.gone) for claim in self._claims]
        return [self._before, self._disturbed, claims]

    @classmethod
    def restored(cls, numbers: Sequence[Any]) -> ClaimQueue:
        """The queue that `dump` gave."""
        before, disturbed, claims = numbers
        queue = cls(tuple(before))
        queue._disturbed = disturbed
        for key, at, weight, gone in claims:
            claim = Claim(key, weight, gone=gone)
            claim.at = at
            queue._claims.append(claim)
        return queue


def _charged(
    claim: Claim, state: State, algorithm: StateAlgorithm, rates: Sequence[Rate]
) -> tuple[State, int]:
    """The state with the claim in it, and the moment from ``claim.at`` on at which it fits."""
    at = claim.at
    while True:
        after, decision = algorithm.step(rates, state, at, claim.weight)
        if decision.retry_after_ms is None:
            return after, at
        at += max(1, decision.retry_after_ms)
