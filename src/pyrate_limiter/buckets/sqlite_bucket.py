"""The log in SQLite, under the import path of 4.5.1."""

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.abstracts.algorithm import LogAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.sqlite.bucket import SQLiteBucket
from pyrate_limiter.buckets.sqlite.clock import SQLiteClock
from pyrate_limiter.buckets.sqlite.queries import SQLiteQueries
from pyrate_limiter.utils import dedicated_sqlite_clock_connection

Queries = SQLiteQueries

__all__ = [
    "AbstractBucket",
    "AbstractClock",
    "LogAlgorithm",
    "Queries",
    "Rate",
    "RateItem",
    "SQLiteBucket",
    "SQLiteClock",
    "SQLiteQueries",
    "dedicated_sqlite_clock_connection",
]
