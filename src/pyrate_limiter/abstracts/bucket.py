"""What users subclass: a bucket that limits, and a factory that routes items to buckets."""

from pyrate_limiter._core.clocks import AbstractClock, MonotonicClock
from pyrate_limiter._core.leaker import Leaker
from pyrate_limiter.abstracts.abstract_bucket import AbstractBucket
from pyrate_limiter.abstracts.algorithm import Decision, LogAlgorithm, SlidingWindowLog
from pyrate_limiter.abstracts.bucket_factory import BucketFactory
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.utils import enforce_rate_list

__all__ = [
    "AbstractBucket",
    "AbstractClock",
    "BucketFactory",
    "Decision",
    "Leaker",
    "LogAlgorithm",
    "MonotonicClock",
    "Rate",
    "RateItem",
    "SlidingWindowLog",
    "enforce_rate_list",
]
