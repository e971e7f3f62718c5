"""Windows aligned to the clock, over a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.algorithms.base import LogAlgorithm
from pyrate_limiter.algorithms.sliding_window_log import admit_by_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.rates import Rate
    from pyrate_limiter.algorithms.decision import Decision


class FixedWindow(LogAlgorithm):
    """At most ``limit`` units in each window that starts at a multiple of the interval.

    Up to twice the limit may pass within one interval across a boundary: that is what a fixed
    window is. Where the boundaries lie depends on the bucket's clock; for "midnight" use a bucket
    on wall time.
    """

    def admit(self, rates: Sequence[Rate], counts: Sequence[int], weight: int) -> Decision:
        return admit_by_count(rates, counts, weight)

    def window_start(self, rate: Rate, now: int) -> int:
        """The last multiple of the interval."""
        return now - now % rate.interval

    def retry_after(self, rate: Rate, now: int, blocking_timestamp: int | None) -> int:
        """Until the next boundary; never 0."""
        del blocking_timestamp
        return rate.interval - now % rate.interval

    def blocking_offset(self, rate: Rate, weight: int) -> int | None:
        """None: all units of the window leave together."""
        del rate, weight
        return None
