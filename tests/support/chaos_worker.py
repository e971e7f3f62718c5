"""One process of threads and tasks that use a log, a state and keys in every way, until killed.

Arguments, as JSON: backend, where (its address), name (of what is used there), label (what its
connections are called there), rates (pairs of limit and interval), records (a file).

To that file it adds a line for each call that was admitted: kind, name, weight, and between which
moments of the machine's monotonic clock (s) it went.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import threading
import time

from pyrate_limiter import (
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)

KINDS = {"log": ("log",), "state": ("state",), "keys": ("one", "two")}
"""What there is, and under which names it is used."""
CONNECTIONS = 4
"""How many the pool of the threads may have, and how many that of the tasks."""
THREADS, TASKS = 2, 4  # of each kind
PAUSE = 0.02  # s, after a call that was refused


class OnRedis:
    def __init__(self, given):
        self._given = given

    def _options(self, of_whom):
        return {"client_name": f"{self._given['label']}.{of_whom}", "max_connections": CONNECTIONS}

    def _limiters(self, client):
        rates, name = self._given["rates"], self._given["name"]
        store = RedisStateStore(client, f"{name}:state", on_error="deny")
        return {
            "log": Limiter(RedisBucket(rates, client, f"{name}:log", on_error="deny")),
            "state": Limiter(StateBucket(rates, store=store)),
            "keys": Limiter.per_key(rates, bucket=RedisKeys(client, f"{name}:", on_error="deny")),
        }

    @contextlib.contextmanager
    def limiters(self):
        import redis

        options = self._options("threads")
        with redis.Redis.from_url(self._given["where"], **options) as client:
            yield self._limiters(client)

    @contextlib.asynccontextmanager
    async def async_limiters(self):
        import redis.asyncio

        options = self._options("tasks")
        async with redis.asyncio.Redis.from_url(self._given["where"], **options) as client:
            yield self._limiters(client)


class OnPostgres:
    def __init__(self, given):
        self._given = given
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it tells of each lost one

    def _options(self, of_whom):
        kwargs = {"application_name": f"{self._given['label']}.{of_whom}"}
        return {"min_size": 1, "max_size": CONNECTIONS, "open": False, "kwargs": kwargs}

    def _limiters(self, pool):
        rates, name = self._given["rates"], self._given["name"]
        store = PostgresStateStore(pool, "k", table=f"{name}_state", on_error="deny")
        keys = PostgresKeys(pool, f"{name}_keys", on_error="deny")
        return {
            "log": Limiter(PostgresBucket(pool, f"{name}_log", rates, on_error="deny")),
            "state": Limiter(StateBucket(rates, store=store)),
            "keys": Limiter.per_key(rates, bucket=keys),
        }

    @contextlib.contextmanager
    def limiters(self):
        from psycopg_pool import ConnectionPool

        with ConnectionPool(self._given["where"], **self._options("threads")) as pool:
            yield self._limiters(pool)

    @contextlib.asynccontextmanager
    async def async_limiters(self):
        from psycopg_pool import AsyncConnectionPool

        async with AsyncConnectionPool(self._given["where"], **self._options("tasks")) as pool:
            yield self._limiters(pool)


class Records:
    """Where calls that were admitted are noted, so that nothing is lost of one that is killed."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, kind, name, weight, sent):
        line = f"{kind} {name} {weight} {sent} {time.monotonic()}\n"
        os.write(self._file, line.encode())


def ask(kind, limiter, records, failures):
    while True:
        name, weight = random.choice(KINDS[kind]), random.choice((1, 1, 2, 3))
        terms = random.choice(
            ({"blocking": False}, {"timeout": 0.05}, {"timeout": 0.5}, {"timeout": 2})
        )
        sent = time.monotonic()
        with contextlib.suppress(*failures):
            if limiter.try_acquire(name, weight, **terms):
                records.add(kind, name, weight, sent)
                continue
        time.sleep(PAUSE)


async def ask_async(kind, limiter, records, failures):
    while True:
        name, weight = random.choice(KINDS[kind]), random.choice((1, 1, 2, 3))
        sent = time.monotonic()
        asking = limiter.try_acquire_async(name, weight, timeout=random.choice((0.5, 2)))
        with contextlib.suppress(*failures, asyncio.TimeoutError):
            if await asyncio.wait_for(asking, random.choice((0.1, 0.5, 3))):
                records.add(kind, name, weight, sent)
                continue
        await asyncio.sleep(PAUSE)


async def main(given):
    import psycopg
    import redis

    given["rates"] = [Rate(*pair) for pair in given["rates"]]
    records, failures = Records(given["records"]), (psycopg.Error, redis.RedisError)
    backend = {"redis": OnRedis, "postgres": OnPostgres}[given["backend"]](given)
    with backend.limiters() as limiters:
        for kind, limiter in limiters.items():
            for _ in range(THREADS):
                arguments = (kind, limiter, records, failures)
                threading.Thread(target=ask, args=arguments, daemon=True).start()
        async with backend.async_limiters() as async_limiters:
            await asyncio.gather(
                *(
                    ask_async(kind, limiter, records, failures)
                    for kind, limiter in async_limiters.items()
                    for _ in range(TASKS)
                )
            )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
