"""Buckets in PostgreSQL, under the import path of 4.5.1."""

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, LogAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.postgres.bucket import PostgresBucket, PostgresKeys
from pyrate_limiter.buckets.postgres.clock import PostgresClock
from pyrate_limiter.buckets.postgres.queries import Queries
from pyrate_limiter.buckets.postgres.schema import advisory_lock_id

PgQueries = Queries

__all__ = [
    "ADMITTED",
    "AbstractBucket",
    "Decision",
    "LogAlgorithm",
    "PgQueries",
    "PostgresBucket",
    "PostgresClock",
    "PostgresKeys",
    "Queries",
    "Rate",
    "RateItem",
    "advisory_lock_id",
]
