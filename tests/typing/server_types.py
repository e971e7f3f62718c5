"""Checked by mypy --strict and pyright, and never run: the types of what is kept on servers."""

from collections.abc import Awaitable

import redis
import redis.asyncio
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from typing_extensions import assert_type

from pyrate_limiter import (
    GCRA,
    AbstractBucket,
    Decision,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from pyrate_limiter.abstracts.algorithm import State
from pyrate_limiter.abstracts.store import StateStore

client = redis.Redis()
cluster = redis.RedisCluster()
awaited_client = redis.asyncio.Redis()
awaited_cluster = redis.asyncio.RedisCluster()
pool = ConnectionPool("", open=False)
awaited_pool = AsyncConnectionPool("", open=False)
rate = Rate(1, 1)
item = RateItem("x", 0)

# What makes a bucket: a client that has to be awaited makes `init` awaitable, and that alone.
assert_type(RedisBucket.init(rate, client, "key"), RedisBucket)
assert_type(RedisBucket.init([rate], cluster, "key", FixedWindow()), RedisBucket)
assert_type(RedisBucket.init(rate, awaited_client, "key"), Awaitable[RedisBucket])
assert_type(RedisBucket.init(rate, awaited_cluster, "key"), Awaitable[RedisBucket])
assert_type(RedisBucket(rate, client, "key", on_error=InMemoryBucket), RedisBucket)
assert_type(RedisKeys(client, "prefix:").for_name([rate], "x"), RedisBucket)
assert_type(PostgresBucket(pool, "table", rate, durable=True), PostgresBucket)
assert_type(PostgresBucket(awaited_pool, "table", [rate], FixedWindow()), PostgresBucket)
assert_type(PostgresKeys(pool, "table").keyed(rate), PostgresBucket)
RedisBucket.init(rate, None, "key")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
RedisBucket(rate, client, 5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
RedisBucket("10/second", client, "key")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
RedisBucket(rate, client, "key", algorithm=GCRA())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
PostgresBucket(pool, 5, rate)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
PostgresBucket(pool, "table", rate, GCRA())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
PostgresStateStore(pool, None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class OwnRedisBucket(RedisBucket):
    """A user's subclass is what its `init` makes."""


assert_type(OwnRedisBucket.init(rate, client, "key"), OwnRedisBucket)
assert_type(OwnRedisBucket.init(rate, awaited_client, "key"), Awaitable[OwnRedisBucket])

# Which client a bucket has is not part of its type: its methods may have to be awaited.
on_redis = RedisBucket.init(rate, client, "key")
assert_type(on_redis.put(item), bool | Awaitable[bool])
assert_type(on_redis.put_decision(item), Decision | Awaitable[Decision])
assert_type(on_redis.check(item), Decision | Awaitable[Decision])
assert_type(on_redis.waiting(item), int | Awaitable[int])
assert_type(on_redis.count(), int | Awaitable[int])
assert_type(on_redis.leak(0), int | Awaitable[int])
assert_type(on_redis.peek(0), RateItem | Awaitable[RateItem | None] | None)
assert_type(on_redis.flush(), Awaitable[None] | None)
assert_type(on_redis.hold(item, 5), int | Awaitable[int])
assert_type(on_redis.is_async, bool)
assert_type(on_redis.failing_rate, Rate | None)
assert_type(on_redis.bucket_key, str)
assert_type(on_redis.script_hash, str)
assert_type(PostgresBucket(pool, "table", rate).table, str)
assert_type(PostgresBucket(pool, "table", rate).failing_rate, Rate | None)

stores: list[StateStore] = [
    RedisStateStore(client, "key", ttl_ms=5, on_error="deny"),
    RedisStateStore(awaited_client, "key"),
    PostgresStateStore(pool, "key", table="states", call_timeout=0.5),
    PostgresStateStore(awaited_pool, "key"),
]
buckets: list[AbstractBucket] = [on_redis, *(StateBucket(rate, store=store) for store in stores)]
assert_type(stores[0].check(GCRA(), [rate], 0, 1), Decision | Awaitable[Decision])
assert_type(RedisStateStore(client, "key").read(GCRA(), [rate]), State | Awaitable[State])
assert_type(RedisStateStore(client, "key").reset(), Awaitable[None] | None)

# So a limiter on one of them answers at once, or has to be awaited; its async methods never ask.
limiter = Limiter(on_redis)
assert_type(limiter.try_acquire(), bool | Awaitable[bool])
assert_type(Limiter(PostgresBucket(pool, "table", rate)).try_acquire(), bool | Awaitable[bool])
assert_type(Limiter(buckets[1]).try_acquire(), bool | Awaitable[bool])
assert_type(Limiter.per_key(rate, bucket=RedisKeys(client)), Limiter)
assert_type(Limiter.per_key(rate, bucket=PostgresKeys(pool, "table")), Limiter)


async def use() -> None:
    """Await what has to be awaited."""
    awaited = await RedisBucket.init(rate, awaited_client, "key", on_error="allow")
    assert_type(awaited, RedisBucket)
    assert_type(await Limiter(awaited).try_acquire_async("x"), bool)
    assert_type(await Limiter(awaited).acquire_async("x"), Decision)
    assert_type(await Limiter(awaited).check_async("x"), Decision)
    on_postgres = PostgresBucket(awaited_pool, "table", rate)
    admitted: bool = await on_postgres.put(item)
    assert_type(admitted, bool)
    assert_type(await Limiter(on_postgres).try_acquire_async("x"), bool)
