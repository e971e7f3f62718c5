"""What users subclass."""

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
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper

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
    "SlidingWindowLog",
    "State",
    "StateAlgorithm",
    "StateStore",
    "TokenBucket",
]
