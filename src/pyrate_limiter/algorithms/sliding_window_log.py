"""The exact sliding window, over a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.algorithms.base import LogAlgorithm
from pyrate_limiter.algorithms.decision import ADMITTED, Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.rates import Rate


def frees_at(stored_ms: int, interval_ms: int) -> int:
    """The first millisecond at which a unit stored at ``stored_ms`` no longer counts.

    The window's lower edge is inclusive: a unit exactly one interval old still counts.
    """
    return stored_ms + interval_ms + 1


def admit_by_count(rates: Sequence[Rate], counts: Sequence[int], weight: int) -> Decision:
    """Admit where every rate has room, else name the first that is short."""
    for rate, count in zip(rates, counts):
        if count + weight > rate.limit:
            return Decision(rate)
    return ADMITTED


class SlidingWindowLog(LogAlgorithm):
    """Never more than ``limit`` units in any window of ``interval`` ms, wherever it starts."""

    def admit(self, rates: Sequence[Rate], counts: Sequence[int], weight: int) -> Decision:
        return admit_by_count(rates, counts, weight)

    def window_start(self, rate: Rate, now: int) -> int:
        """One interval back; a unit on the edge counts."""
        return now - rate.interval

    def retry_after(self, rate: Rate, now: int, blocking_timestamp: int | None) -> int:
        """Until the blocking unit has left; 0 if nothing is stored at its place."""
        if blocking_timestamp is None:
            return 0
        return max(0, frees_at(blocking_timestamp, rate.interval) - now)
