"""How many passed in the fullest window, and how many may."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrate_limiter.abstracts.rate import Rate

_MS = 1_000_000  # nanoseconds


def most_in_any_window(times_ns: Iterable[int], interval_ms: int) -> int:
    """The largest number of moments within one interval, wherever it starts, both ends included."""
    ordered = sorted(times_ns)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] > interval_ms * _MS:
            first += 1
        most = max(most, last - first + 1)
    return most


def bound(rate: Rate, algorithm: str) -> int:
    """The most that the algorithm lets pass in any interval of the rate."""
    if algorithm == "fixed-window":
        return 2 * rate.limit
    if algorithm == "sliding-window":
        return rate.limit
    # A burst, and what flows in during an interval, on a clock that reads whole milliseconds.
    return rate.burst + (rate.interval + 1) * 1000 // rate.emission_us


def explanation(rates: Iterable[Rate], algorithm: str) -> str | None:
    """Why more than the limit may pass, where that is so."""
    if algorithm == "sliding-window":
        return None
    if algorithm == "fixed-window":
        return (
            "A fixed window holds its limit from one tick of the clock to the next. "
            "A window that lies across a tick may see up to twice the limit."
        )
    bursts = ", ".join(str(rate.burst) for rate in rates)
    return (
        f"GCRA and the token bucket let a burst ({bursts}) pass at once and refill meanwhile. "
        "A window may see the burst and one refill."
    )
