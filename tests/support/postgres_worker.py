"""One process of a fleet: ``postgres_worker.py DSN TABLE KIND COUNT CALLS SECONDS LIMIT MS``.

It runs with this library and with 4.5.1 alike, and prints what happened as JSON.
"""

import asyncio
import itertools
import json
import os
import sys
import threading
import time

from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pyrate_limiter import (
    Limiter,
    PostgresBucket,
    Rate,
    SingleBucketFactory,
    SlidingWindowLog,
)

DSN, TABLE, KIND = sys.argv[1:4]
COUNT, CALLS, SECONDS, LIMIT, INTERVAL = (int(word) for word in sys.argv[4:])
RATES = [Rate(LIMIT, INTERVAL)]
numbers = itertools.count()


def policy():
    class Own(SlidingWindowLog):
        """A policy that runs in this process."""

    return Own() if KIND == "own" else None


def options():
    return {"reserve_ahead": False} if KIND == "retrying" else {}


def make_limiter(pool):
    bucket = PostgresBucket(pool, TABLE, RATES, policy())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # Nobody leaks, for the test wants to see all units.
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False), **options())


def call(limiter):
    """One admission: under which name, whether it was given, and when."""
    name = f"{os.getpid()}-{next(numbers)}"
    if KIND == "nonblocking":
        admitted = limiter.try_acquire(name, blocking=False)
    else:
        admitted = limiter.try_acquire(name, timeout=SECONDS)
    return admitted, name, time.time()


def threads():
    pool = ConnectionPool(DSN, min_size=1, max_size=COUNT, open=True, timeout=20)
    pool.wait()
    limiter = make_limiter(pool)
    results, errors = [], []
    go_on_until = time.monotonic() + SECONDS

    def work():
        try:
            results.extend(call(limiter) for _ in range(CALLS))
            while KIND == "nonblocking" and time.monotonic() < go_on_until:
                results.append(call(limiter))
        except Exception as error:  # noqa: BLE001 - it is told to the test
            errors.append(repr(error))

    workers = [threading.Thread(target=work) for _ in range(COUNT)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    pool.close()
    return results, errors


async def tasks():
    async with AsyncConnectionPool(DSN, min_size=1, max_size=4, timeout=20) as pool:
        limiter = make_limiter(pool)
        results, errors = [], []

        async def work():
            try:
                for _ in range(CALLS):
                    name = f"{os.getpid()}-{next(numbers)}"
                    admitted = await limiter.try_acquire_async(name, timeout=SECONDS)
                    results.append((admitted, name, time.time()))
            except Exception as error:  # noqa: BLE001 - it is told to the test
                errors.append(repr(error))

        await asyncio.gather(*(work() for _ in range(COUNT)))
        return results, errors


results, errors = asyncio.run(tasks()) if KIND == "tasks" else threads()
sys.stdout.write(json.dumps({"results": results, "errors": errors}))
