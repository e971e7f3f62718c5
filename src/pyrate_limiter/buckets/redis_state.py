"""A state in Redis, under the import path of 4.5.1."""

from pyrate_limiter._core.clocks import WallClock
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.redis.state import RedisStateStore

__all__ = [
    "ADMITTED",
    "Decision",
    "Rate",
    "RedisStateStore",
    "StateAlgorithm",
    "StateStore",
    "WallClock",
]
