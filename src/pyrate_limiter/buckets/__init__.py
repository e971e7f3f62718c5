"""The backends, each resolved on first use: importing this loads no driver."""

from typing import TYPE_CHECKING

from pyrate_limiter._lazy import resolver

if TYPE_CHECKING:
    from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
    from pyrate_limiter.buckets.in_memory_state import InMemoryStateStore
    from pyrate_limiter.buckets.redis_bucket import RedisBucket
    from pyrate_limiter.buckets.redis_state import RedisStateStore
    from pyrate_limiter.buckets.state_bucket import StateBucket

_PLACES = {
    "InMemoryBucket": "pyrate_limiter.buckets.in_memory_bucket",
    "InMemoryStateStore": "pyrate_limiter.buckets.in_memory_state",
    "RedisBucket": "pyrate_limiter.buckets.redis_bucket",
    "RedisStateStore": "pyrate_limiter.buckets.redis_state",
    "StateBucket": "pyrate_limiter.buckets.state_bucket",
}

__all__ = [
    "InMemoryBucket",
    "InMemoryStateStore",
    "RedisBucket",
    "RedisStateStore",
    "StateBucket",
]

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(__all__)
