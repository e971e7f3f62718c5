"""A moment that a shared bucket holds for a wait queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import RateItem


class Reservation:
    """Units that the bucket holds for the queue, and for nobody in particular.

    Args:
        item: as the bucket has stored it.
        decision: the bucket's.
        due: when they may be used, on the clock of ``time.monotonic``; long ago where the bucket
            has admitted them already.
        made: when they were stored, on that clock.
    """

    __slots__ = ("decision", "due", "item", "made")

    def __init__(self, item: RateItem, decision: Decision, due: float, made: float) -> None:
        self.item = item
        self.decision = decision
        self.due = due
        self.made = made

    def __lt__(self, other: Reservation) -> bool:
        return self.due < other.due
