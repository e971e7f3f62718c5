"""Limiters for the common cases, ready made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._engine.wait_options import ADAPTIVE
from pyrate_limiter._older import also_as_in_3x, places
from pyrate_limiter.abstracts.algorithm import TokenBucket
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Duration, Rate
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.buckets.state.bucket import StateBucket
from pyrate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from pyrate_limiter.buckets.sqlite.bucket import SQLiteBucket
else:  # found on first use: it loads sqlite3
    _OTHERS = {"SQLiteBucket": "pyrate_limiter.buckets.sqlite.bucket", **places(__name__)}
    __getattr__ = resolver(__name__, _OTHERS)

__all__ = [
    "LIMITER",
    "AbstractBucket",
    "Duration",
    "InMemoryBucket",
    "Limiter",
    "Rate",
    "SQLiteBucket",
    "StateBucket",
    "TokenBucket",
    "create_inmemory_limiter",
    "create_sqlite_bucket",
    "create_sqlite_limiter",
    "create_token_bucket_limiter",
    "init_global_limiter",
]

LIMITER: Limiter | None = None
"""What `init_global_limiter` made in this process."""


@also_as_in_3x
def create_inmemory_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    buffer_ms: int = ADAPTIVE,
) -> Limiter:
    """A limiter with one rate, in this process's memory."""
    return Limiter(Rate(rate_per_duration, duration), buffer_ms)


def create_sqlite_bucket(
    rates: list[Rate],
    db_path: str | None,
    table_name: str = "pyrate_limiter",
    use_file_lock: bool = False,
) -> SQLiteBucket:
    """A bucket in a table of a SQLite file; see `SQLiteBucket.init_from_file`."""
    from pyrate_limiter.buckets.sqlite.bucket import SQLiteBucket

    return SQLiteBucket.init_from_file(
        rates, table_name, db_path, create_new_table=True, use_file_lock=use_file_lock
    )


@also_as_in_3x
def create_sqlite_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    db_path: str | None = None,
    table_name: str = "rate_bucket",
    buffer_ms: int = ADAPTIVE,
    use_file_lock: bool = False,
) -> Limiter:
    """A limiter with one rate, in a table of a SQLite file; a temporary one without a path."""
    rates = [Rate(rate_per_duration, duration)]
    return Limiter(create_sqlite_bucket(rates, db_path, table_name, use_file_lock), buffer_ms)


def create_token_bucket_limiter(
    rate_per_duration: int = 3,
    duration: int | Duration = Duration.SECOND,
    burst: int | None = None,
    buffer_ms: int = ADAPTIVE,
) -> Limiter:
    """A limiter that refills steadily and lets ``burst`` units pass at once."""
    rate = Rate(rate_per_duration, duration, burst=burst)
    return Limiter(StateBucket([rate], algorithm=TokenBucket()), buffer_ms)


@also_as_in_3x
def init_global_limiter(bucket: AbstractBucket, buffer_ms: int = ADAPTIVE) -> None:
    """Set `LIMITER` in this process: an initializer for ``ProcessPoolExecutor``."""
    global LIMITER  # noqa: PLW0603 - being global is its purpose
    LIMITER = Limiter(bucket, buffer_ms)
