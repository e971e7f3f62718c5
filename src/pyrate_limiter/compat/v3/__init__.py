"""The API of 3.9.0: ``from pyrate_limiter.compat.v3 import Duration, Limiter, Rate``.

Buckets, factories, rates and durations are those of this release, which take the calls of 3.x too;
the limiter raises or answers False as in 3.x, and the clocks count from the epoch.
"""

from pyrate_limiter import (
    AbstractBucket,
    AbstractClock,
    BucketAsyncWrapper,
    Duration,
    MonotonicClock,
    MultiprocessBucket,
    PgQueries,
    PostgresBucket,
    PostgresClock,
    Rate,
    RateItem,
    RedisBucket,
    SQLiteBucket,
    SQLiteClock,
    SQLiteQueries,
    validate_rate_list,
)
from pyrate_limiter.abstracts.bucket import Leaker
from pyrate_limiter.compat.v3 import limiter_factory
from pyrate_limiter.compat.v3.buckets import InMemoryBucket
from pyrate_limiter.compat.v3.clocks import TimeAsyncClock, TimeClock
from pyrate_limiter.compat.v3.exceptions import BucketFullException, LimiterDelayException
from pyrate_limiter.compat.v3.factories import BucketFactory, SingleBucketFactory
from pyrate_limiter.compat.v3.limiter import Limiter, combined_lock
from pyrate_limiter.compat.v3.utils import (
    binary_search,
    dedicated_sqlite_clock_connection,
    id_generator,
)

__all__ = [
    "AbstractBucket",
    "AbstractClock",
    "BucketAsyncWrapper",
    "BucketFactory",
    "BucketFullException",
    "Duration",
    "InMemoryBucket",
    "Leaker",
    "Limiter",
    "LimiterDelayException",
    "MonotonicClock",
    "MultiprocessBucket",
    "PgQueries",
    "PostgresBucket",
    "PostgresClock",
    "Rate",
    "RateItem",
    "RedisBucket",
    "SQLiteBucket",
    "SQLiteClock",
    "SQLiteQueries",
    "SingleBucketFactory",
    "TimeAsyncClock",
    "TimeClock",
    "binary_search",
    "combined_lock",
    "dedicated_sqlite_clock_connection",
    "id_generator",
    "limiter_factory",
    "validate_rate_list",
]
