"""Checked by mypy --strict and pyright, and never run: what the types of the public API are."""

from collections.abc import Awaitable, Coroutine
from datetime import timedelta
from typing import Any

import redis
import redis.asyncio
from typing_extensions import assert_type

from pyrate_limiter import (
    AbstractBucket,
    BucketAsyncWrapper,
    BucketFactory,
    Decision,
    Duration,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    SQLiteBucket,
    StateBucket,
    limiter_factory,
    validate_rate_list,
)

limiter = Limiter(Rate(10, Duration.SECOND))

Limiter([Rate(10, 1000)], 50)
Limiter(InMemoryBucket([Rate(10, 1000)]), buffer_ms=0)
Limiter(limiter.bucket_factory)
Limiter("10/second")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]

assert_type(Duration.SECOND * 5, int)
assert_type(5 * Duration.SECOND, int)
assert_type(Duration.SECOND + Duration.MINUTE, int)
assert_type(Rate.parse_list("10/second"), list[Rate])
assert_type(validate_rate_list([Rate(1, 1)]), bool)
assert_type(Decision().allowed, bool)
assert_type(Decision().failing_rate, Rate | None)
assert_type(Decision().retry_after_ms, int | None)


@limiter.as_decorator(name="add", weight=1)
def add(left: int, right: str = "", *, flag: bool = False) -> float:
    """Keep its parameters and its result."""
    return left + len(right) + flag


assert_type(add(1, "x", flag=True), float)
add("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
add(1, flag="no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
add(1, unknown=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


@limiter.as_decorator()
async def fetch(url: str, *, retries: int = 3) -> bytes:
    """Stay a coroutine function."""
    return url.encode() * retries


pending: Coroutine[Any, Any, bytes] = fetch("x")
fetch(1)  # type: ignore[arg-type, unused-coroutine] # pyright: ignore[reportArgumentType, reportUnusedCoroutine]


async def use() -> None:
    """Await what has to be awaited."""
    assert_type(await fetch("x", retries=1), bytes)
    assert_type(await limiter.try_acquire_async("x", 1, True, 5), bool)
    assert_type(await limiter.acquire_async(), Decision)
    assert_type(await limiter.check_async(), Decision)
    assert_type(await limiter.hold_async("x", 1.5), float)
    assert_type(await limiter.release_hold_async("x"), bool)
    async with limiter.limit("x") as decision:
        assert_type(decision, Decision)
    wrapped = BucketAsyncWrapper(InMemoryBucket([Rate(1, 1)]))
    assert_type(await wrapped.put(RateItem("x", 0)), bool)
    assert_type(await wrapped.put_decision(RateItem("x", 0)), Decision)
    assert_type(await wrapped.count(), int)
    assert_type(await wrapped.peek(0), RateItem | None)


assert_type(limiter.try_acquire("x", 1, blocking=True, timeout=1.5), bool)
assert_type(limiter.try_acquire(timeout=None), bool)
assert_type(Limiter(Rate(1, timedelta(seconds=1))), Limiter[bool])
assert_type(Limiter(SQLiteBucket.init_from_file(Rate(1, 1))).try_acquire(), bool)
wrapper = BucketAsyncWrapper(InMemoryBucket([Rate(1, 1)]))
assert_type(Limiter(wrapper).try_acquire(), Awaitable[bool])
assert_type(Limiter(StateBucket(Rate(1, 1))).try_acquire(), bool | Awaitable[bool])
anything: Limiter = limiter
anything = Limiter(wrapper)
assert_type(limiter.acquire("x"), Decision)
assert_type(limiter.check("x"), Decision)
assert_type(limiter.hold("x", 1), float)
assert_type(limiter.release_hold("x"), bool)
assert_type(limiter.buckets(), list[AbstractBucket])
assert_type(limiter.dispose(5), bool)
assert_type(Limiter.per_key(Rate(1, 1), bucket=StateBucket, max_keys=5), Limiter)
assert_type(limiter_factory.create_inmemory_limiter(), Limiter)
with limiter as entered:
    assert_type(entered, Limiter[bool])
with limiter.limit("x") as admitted:
    assert_type(admitted, Decision)


class Routed(BucketFactory):
    """A user's factory, as the types allow it."""

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        """Sync."""
        return RateItem(name, 0, weight)

    async def get(self, item: RateItem) -> AbstractBucket:
        """Async."""
        return self.create(InMemoryBucket, [Rate(1, 1)])


assert_type(Routed().create(InMemoryBucket, [Rate(1, 1)]), InMemoryBucket)

assert_type(RedisBucket.init([Rate(1, 1)], redis.Redis(), "key"), RedisBucket)
assert_type(RedisBucket.init([Rate(1, 1)], redis.RedisCluster(), "key"), RedisBucket)


async def use_redis() -> None:
    """An asyncio client makes the bucket awaitable."""
    client = redis.asyncio.Redis()
    assert_type(await RedisBucket.init(Rate(1, 1), client, "key", on_error="deny"), RedisBucket)


class OwnLimiter(Limiter):
    """A user's limiter, as the types allow it."""

    def __init__(self, rates: list[Rate]) -> None:
        super().__init__(rates, buffer_ms=0)


assert_type(OwnLimiter([Rate(1, 1)]).try_acquire(), bool | Awaitable[bool])


class Sync(AbstractBucket):
    """A user's sync bucket."""

    def put(self, item: RateItem) -> bool:
        """Sync."""
        return bool(item)

    def leak(self, current_timestamp: int | None = None) -> int:
        """Sync."""
        return current_timestamp or 0

    def flush(self) -> None:
        """Sync."""

    def count(self) -> int:
        """Sync."""
        return 0

    def peek(self, index: int) -> RateItem | None:
        """Async."""
        return None if index else RateItem("x", 0)


class Async(AbstractBucket):
    """A user's async bucket."""

    async def put(self, item: RateItem) -> bool:
        """Async."""
        return bool(item)

    async def leak(self, current_timestamp: int | None = None) -> int:
        """Async."""
        return current_timestamp or 0

    async def flush(self) -> None:
        """Async."""

    async def count(self) -> int:
        """Async."""
        return 0

    async def peek(self, index: int) -> RateItem | None:
        """Async."""
        return None if index else RateItem("x", 0)


Limiter(Sync())
Limiter(Async())
