"""The place of `AbstractClock` in 3.x."""

from pyrate_limiter._core.clocks import AbstractClock

__all__ = ["AbstractClock"]
