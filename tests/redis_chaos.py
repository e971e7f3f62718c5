"""A process that uses a Redis key in every way at once, until it is killed.

Arguments, as JSON: url, key, rates (pairs of limit and interval), seconds, threads, tasks.
It prints "ready", and at its end how many calls were admitted.
"""

import asyncio
import contextlib
import json
import random
import sys
import threading
import time


def run_threads(given, limits, end, admitted):
    import redis

    from pyrate_limiter import Limiter, RedisBucket

    client = redis.Redis.from_url(given["url"], max_connections=8)
    limiter = Limiter(RedisBucket(limits, client, given["key"], on_error="deny"))

    def work():
        while time.monotonic() < end:
            ways = ({"timeout": 0.5}, {"timeout": 0.02}, {"blocking": False}, {"timeout": 3})
            with contextlib.suppress(redis.RedisError):
                weight = random.choice((1, 1, 1, 2, 5))
                if limiter.try_acquire("thread", weight, **random.choice(ways)):
                    admitted.append(weight)
            time.sleep(0.005)

    threads = [threading.Thread(target=work) for _ in range(given["threads"])]
    for thread in threads:
        thread.start()
    return threads


async def run_tasks(given, limits, end, admitted):
    import redis.asyncio

    from pyrate_limiter import Limiter, RedisBucket

    client = redis.asyncio.Redis.from_url(given["url"], max_connections=8)
    limiter = Limiter(RedisBucket(limits, client, given["key"], on_error="deny"))

    async def work():
        while time.monotonic() < end:
            weight = random.choice((1, 1, 1, 2, 5))
            call = asyncio.ensure_future(limiter.try_acquire_async("task", weight, timeout=2))
            if random.random() < 0.3:  # it is cancelled
                await asyncio.wait([call], timeout=random.random() / 5)
                call.cancel()
            with contextlib.suppress(redis.RedisError, asyncio.CancelledError):
                if await call:
                    admitted.append(weight)
            await asyncio.sleep(0.005)

    await asyncio.gather(*(work() for _ in range(given["tasks"])))
    await client.aclose()


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(given):
    from pyrate_limiter import Rate

    limits = [Rate(*pair) for pair in given["rates"]]
    admitted, end = [], time.monotonic() + given["seconds"]
    say("ready")
    threads = run_threads(given, limits, end, admitted)
    asyncio.run(run_tasks(given, limits, end, admitted))
    for thread in threads:
        thread.join()
    say(sum(admitted))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
