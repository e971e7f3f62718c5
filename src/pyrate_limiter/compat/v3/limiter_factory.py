"""Limiters of 3.x for the common cases, ready made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter import (
    AbstractBucket,
    BucketAsyncWrapper,
    Duration,
    Rate,
    SQLiteBucket,
)
from pyrate_limiter import limiter_factory as current
from pyrate_limiter.compat.v3.buckets import InMemoryBucket
from pyrate_limiter.compat.v3.limiter import Limiter
from pyrate_limiter.limiter_factory import create_sqlite_bucket

__all__ = [
    "LIMITER",
    "AbstractBucket",
    "BucketAsyncWrapper",
    "Duration",
    "InMemoryBucket",
    "Limiter",
    "Rate",
    "SQLiteBucket",
    "create_inmemory_limiter",
    "create_sqlite_bucket",
    "create_sqlite_limiter",
    "init_global_limiter",
]

if TYPE_CHECKING:
    LIMITER: Limiter | None
else:

    def __getattr__(name: str) -> object:
        if name == "LIMITER":
            return current.LIMITER
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)


def create_inmemory_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    max_delay: float | Duration = Duration.DAY,
    buffer_ms: int = 50,
    async_wrapper: bool = False,
) -> Limiter:
    """A limiter with one rate, in this process's memory, that waits and answers False."""
    bucket = InMemoryBucket([Rate(rate_per_duration, duration)])
    return _waiting(bucket, max_delay, buffer_ms, async_wrapper)


def create_sqlite_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    db_path: str | None = None,
    table_name: str = "rate_bucket",
    max_delay: float | Duration = Duration.DAY,
    buffer_ms: int = 50,
    use_file_lock: bool = False,
    async_wrapper: bool = False,
) -> Limiter:
    """A limiter with one rate, in a table of a SQLite file, that waits and answers False."""
    rates = [Rate(rate_per_duration, duration)]
    bucket = create_sqlite_bucket(rates, db_path, table_name, use_file_lock)
    return _waiting(bucket, max_delay, buffer_ms, async_wrapper)


def init_global_limiter(
    bucket: AbstractBucket,
    max_delay: float | Duration = Duration.HOUR,
    raise_when_fail: bool = False,
    retry_until_max_delay: bool = True,
    buffer_ms: int = 50,
) -> None:
    """Set ``LIMITER`` in this process: an initializer for ``ProcessPoolExecutor``."""
    current.LIMITER = Limiter(
        bucket,
        raise_when_fail=raise_when_fail,
        max_delay=max_delay,
        retry_until_max_delay=retry_until_max_delay,
        buffer_ms=buffer_ms,
    )


def _waiting(
    bucket: AbstractBucket, max_delay: float | Duration, buffer_ms: int, async_wrapper: bool
) -> Limiter:
    return Limiter(
        BucketAsyncWrapper(bucket) if async_wrapper else bucket,
        raise_when_fail=False,
        max_delay=max_delay,
        retry_until_max_delay=True,
        buffer_ms=buffer_ms,
    )
