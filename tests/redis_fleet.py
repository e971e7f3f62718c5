"""One process of a fleet on one Redis key; also run by the Python of an older release.

Arguments, as JSON: url, key, limit, interval, calls, threads or tasks, shift (by how many ms this
process's clock is off), blocking, reserve_ahead. It prints, as JSON, the outcome of each call.
"""

import asyncio
import inspect
import json
import sys
import threading
import time


def shift_clock(milliseconds: int) -> None:
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + milliseconds / 1000
    time.time_ns = lambda: real_ns() + milliseconds * 1_000_000


def limiter_on(bucket, given):
    from pyrate_limiter import Limiter

    if "reserve_ahead" in inspect.signature(Limiter).parameters:
        return Limiter(bucket, reserve_ahead=given["reserve_ahead"])
    return Limiter(bucket)


def run_threads(given) -> list[bool]:
    import redis

    from pyrate_limiter import Rate, RedisBucket

    client = redis.Redis.from_url(given["url"])
    bucket = RedisBucket.init([Rate(given["limit"], given["interval"])], client, given["key"])
    limiter = limiter_on(bucket, given)
    outcomes = []

    def work() -> None:
        for _ in range(given["calls"]):
            outcome = limiter.try_acquire("unit", blocking=given["blocking"])
            if not outcome and given["full"]:
                outcome = client.zcard(given["key"]) - given["limit"]  # 0: it really is full
            outcomes.append(outcome)

    threads = [threading.Thread(target=work) for _ in range(given["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


async def run_tasks(given) -> list[bool]:
    import redis.asyncio

    from pyrate_limiter import Rate, RedisBucket

    client = redis.asyncio.Redis.from_url(given["url"])
    bucket = await RedisBucket.init([Rate(given["limit"], given["interval"])], client, given["key"])
    limiter = limiter_on(bucket, given)
    order = []

    async def work(number: int) -> None:
        await limiter.try_acquire_async("unit", blocking=given["blocking"])
        order.append(number)

    await asyncio.gather(*(work(number) for number in range(given["tasks"])))
    await client.aclose()
    return order


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    shift_clock(arguments["shift"])
    sys.stdin.readline()
    if "tasks" in arguments:
        print(json.dumps(asyncio.run(run_tasks(arguments))))  # noqa: T201
    else:
        print(json.dumps(run_threads(arguments)))  # noqa: T201
