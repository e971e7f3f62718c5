"""The API of 2.10.0: ``from pyrate_limiter.compat.v2 import Duration, Limiter, RequestRate``.

Times are seconds. Buckets are lists of times, in the files and under the keys of 2.x; whether one
more fits is decided by this release's `SlidingWindowLog`.
"""

from pyrate_limiter.compat.v2.bucket import (
    AbstractBucket,
    MemoryListBucket,
    MemoryQueueBucket,
    RedisBucket,
    RedisClusterBucket,
)
from pyrate_limiter.compat.v2.constants import Duration
from pyrate_limiter.compat.v2.exceptions import (
    BucketFullException,
    ImmutableClassProperty,
    InvalidParams,
)
from pyrate_limiter.compat.v2.limit_context_decorator import LimitContextDecorator
from pyrate_limiter.compat.v2.limiter import Limiter
from pyrate_limiter.compat.v2.request_rate import RequestRate, ResetTypes
from pyrate_limiter.compat.v2.sqlite_bucket import (
    DEFAULT_DB_PATH,
    FILE_LOCK,
    LOCK_PATH,
    SQLITE_MAX_VARIABLE_NUMBER,
    TEMP_DIR,
    FileLockSQLiteBucket,
    SQLiteBucket,
    chunkify,
)

__all__ = [
    "DEFAULT_DB_PATH",
    "FILE_LOCK",
    "LOCK_PATH",
    "SQLITE_MAX_VARIABLE_NUMBER",
    "TEMP_DIR",
    "AbstractBucket",
    "BucketFullException",
    "Duration",
    "FileLockSQLiteBucket",
    "ImmutableClassProperty",
    "InvalidParams",
    "LimitContextDecorator",
    "Limiter",
    "MemoryListBucket",
    "MemoryQueueBucket",
    "RedisBucket",
    "RedisClusterBucket",
    "RequestRate",
    "ResetTypes",
    "SQLiteBucket",
    "chunkify",
]
