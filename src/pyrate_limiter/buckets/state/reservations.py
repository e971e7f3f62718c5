"""Claims on a state: who may go when, kept until their waiters have gone.

A state is a few numbers, from which nothing can be taken out again. So the queue keeps the state of
those who have gone, by which everybody is judged who goes, and beside it the claims. They are
played on top of it to find out where the next one fits.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort_right
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.validation import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem

_ABANDONED_MS = 2000  # so long after its moment a claim is forgotten that nobody has settled


def claims_in_line(
    items: Sequence[RateItem],
    not_before: int | None,
    claim: Callable[[RateItem, int | None], Decision],
) -> list[Decision]:
    """Claim for one after the other, none before the one in front of it, until one is refused."""
    decisions: list[Decision] = []
    for item in items:
        decision = claim(item, not_before)
        decisions.append(decision)
        if decision.failing_rate is not None:
            break
        if decision.wait_ms:
            not_before = item.timestamp
    return decisions


class Claim:
    """``weight`` units claimed for ``at`` ms; ``free`` once they were given back."""

    __slots__ = ("at", "free", "weight")

    def __init__(self, at: int, weight: int, *, free: bool = False) -> None:
        self.at: int = at
        self.weight: int = weight
        self.free: bool = free


def _moment(claim: Claim) -> int:
    return claim.at


class ClaimQueue:
    """The claims in the order of their moments. Its user holds the lock.

    What is given back in front of others stays in the queue, for whoever claims next: the others
    were told their moments.

    Args:
        gone: the state of those who have gone.
    """

    __slots__ = ("_claims", "_free", "gone", "is_played")

    def __init__(self, gone: State) -> None:
        self.gone: State = gone
        self.is_played: bool = True
        """Whether the user of the queue has the state after all claims."""
        self._claims: list[Claim] = []
        self._free: list[Claim] = []  # those of them that were given back, in order

    @property
    def newest(self) -> int:
        """The moment of the last claim, long ago if there is none."""
        return self._claims[-1].at if self._claims else BEGINNING

    def add(self, moment: int, weight: int) -> None:
        """Claim units for a moment, behind all who claim the same one."""
        place = bisect_right(self._claims, moment, key=_moment)
        if place < len(self._claims):
            self.is_played = False
        self._claims.insert(place, Claim(moment, weight))

    def has(self, moment: int, weight: int) -> bool:
        """Whether so many units are claimed for that moment."""
        return sum(claim.weight for claim in self._of(moment)) >= weight

    def _of(self, moment: int) -> list[Claim]:
        first = bisect_left(self._claims, moment, key=_moment)
        last = bisect_right(self._claims, moment, lo=first, key=_moment)
        return [claim for claim in self._claims[first:last] if not claim.free]

    def take_out(self, moment: int, weight: int) -> None:
        """Take units of a moment out. Claims of one moment share their units."""
        for claim in sorted(self._of(moment), key=lambda claim: claim.weight != weight):
            taken = min(weight, claim.weight)
            claim.weight -= taken
            weight -= taken
            if not claim.weight:
                self._claims.remove(claim)
        self._trim()
        self.is_played = False

    def _trim(self) -> None:
        """Nobody is behind what was given back last: it need not be kept."""
        while self._claims and self._claims[-1].free:
            self._free.remove(self._claims.pop())

    def give_back(self, moment: int, weight: int) -> None:
        """Free units of a moment, for others to claim."""
        self.take_out(moment, weight)
        free = Claim(moment, weight, free=True)
        insort_right(self._claims, free, key=_moment)
        insort_right(self._free, free, key=_moment)
        self._trim()

    def room(
        self, now: int, start: int, weight: int, algorithm: StateAlgorithm, rates: Sequence[Rate]
    ) -> tuple[int, Claim] | None:
        """The first moment from ``start`` on that was given back, and what was given back there.

        One that has passed may still serve ``start``. Where that is so, or somebody is late, nobody
        else may lack room for it. One that is still to come is there for others too.
        """
        late = self.is_late(now)
        for claim in [it for it in self._free if it.weight >= weight]:
            at = max(claim.at, start)
            if at == claim.at and not late:
                return at, claim
            if self._suits(now, Claim(at, weight), algorithm, rates):
                return at, claim
            if claim.at < now:
                self._forget(claim)
        return None

    def _forget(self, free: Claim) -> None:
        self._claims.remove(free)
        self._free.remove(free)

    def _suits(
        self, now: int, wanted: Claim, algorithm: StateAlgorithm, rates: Sequence[Rate]
    ) -> bool:
        state = self.gone
        for claim in sorted([*self._claims, wanted], key=_moment):
            if claim.free and claim.at <= wanted.at:
                continue
            state, decision = algorithm.step(rates, state, max(claim.at, now), claim.weight)
            if decision.failing_rate is not None:
                return False
        return True

    def use(self, free: Claim, weight: int) -> None:
        """So much of what was given back is claimed again."""
        free.weight -= weight
        if not free.weight:
            self._forget(free)
        self.is_played = False

    def fold(self, now: int) -> bool:
        """Forget the claims at the front that nobody settles; returns whether any is left."""
        done = 0
        for claim in self._claims:
            if claim.at + _ABANDONED_MS > now:
                break
            done += 1
        if done:
            del self._claims[:done]
            self._free = [claim for claim in self._claims if claim.free]
            self.is_played = False
        return bool(self._claims)

    def is_late(self, now: int) -> bool:
        """Whether somebody has not gone whose moment has passed: all the others wait for him."""
        return bool(self._claims) and self._claims[0].at < now

    def played(self, now: int, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
        """The state after all claims, each at its moment, or where it fits after that.

        Who is late goes now, for all that is known.
        """
        state = self.gone
        for claim in self._claims:
            if claim.free and claim.at < now:
                continue
            at = max(claim.at, now)
            while True:
                state, decision = algorithm.step(rates, state, at, claim.weight)
                if decision.retry_after_ms is None:
                    break
                at += max(1, decision.retry_after_ms)
        self.is_played = not self.is_late(now)
        return state

    def dump(self) -> list[Any]:
        """The queue as plain numbers."""
        claims = [(claim.at, claim.weight, claim.free) for claim in self._claims]
        return [self.gone, self.is_played, claims]

    @classmethod
    def restored(cls, numbers: Sequence[Any]) -> ClaimQueue:
        """The queue that `dump` gave."""
        gone, is_played, claims = numbers
        queue = cls(tuple(gone))
        queue.is_played = is_played
        queue._claims = [Claim(at, weight, free=free) for at, weight, free in claims]
        queue._free = [claim for claim in queue._claims if claim.free]
        return queue
