"""A Redis bucket for every name, under one prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.buckets.redis.algorithms import checked
from pyrate_limiter.buckets.redis.bucket import RedisBucket
from pyrate_limiter.buckets.redis.client import Server
from pyrate_limiter.buckets.redis.reservations import safe_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.redis.protocols import RedisClient
    from pyrate_limiter.buckets.remote.fallback import OnError


class RedisKeys:
    """Makes the buckets of a `Limiter.per_key`: one key for each name, under a prefix.

    Making one asks the server nothing, and it holds nothing that a new one would not find in
    Redis: so a keyed factory may drop it at any time.

    Args:
        redis: a client, as for `RedisBucket`. Its asyncio callers of all names share round trips.
        prefix: the keys are the prefix followed by the name. A name of more than 512 characters is
            cut, and followed by a hash; one that is no text stands there as its ``repr``.
        algorithm: as for `RedisBucket`.
        on_error: as for `RedisBucket`. A fallback should be a function that makes a bucket, such as
            ``InMemoryBucket``, so that each name has its own.
        call_timeout: as for `RedisBucket`.
        denial_memory_ms: as for `RedisBucket`.
    """

    def __init__(
        self,
        redis: RedisClient,
        prefix: str = "ratelimit:",
        algorithm: LogAlgorithm | None = None,
        *,
        on_error: OnError = "raise",
        call_timeout: float | None = None,
        denial_memory_ms: int = 1000,
    ) -> None:
        self.prefix: str = prefix
        self._algorithm = None if algorithm is None else checked(algorithm)
        self._server = Server(redis, on_error, call_timeout, denial_memory_ms)

    def for_name(self, rates: Sequence[Rate], name: str) -> RedisBucket:
        """The bucket of a name."""
        key = self.prefix + safe_name(name)
        return RedisBucket.on_server(self._server, rates, key, self._algorithm)

    def __call__(self, rates: Sequence[Rate]) -> RedisBucket:
        """The bucket of no name, whose key is the prefix itself."""
        return self.for_name(rates, "")
