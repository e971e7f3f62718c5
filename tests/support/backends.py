"""Every kind of bucket, on real servers, for tests of what holds for all of them."""

import contextlib
import itertools
import os
import uuid

from pyrate_limiter import (
    InMemoryBucket,
    MultiprocessBucket,
    MultiprocessStateStore,
    PostgresBucket,
    PostgresStateStore,
    RedisBucket,
    RedisStateStore,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from tests.support import postgres_fixtures
from tests.support.doubles import ListBucket
from tests.support.redis_servers import DEFAULT, async_client, shared_url, sync_client

LOCAL = ["memory", "memory gcra", "own"]
ONE_HOST = ["sqlite", "sqlite gcra", "multiprocess", "multiprocess gcra"]
SERVERS = ["redis", "redis asyncio", "redis gcra", "postgres", "postgres asyncio", "postgres gcra"]
ALL = [*LOCAL, *ONE_HOST, *SERVERS]

_numbers = itertools.count()


@contextlib.asynccontextmanager
async def bucket_of(kind, rates, folder):
    """A new bucket of that kind, closed at the end."""
    async with contextlib.AsyncExitStack() as stack:
        bucket = await _made(kind, rates, folder, stack)
        stack.callback(bucket.close)
        yield bucket


async def _made(kind, rates, folder, stack):
    if kind in LOCAL:
        made = {"memory": InMemoryBucket, "memory gcra": StateBucket, "own": ListBucket}
        return made[kind](rates)
    if kind in ONE_HOST:
        return _on_this_host(kind, rates, folder)
    if kind.startswith("redis"):
        return await _on_redis(kind, rates, stack)
    return await _on_postgres(kind, rates, stack)


def _on_this_host(kind, rates, folder):
    path = str(folder / f"{os.getpid()}-{next(_numbers)}.db")
    if kind == "sqlite":
        return SQLiteBucket.init_from_file(rates, db_path=path)
    if kind == "sqlite gcra":
        return StateBucket(rates, store=SQLiteStateStore(path, "key"))
    if kind == "multiprocess":
        return MultiprocessBucket.init(rates)
    return StateBucket(rates, store=MultiprocessStateStore.init())


async def _on_redis(kind, rates, stack):
    key = f"backends:{uuid.uuid4()}"
    if kind == "redis asyncio":
        client = await async_client(shared_url(DEFAULT))
        return await RedisBucket.init(rates, client, key)
    client = stack.enter_context(sync_client(shared_url(DEFAULT)))
    if kind == "redis":
        return RedisBucket.init(rates, client, key)
    return StateBucket(rates, store=RedisStateStore(client, key))


async def _on_postgres(kind, rates, stack):
    if kind == "postgres asyncio":
        pool = await postgres_fixtures.async_pool()
        stack.push_async_callback(pool.close)
        return PostgresBucket(pool, postgres_fixtures.table(), rates)
    pool = stack.enter_context(postgres_fixtures.pool())
    if kind == "postgres":
        return PostgresBucket(pool, postgres_fixtures.table(), rates)
    return StateBucket(rates, store=PostgresStateStore(pool, postgres_fixtures.table()))
