"""The log in this process's memory, under the import path of 4.5.1."""

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._older import places
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, LogAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, places(__name__))

__all__ = [
    "ADMITTED",
    "AbstractBucket",
    "Decision",
    "InMemoryBucket",
    "LogAlgorithm",
    "Rate",
    "RateItem",
]
