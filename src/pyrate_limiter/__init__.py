"""Rate limiting that is exact, fair and fast, in one process or across a fleet.

Names are resolved on first use: importing this package loads no asyncio, no database and no driver.
"""

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._older import places
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
    from pyrate_limiter.abstracts.bucket import Leaker
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
    from pyrate_limiter.buckets.mp_bucket import MultiprocessBucket
    from pyrate_limiter.buckets.multiprocess.state import MultiprocessStateStore
    from pyrate_limiter.buckets.postgres import PgQueries, PostgresBucket, PostgresKeys
    from pyrate_limiter.buckets.postgres.state import PostgresStateStore
    from pyrate_limiter.buckets.redis.keys import RedisKeys
    from pyrate_limiter.buckets.redis_bucket import RedisBucket
    from pyrate_limiter.buckets.redis_state import RedisStateStore
    from pyrate_limiter.buckets.sqlite.queries import SQLiteQueries
    from pyrate_limiter.buckets.sqlite.state import SQLiteStateStore
    from pyrate_limiter.buckets.sqlite_bucket import SQLiteBucket, SQLiteClock
    from pyrate_limiter.buckets.state.in_memory import InMemoryStateStore
    from pyrate_limiter.buckets.state_bucket import StateBucket
    from pyrate_limiter.clocks import (
        AbstractClock,
        MonotonicAsyncClock,
        MonotonicClock,
        PostgresClock,
        WallClock,
    )
    from pyrate_limiter.compat.exceptions import (
        BucketFullException,
        ImmutableClassProperty,
        InvalidParams,
        LimiterDelayException,
    )
    from pyrate_limiter.compat.v2.bucket import (
        MemoryListBucket,
        MemoryQueueBucket,
        RedisClusterBucket,
    )
    from pyrate_limiter.compat.v2.limit_context_decorator import LimitContextDecorator
    from pyrate_limiter.compat.v2.request_rate import RequestRate, ResetTypes
    from pyrate_limiter.compat.v2.sqlite_bucket import (
        DEFAULT_DB_PATH,
        FILE_LOCK,
        LOCK_PATH,
        SQLITE_MAX_VARIABLE_NUMBER,
        TEMP_DIR,
        FileLockSQLiteBucket,
        chunkify,
    )
    from pyrate_limiter.compat.v3.clocks import TimeAsyncClock, TimeClock
    from pyrate_limiter.compat.v3.limiter import combined_lock
    from pyrate_limiter.compat.v3.utils import binary_search
    from pyrate_limiter.errors import PyrateError, RateLimitExceeded
    from pyrate_limiter.keyed import KeyedBucketFactory
    from pyrate_limiter.limiter import Limiter, Reserved, SingleBucketFactory
    from pyrate_limiter.utils import (
        dedicated_sqlite_clock_connection,
        id_generator,
        validate_rate_list,
    )

__all__ = [
    "DEFAULT_DB_PATH",
    "FILE_LOCK",
    "GCRA",
    "LOCK_PATH",
    "SQLITE_MAX_VARIABLE_NUMBER",
    "TEMP_DIR",
    "AbstractBucket",
    "AbstractClock",
    "Algorithm",
    "BucketAsyncWrapper",
    "BucketFactory",
    "BucketFullException",
    "Decision",
    "Duration",
    "FileLockSQLiteBucket",
    "FixedWindow",
    "ImmutableClassProperty",
    "InMemoryBucket",
    "InMemoryStateStore",
    "InvalidParams",
    "KeyedBucketFactory",
    "Leaker",
    "LimitContextDecorator",
    "Limiter",
    "LimiterDelayException",
    "LogAlgorithm",
    "MemoryListBucket",
    "MemoryQueueBucket",
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
    "RedisClusterBucket",
    "RedisKeys",
    "RedisStateStore",
    "RequestRate",
    "Reservation",
    "Reserved",
    "ResetTypes",
    "SQLiteBucket",
    "SQLiteClock",
    "SQLiteQueries",
    "SQLiteStateStore",
    "SingleBucketFactory",
    "SlidingWindowLog",
    "StateAlgorithm",
    "StateBucket",
    "StateStore",
    "TimeAsyncClock",
    "TimeClock",
    "TokenBucket",
    "WallClock",
    "__version__",
    "binary_search",
    "chunkify",
    "combined_lock",
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
        "abstracts.reservation": "Reservation",
        "abstracts.store": "StateStore",
        "abstracts.wrappers": "BucketAsyncWrapper",
        "buckets.in_memory_bucket": "InMemoryBucket",
        "buckets.state.in_memory": "InMemoryStateStore",
        "buckets.sqlite_bucket": "SQLiteBucket SQLiteClock",
        "buckets.sqlite.queries": "SQLiteQueries",
        "buckets.sqlite.state": "SQLiteStateStore",
        "buckets.mp_bucket": "MultiprocessBucket",
        "buckets.multiprocess.state": "MultiprocessStateStore",
        "buckets.postgres": "PgQueries PostgresBucket PostgresKeys",
        "buckets.postgres.state": "PostgresStateStore",
        "buckets.redis_bucket": "RedisBucket",
        "buckets.redis.keys": "RedisKeys",
        "buckets.redis_state": "RedisStateStore",
        "buckets.state_bucket": "StateBucket",
        "clocks": "AbstractClock MonotonicAsyncClock MonotonicClock PostgresClock WallClock",
        "errors": "PyrateError RateLimitExceeded",
        "keyed": "KeyedBucketFactory",
        "limiter": "Limiter Reserved SingleBucketFactory",
        "limiter_factory": "limiter_factory",
        "utils": "dedicated_sqlite_clock_connection id_generator validate_rate_list",
    }.items()
    for name in names.split()
}
_PLACES |= {"extras": "pyrate_limiter.extras", "http": "pyrate_limiter.http"}

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, {**places(__name__), **_PLACES})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
