"""The buckets of 2.x: lists of times, oldest first."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from importlib import import_module
from math import ceil
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from pyrate_limiter.compat.exceptions import InvalidParams
from pyrate_limiter.errors import MissingDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import ConnectionPool, Redis
    from redis.client import Pipeline

__all__ = [
    "AbstractBucket",
    "InvalidParams",
    "MemoryListBucket",
    "MemoryQueueBucket",
    "RedisBucket",
    "RedisClusterBucket",
]


class AbstractBucket(ABC):
    """The times at which one identity was admitted, in seconds on the limiter's clock.

    Args:
        maxsize: how many times it holds.
        _kwargs: ignored.
    """

    def __init__(self, maxsize: float = 0, **_kwargs: object) -> None:
        self._maxsize = maxsize

    def maxsize(self) -> float:
        """How many times it holds."""
        return self._maxsize

    @abstractmethod
    def size(self) -> int:
        """How many times are stored, those that no longer count included."""

    @abstractmethod
    def put(self, item: float) -> int:
        """Store a time: 1, or 0 if it is full."""

    @abstractmethod
    def get(self, number: int) -> int:
        """Drop the oldest times, and say how many."""

    @abstractmethod
    def all_items(self) -> list[float]:
        """All times, oldest first."""

    @abstractmethod
    def flush(self) -> None:
        """Drop all times."""

    def inspect_expired_items(self, time: float) -> tuple[int, float]:
        """How many times are later than ``time``, and by how much the first of them is."""
        later = [item for item in self.all_items() if item > time]
        return len(later), round(later[0] - time, 3) if later else 0.0

    def lock_acquire(self) -> None:
        """Keep others away until `lock_release`."""
        return

    def lock_release(self) -> None:
        """Let others in again."""
        return

    def _is_full(self) -> bool:
        return self.size() >= self._maxsize


class _Locked(AbstractBucket):
    """A bucket with a lock for the threads of this process."""

    def __init__(self, maxsize: float = 0, **_kwargs: object) -> None:
        super().__init__(maxsize)
        self._lock = threading.RLock()

    def lock_acquire(self) -> None:
        self._lock.acquire()

    def lock_release(self) -> None:
        self._lock.release()


class MemoryQueueBucket(_Locked):
    """Times in a queue. One with `maxsize` 0 holds any number."""

    def __init__(self, maxsize: float = 0, **_kwargs: object) -> None:
        super().__init__(maxsize)
        self._q: Queue[float] = Queue(maxsize)  # type: ignore[arg-type] # it only compares it

    def size(self) -> int:
        return self._q.qsize()

    def put(self, item: float) -> int:
        try:
            self._q.put_nowait(item)
        except Full:
            return 0
        return 1

    def get(self, number: int) -> int:
        for dropped in range(number):
            try:
                self._q.get_nowait()
            except Empty:
                return dropped
        return number

    def all_items(self) -> list[float]:
        return list(self._q.queue)

    def flush(self) -> None:
        self.get(self.size())


class MemoryListBucket(_Locked):
    """Times in a list."""

    def __init__(self, maxsize: float = 0, **_kwargs: object) -> None:
        super().__init__(maxsize)
        self._q: list[float] = []

    def size(self) -> int:
        return len(self._q)

    def put(self, item: float) -> int:
        if self._is_full():
            return 0
        self._q.append(item)
        return 1

    def get(self, number: int) -> int:
        for _ in range(number):
            self._q.pop(0)
        return number

    def all_items(self) -> list[float]:
        return self._q.copy()

    def flush(self) -> None:
        self._q.clear()


class RedisBucket(AbstractBucket):
    """Times in a Redis list, for processes and hosts.

    Args:
        maxsize: see `AbstractBucket`.
        redis_pool: a connection pool, or a client.
        bucket_name: the key is this, three underscores, and the identity.
        identity: whose times these are.
        expire_time: seconds after the last call until the key is dropped; None is never.
        _kwargs: ignored.

    Raises:
        InvalidParams: there is no pool, or no name.
    """

    def __init__(
        self,
        maxsize: float = 0,
        redis_pool: ConnectionPool | Redis | None = None,
        bucket_name: str | None = None,
        identity: object = None,
        expire_time: float | None = None,
        **_kwargs: object,
    ) -> None:
        super().__init__(maxsize)
        if not redis_pool:
            raise InvalidParams("Missing Redis connection pool")
        if not isinstance(bucket_name, str):
            missing = "keyword argument `bucket-name` is missing: a distict name is required"
            raise InvalidParams(missing)
        self._pool = redis_pool
        self._bucket_name = f"{bucket_name}___{identity}"
        self._expire_time = expire_time

    def get_connection(self) -> Redis:
        """The client that everything goes through; subclasses may give another."""
        if not hasattr(self._pool, "connection_kwargs"):
            return self._pool
        return self._client_class()(connection_pool=self._pool)

    @staticmethod
    def _client_class() -> Callable[..., Redis]:
        try:
            from redis import Redis
        except ImportError as error:
            raise MissingDriver("redis", "redis") from error
        return Redis

    def get_pipeline(self) -> Pipeline:
        """A pipeline of that client."""
        return self.get_connection().pipeline()

    def size(self) -> int:
        return self.get_connection().llen(self._bucket_name)

    def put(self, item: float) -> int:
        if self._is_full():
            return 0
        pipeline = self.get_pipeline()
        pipeline.rpush(self._bucket_name, str(float(item)))
        if self._expire_time is not None:
            pipeline.expire(self._bucket_name, ceil(self._expire_time))
        pipeline.execute()
        return 1

    def get(self, number: int) -> int:
        pipeline = self.get_pipeline()
        for _ in range(number):
            pipeline.lpop(self._bucket_name)
        return sum(item is not None for item in pipeline.execute())

    def all_items(self) -> list[float]:
        return [float(item) for item in self.get_connection().lrange(self._bucket_name, 0, -1)]

    def flush(self) -> None:
        self.get_connection().delete(self._bucket_name)

    def admit(
        self, now: float, weight: int, windows: Sequence[tuple[int, float]]
    ) -> tuple[int, float] | None:
        """Store ``weight`` times ``now``, if that fits, in one step on the server.

        Args:
            now: the time, in seconds.
            weight: how many.
            windows: for each rate its limit, and the latest time that it no longer counts.

        Returns:
            None if they are stored, else the index of the first rate that is short, and the time
            that has to leave its window first.
        """
        numbers = [text for limit, edge in windows for text in (str(limit), f"{edge:.3f}")]
        expire = "" if self._expire_time is None else ceil(self._expire_time)
        refused = self.get_connection().eval(
            _ADMIT, 1, self._bucket_name, str(float(now)), weight, expire, *numbers
        )
        return (int(refused[0]), float(refused[1])) if refused else None

    def take_back(self, now: float, weight: int) -> None:
        """Undo `admit`."""
        self.get_connection().lrem(self._bucket_name, -weight, str(float(now)))


# The rule is that of `SlidingWindowLog`: whether the time that is `limit - weight` places from the
# newest still counts. Times that no window counts go when the last rate, the longest, is full.
_ADMIT = """
local key, now, weight, expire = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
for i = 4, #ARGV, 2 do
  local blocking = redis.call('LINDEX', key, weight - tonumber(ARGV[i]) - 1)
  if blocking and tonumber(blocking) > tonumber(ARGV[i + 1]) then
    return {(i - 4) / 2, blocking}
  end
end
if redis.call('LLEN', key) + weight > tonumber(ARGV[#ARGV - 1]) then
  local oldest = redis.call('LINDEX', key, 0)
  while oldest and tonumber(oldest) <= tonumber(ARGV[#ARGV]) do
    redis.call('LPOP', key)
    oldest = redis.call('LINDEX', key, 0)
  end
end
for _ = 1, weight do
  redis.call('RPUSH', key, now)
end
if expire ~= '' then
  redis.call('EXPIRE', key, expire)
end
return false
"""


class RedisClusterBucket(RedisBucket):
    """`RedisBucket` on a cluster.

    Args:
        redis_pool: a ``redis.cluster.RedisCluster``, or the pool that redis-py-cluster takes.
    """

    @staticmethod
    def _client_class() -> Callable[..., Redis]:
        cluster: Callable[..., Redis] = import_module("rediscluster").RedisCluster
        return cluster
