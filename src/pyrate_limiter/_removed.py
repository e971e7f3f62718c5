"""What releases before 4 had, and what to write in its place."""

from __future__ import annotations

from typing import Any

_GUIDE = "docs/migration.md has a section on programs written for 2.x and 3.x"

NAMES = {
    "BucketFullException": "try_acquire answers False, and limit() raises RateLimitExceeded",
    "LimiterDelayException": "a wait that is too long is False, see timeout= of try_acquire",
    "RequestRate": "Rate(limit, interval in milliseconds)",
    "MemoryListBucket": "InMemoryBucket",
    "MemoryQueueBucket": "InMemoryBucket",
    "FileLockSQLiteBucket": "SQLiteBucket.init_from_file(rates, db_path=..., use_file_lock=True)",
    "RedisClusterBucket": "RedisBucket.init(rates, client, key), which takes a cluster's client",
    "TimeClock": "WallClock",
    "TimeAsyncClock": "MonotonicAsyncClock",
}

OPTIONS = {
    "max_delay": "give timeout=, in seconds, to each try_acquire",
    "raise_when_fail": "look at what try_acquire answers, or enter limiter.limit(), which raises",
    "retry_until_max_delay": "give timeout=, in seconds, to each try_acquire",
    "async_wrapper": "await limiter.try_acquire_async(), which works over every bucket",
}


def refuse_name(module: str, name: str) -> None:
    """Say what has taken the place of a name that is gone.

    Raises:
        RemovedName: it is one of those.
    """
    if name in NAMES:
        from pyrate_limiter.errors import RemovedName

        raise RemovedName(module, name, f"{NAMES[name]}; {_GUIDE}")


def refuse_options(given: dict[str, Any], owner: str) -> None:
    """Refuse keyword arguments that are none, and say what has taken the place of old ones.

    Raises:
        RemovedOption: one of them is gone.
        TypeError: there never was such a one.
    """
    for name in given:
        if name not in OPTIONS:
            msg = f"{owner} got an unexpected keyword argument {name!r}"
            raise TypeError(msg)
        from pyrate_limiter.errors import RemovedOption

        raise RemovedOption(owner, name, f"{OPTIONS[name]}; {_GUIDE}")
