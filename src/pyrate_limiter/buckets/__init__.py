"""The backends, each resolved on first use: importing this loads no driver."""

from pyrate_limiter._lazy import resolver

_PLACES = {
    "InMemoryBucket": "pyrate_limiter.buckets.in_memory_bucket",
    "InMemoryStateStore": "pyrate_limiter.buckets.in_memory_state",
    "StateBucket": "pyrate_limiter.buckets.state_bucket",
}

__all__ = ["InMemoryBucket", "InMemoryStateStore", "StateBucket"]

__getattr__ = resolver(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(__all__)
