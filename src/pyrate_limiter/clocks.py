"""Where the time comes from. Every clock answers whole milliseconds."""

from typing import TYPE_CHECKING

from pyrate_limiter._core.clocks import (
    AbstractClock,
    MonotonicAsyncClock,
    MonotonicClock,
    WallClock,
)
from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._older import places

if TYPE_CHECKING:
    from pyrate_limiter.buckets.postgres.clock import PostgresClock
else:  # what needs more is found on first use
    _OTHERS = {"PostgresClock": "pyrate_limiter.buckets.postgres.clock", **places(__name__)}
    __getattr__ = resolver(__name__, _OTHERS)

__all__ = [
    "AbstractClock",
    "MonotonicAsyncClock",
    "MonotonicClock",
    "PostgresClock",
    "WallClock",
]
