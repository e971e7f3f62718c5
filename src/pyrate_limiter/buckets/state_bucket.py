"""Buckets of a few numbers per key, under the import path of 4.5.1."""

from typing import TYPE_CHECKING

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter._core.lazy import resolver
from pyrate_limiter.abstracts.algorithm import ADMITTED, GCRA, Decision, StateAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state.bucket import StateBucket
from pyrate_limiter.buckets.state.in_memory import InMemoryStateStore

if TYPE_CHECKING:
    from pyrate_limiter.buckets.multiprocess.state import MultiprocessStateStore
else:  # loads multiprocessing, on first use
    __getattr__ = resolver(
        __name__, {"MultiprocessStateStore": "pyrate_limiter.buckets.multiprocess.state"}
    )

__all__ = [
    "ADMITTED",
    "GCRA",
    "AbstractBucket",
    "AbstractClock",
    "Decision",
    "InMemoryStateStore",
    "MultiprocessStateStore",
    "Rate",
    "RateItem",
    "StateAlgorithm",
    "StateBucket",
    "StateStore",
]
