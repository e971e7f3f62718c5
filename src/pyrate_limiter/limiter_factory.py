"""Limiters for the common cases, ready made."""

from __future__ import annotations

from pyrate_limiter.abstracts.algorithm import TokenBucket
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Duration, Rate
from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
from pyrate_limiter.buckets.state_bucket import StateBucket
from pyrate_limiter.limiter import _ADAPTIVE, Limiter

__all__ = [
    "LIMITER",
    "AbstractBucket",
    "Duration",
    "InMemoryBucket",
    "Limiter",
    "Rate",
    "StateBucket",
    "TokenBucket",
    "create_inmemory_limiter",
    "create_token_bucket_limiter",
    "init_global_limiter",
]

LIMITER: Limiter | None = None
"""What `init_global_limiter` made in this process."""


def create_inmemory_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    buffer_ms: int = _ADAPTIVE,
) -> Limiter:
    """A limiter with one rate, in this process's memory."""
    return Limiter(Rate(rate_per_duration, duration), buffer_ms)


def create_token_bucket_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    burst: int | None = None,
    buffer_ms: int = _ADAPTIVE,
) -> Limiter:
    """A limiter that refills steadily and lets ``burst`` units pass at once."""
    rate = Rate(rate_per_duration, duration, burst=burst)
    return Limiter(StateBucket([rate], algorithm=TokenBucket()), buffer_ms)


def init_global_limiter(bucket: AbstractBucket, buffer_ms: int = _ADAPTIVE) -> None:
    """Set `LIMITER` in this process: an initializer for ``ProcessPoolExecutor``."""
    global LIMITER  # noqa: PLW0603 - being global is its purpose
    LIMITER = Limiter(bucket, buffer_ms)
