"""Rate limiting that is exact, fair and fast, in one process or across a fleet.

Names are resolved on first use: importing this package loads no asyncio, no database and no driver.
"""

from typing import TYPE_CHECKING

from pyrate_limiter._lazy import resolver
from pyrate_limiter._version import __version__

if TYPE_CHECKING:
    from pyrate_limiter import limiter_factory
    from pyrate_limiter.abstracts import (
        GCRA,
        AbstractBucket,
        Algorithm,
        BucketAsyncWrapper,
        BucketFactory,
        Decision,
        Duration,
        FixedWindow,
        LogAlgorithm,
        Rate,
        RateItem,
        SlidingWindowLog,
        StateAlgorithm,
        StateStore,
        TokenBucket,
    )
    from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
    from pyrate_limiter.buckets.in_memory_state import InMemoryStateStore
    from pyrate_limiter.buckets.mp_bucket import MultiprocessBucket
    from pyrate_limiter.buckets.mp_state import MultiprocessStateStore
    from pyrate_limiter.buckets.postgres import PgQueries, PostgresBucket, PostgresKeys
    from pyrate_limiter.buckets.postgres_state import PostgresStateStore
    from pyrate_limiter.buckets.redis_bucket import RedisBucket
    from pyrate_limiter.buckets.redis_keys import RedisKeys
    from pyrate_limiter.buckets.redis_state import RedisStateStore
    from pyrate_limiter.buckets.sqlite_bucket import SQLiteBucket, SQLiteClock
    from pyrate_limiter.buckets.sqlite_queries import SQLiteQueries
    from pyrate_limiter.buckets.sqlite_state import SQLiteStateStore
    from pyrate_limiter.buckets.state_bucket import StateBucket
    from pyrate_limiter.clocks import (
        AbstractClock,
        MonotonicAsyncClock,
        MonotonicClock,
        PostgresClock,
        WallClock,
    )
    from pyrate_limiter.errors import PyrateError, RateLimitExceeded
    from pyrate_limiter.keyed import KeyedBucketFactory
    from pyrate_limiter.limiter import Limiter, SingleBucketFactory
    from pyrate_limiter.utils import (
        dedicated_sqlite_clock_connection,
        id_generator,
        validate_rate_list,
    )

__all__ = [
    "GCRA",
    "AbstractBucket",
    "AbstractClock",
    "Algorithm",
    "BucketAsyncWrapper",
    "BucketFactory",
    "Decision",
    "Duration",
    "FixedWindow",
    "InMemoryBucket",
    "InMemoryStateStore",
    "KeyedBucketFactory",
    "Limiter",
    "LogAlgorithm",
    "MonotonicAsyncClock",
    "MonotonicClock",
    "MultiprocessBucket",
    "MultiprocessStateStore",
    "PgQueries",
    "PostgresBucket",
    "PostgresClock",
    "PostgresKeys",
    "PostgresStateStore",
    "PyrateError",
    "Rate",
    "RateItem",
    "RateLimitExceeded",
    "RedisBucket",
    "RedisKeys",
    "RedisStateStore",
    "SQLiteBucket",
    "SQLiteClock",
    "SQLiteQueries",
    "SQLiteStateStore",
    "SingleBucketFactory",
    "SlidingWindowLog",
    "StateAlgorithm",
    "StateBucket",
    "StateStore",
    "TokenBucket",
    "WallClock",
    "__version__",
    "dedicated_sqlite_clock_connection",
    "id_generator",
    "limiter_factory",
    "validate_rate_list",
]

_PLACES = {
    name: "pyrate_limiter." + place
    for place, names in {
        "abstracts.algorithm": (
            "Algorithm Decision FixedWindow GCRA LogAlgorithm SlidingWindowLog StateAlgorithm "
            "TokenBucket"
        ),
        "abstracts.bucket": "AbstractBucket BucketFactory",
        "abstracts.rate": "Duration Rate RateItem",
        "abstracts.store": "StateStore",
        "abstracts.wrappers": "BucketAsyncWrapper",
        "buckets.in_memory_bucket": "InMemoryBucket",
        "buckets.in_memory_state": "InMemoryStateStore",
        "buckets.sqlite_bucket": "SQLiteBucket SQLiteClock",
        "buckets.sqlite_queries": "SQLiteQueries",
        "buckets.sqlite_state": "SQLiteStateStore",
        "buckets.mp_bucket": "MultiprocessBucket",
        "buckets.mp_state": "MultiprocessStateStore",
        "buckets.postgres": "PgQueries PostgresBucket PostgresKeys",
        "buckets.postgres_state": "PostgresStateStore",
        "buckets.redis_bucket": "RedisBucket",
        "buckets.redis_keys": "RedisKeys",
        "buckets.redis_state": "RedisStateStore",
        "buckets.state_bucket": "StateBucket",
        "clocks": "AbstractClock MonotonicAsyncClock MonotonicClock PostgresClock WallClock",
        "errors": "PyrateError RateLimitExceeded",
        "keyed": "KeyedBucketFactory",
        "limiter": "Limiter SingleBucketFactory",
        "limiter_factory": "limiter_factory",
        "utils": "dedicated_sqlite_clock_connection id_generator validate_rate_list",
    }.items()
    for name in names.split()
}

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
