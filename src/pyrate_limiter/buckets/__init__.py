"""The backends, each resolved on first use: importing this loads no driver."""

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver

if TYPE_CHECKING:
    from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
    from pyrate_limiter.buckets.mp_bucket import MultiprocessBucket
    from pyrate_limiter.buckets.multiprocess.state import MultiprocessStateStore
    from pyrate_limiter.buckets.postgres import PgQueries, PostgresBucket, PostgresKeys
    from pyrate_limiter.buckets.postgres.state import PostgresStateStore
    from pyrate_limiter.buckets.redis_bucket import RedisBucket
    from pyrate_limiter.buckets.redis_state import RedisStateStore
    from pyrate_limiter.buckets.sqlite.queries import SQLiteQueries
    from pyrate_limiter.buckets.sqlite.state import SQLiteStateStore
    from pyrate_limiter.buckets.sqlite_bucket import SQLiteBucket, SQLiteClock
    from pyrate_limiter.buckets.state.in_memory import InMemoryStateStore
    from pyrate_limiter.buckets.state_bucket import StateBucket

_PLACES = {
    "InMemoryBucket": "pyrate_limiter.buckets.in_memory_bucket",
    "InMemoryStateStore": "pyrate_limiter.buckets.state.in_memory",
    "SQLiteBucket": "pyrate_limiter.buckets.sqlite_bucket",
    "SQLiteClock": "pyrate_limiter.buckets.sqlite_bucket",
    "SQLiteQueries": "pyrate_limiter.buckets.sqlite.queries",
    "SQLiteStateStore": "pyrate_limiter.buckets.sqlite.state",
    "MultiprocessBucket": "pyrate_limiter.buckets.mp_bucket",
    "MultiprocessStateStore": "pyrate_limiter.buckets.multiprocess.state",
    "PgQueries": "pyrate_limiter.buckets.postgres",
    "PostgresBucket": "pyrate_limiter.buckets.postgres",
    "PostgresKeys": "pyrate_limiter.buckets.postgres",
    "PostgresStateStore": "pyrate_limiter.buckets.postgres.state",
    "RedisBucket": "pyrate_limiter.buckets.redis_bucket",
    "RedisStateStore": "pyrate_limiter.buckets.redis_state",
    "StateBucket": "pyrate_limiter.buckets.state_bucket",
}

__all__ = [
    "InMemoryBucket",
    "InMemoryStateStore",
    "MultiprocessBucket",
    "MultiprocessStateStore",
    "PgQueries",
    "PostgresBucket",
    "PostgresKeys",
    "PostgresStateStore",
    "RedisBucket",
    "RedisStateStore",
    "SQLiteBucket",
    "SQLiteClock",
    "SQLiteQueries",
    "SQLiteStateStore",
    "StateBucket",
]

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(__all__)
