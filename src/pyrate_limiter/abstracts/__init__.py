"""What users subclass."""

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._older import places
from pyrate_limiter.abstracts.algorithm import (
    GCRA,
    Algorithm,
    Decision,
    FixedWindow,
    LogAlgorithm,
    SlidingWindowLog,
    State,
    StateAlgorithm,
    TokenBucket,
)
from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory
from pyrate_limiter.abstracts.rate import Duration, Rate, RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, places(__name__))

__all__ = [
    "GCRA",
    "AbstractBucket",
    "Algorithm",
    "BucketAsyncWrapper",
    "BucketFactory",
    "Decision",
    "Duration",
    "FixedWindow",
    "LogAlgorithm",
    "Rate",
    "RateItem",
    "Reservation",
    "SlidingWindowLog",
    "State",
    "StateAlgorithm",
    "StateStore",
    "TokenBucket",
]
