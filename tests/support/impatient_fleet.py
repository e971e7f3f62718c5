"""Processes full of callers that give up, on one shared bucket. As a program it is one of them.

Arguments: kind, where, name, limit, interval (ms), callers per second, patience (s), seconds. It
prints "ready", begins when it is given a line, and prints the times (s, on the clock of all
processes) at which callers went, and how often it has called the bucket.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLS = ("reserve", "reserve_several", "confirm", "confirm_several", "cancel_several")


def bucket_at(kind, where, name, rates):
    """The bucket, and what has to be closed after it."""
    from pyrate_limiter import PostgresBucket, RedisBucket, SQLiteBucket

    if kind == "sqlite":
        return SQLiteBucket.init_from_file(rates, db_path=where), contextlib.nullcontext()
    if kind == "redis":
        import redis

        client = redis.Redis.from_url(where)
        return RedisBucket.init(rates, client, name), client
    from tests.support import postgres_fixtures

    pool = postgres_fixtures.pool(where)
    return PostgresBucket(pool, name, rates), pool


def places(kind, folder):
    """Where a bucket of that kind lives, and its name there."""
    from tests.support import postgres_fixtures
    from tests.support.redis_servers import DEFAULT, shared_url

    name = postgres_fixtures.table()
    if kind == "sqlite":
        return str(folder / f"{name}.db"), name
    return (shared_url(DEFAULT) if kind == "redis" else postgres_fixtures.dsn()), name


@contextlib.contextmanager
def fleet(number, *arguments):
    """So many processes, all of which have begun."""
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.impatient_fleet", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes


def _counted(bucket, counts):
    def counting(call):
        def counted(*args, **more):
            counts[0] += 1
            return call(*args, **more)

        return counted

    for name in CALLS:
        call = getattr(bucket, name, None)
        if call is not None:
            setattr(bucket, name, counting(call))


async def _run(limiter, per_second, patience, seconds):
    went, calls = [], []

    async def call():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(
                limiter.try_acquire_async(str(os.getpid())), patience * random.uniform(0.8, 1.2)
            )
            went.append(time.time())

    begun = time.monotonic()
    while (now := time.monotonic() - begun) < seconds:
        while len(calls) < now * per_second:
            calls.append(asyncio.ensure_future(call()))
        await asyncio.sleep(0.005)
    await asyncio.gather(*calls)
    return went


def main(kind, where, name, limit, interval, per_second, patience, seconds):
    from pyrate_limiter import Limiter, Rate

    bucket, driver = bucket_at(kind, where, name, [Rate(int(limit), int(interval))])
    counts = [0]
    with driver, bucket:
        _counted(bucket, counts)
        limiter = Limiter(bucket, buffer_ms=0)
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        went = asyncio.run(_run(limiter, float(per_second), float(patience), float(seconds)))
    print(json.dumps({"went": went, "calls": counts[0]}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
