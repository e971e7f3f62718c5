"""The log shared by processes, under the import path of 4.5.1."""

from pyrate_limiter._core.clocks import MonotonicClock
from pyrate_limiter.abstracts.algorithm import LogAlgorithm
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.buckets.multiprocess.bucket import MultiprocessBucket

__all__ = [
    "InMemoryBucket",
    "LogAlgorithm",
    "MonotonicClock",
    "MultiprocessBucket",
    "Rate",
    "RateItem",
]
