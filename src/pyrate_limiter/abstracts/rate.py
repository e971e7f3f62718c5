"""Durations, rates, and the items that are limited by them."""

from pyrate_limiter._core.rates import Duration, Milliseconds, Rate, RateItem

__all__ = ["Duration", "Milliseconds", "Rate", "RateItem"]
