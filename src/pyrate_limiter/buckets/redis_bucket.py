"""The log in Redis, under the import path of 4.5.1."""

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, LogAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.redis.bucket import LuaScript, RedisBucket
from pyrate_limiter.utils import id_generator

__all__ = [
    "ADMITTED",
    "AbstractBucket",
    "Decision",
    "LogAlgorithm",
    "LuaScript",
    "Rate",
    "RateItem",
    "RedisBucket",
    "id_generator",
]
