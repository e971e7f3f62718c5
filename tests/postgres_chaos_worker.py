"""One process of threads and tasks that never stop asking: ``postgres_chaos_worker.py DSN TABLE``.

It is killed, stopped and started again by the test, and has nothing to tell.
"""

import asyncio
import contextlib
import logging
import random
import sys
import threading

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pyrate_limiter import Limiter, PostgresBucket, Rate, SingleBucketFactory

RATES = [Rate(40, 1000), Rate(300, 10_000)]
THREADS, TASKS, CONNECTIONS = 4, 12, 2
away = contextlib.suppress(psycopg.Error, TimeoutError)


def limiter_over(pool, table):
    bucket = PostgresBucket(pool, table, RATES)
    # Nobody leaks, for the test wants to see all units.
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False))


def ask(limiter):
    while True:
        with away:
            limiter.try_acquire("thread", random.randint(1, 3), timeout=random.choice([0.2, 1]))


async def ask_async(limiter):
    while True:
        asking = limiter.try_acquire_async("task", random.randint(1, 3), timeout=1)
        with away:
            await asyncio.wait_for(asking, random.choice([0.1, 0.5, 2]))


async def main(dsn, table):
    with ConnectionPool(dsn, min_size=1, max_size=CONNECTIONS, open=True, timeout=5) as pool:
        limiter = limiter_over(pool, table)
        for _ in range(THREADS):
            threading.Thread(target=ask, args=(limiter,), daemon=True).start()
        async with AsyncConnectionPool(
            dsn, min_size=1, max_size=CONNECTIONS, timeout=5, open=False
        ) as async_pool:
            limiter = limiter_over(async_pool, table)
            await asyncio.gather(*(ask_async(limiter) for _ in range(TASKS)))


if __name__ == "__main__":
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it tells of each lost connection
    asyncio.run(main(*sys.argv[1:]))
