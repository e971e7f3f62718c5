"""The exceptions of 3.x."""

from pyrate_limiter.compat.exceptions import (
    BucketFullException,
    LimiterDelayException,
    Rate,
    RateItem,
)

__all__ = ["BucketFullException", "LimiterDelayException", "Rate", "RateItem"]
