"""One key of a Redis server."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, median, wall_per_call
from benchmarks.registry import Answer, Target, expect, row
from benchmarks.rows.e_tasks import ask_for_free_key
from benchmarks.servers import REDIS_URL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.library import Library

CALLS, CHUNKS, TASKS, ROUNDS, WEIGHT, THREADS, WAIT_MS = 2000, 20, 1000, 15, 1000, 8, 500

_keys = itertools.count()

# The least that holds an exact limit and leaves nothing behind.
SMALL_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('ZREVRANGE', KEYS[1], ARGV[1] - 1, ARGV[1] - 1, 'WITHSCORES')
if last[2] and last[2] + ARGV[2] >= now then return 0 end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


def _key() -> str:
    return f"bench:{os.getpid()}:{next(_keys)}"


def _client() -> Any:
    import redis

    return redis.Redis.from_url(os.environ[REDIS_URL])


def _async_client() -> Any:
    import redis.asyncio

    return redis.asyncio.Redis.from_url(os.environ[REDIS_URL])


def _bucket(lib: Library, client: Any, limit: int, interval_ms: int = HOUR_MS) -> Any:
    return lib.api.RedisBucket.init([lib.api.Rate(limit, interval_ms)], client, _key())


def _over(limiter: Any, bucket: Any, limit: int) -> int:
    """Units beyond the limit of a bucket that the row has just filled, asking for a few more."""
    more = sum(bool(limiter.try_acquire("k", blocking=False)) for _ in range(10))
    expect(bucket.count() == limit + more, "wrong count")
    return more


def _floor() -> Answer:
    client, numbers = _client(), itertools.count()
    sha, key = client.script_load(SMALL_SCRIPT), _key()
    return Answer(
        wall_per_call(
            lambda: client.evalsha(sha, 1, key, CALLS, HOUR_MS, f"k:{next(numbers)}"), CALLS, CHUNKS
        )
    )


@row("redis-admitted", "Redis, sync, admitted", "us", Target(times=1.1), _floor)
def admitted(lib: Library) -> Answer:
    bucket = _bucket(lib, _client(), CALLS)
    limiter = lib.api.Limiter(bucket)
    answers: list[Any] = []
    value = wall_per_call(
        lambda: answers.append(limiter.try_acquire("k", blocking=False)), CALLS, CHUNKS
    )
    expect(answers == [True] * CALLS, "refused with room to spare")
    return Answer(value, over=_over(limiter, bucket, CALLS))


def _state(lib: Library, client: Any, limit: int) -> Any:
    store = lib.api.RedisStateStore(client, _key())
    return lib.api.StateBucket([lib.api.Rate(limit, HOUR_MS)], store=store)


@row("redis-gcra-admitted", "Redis, GCRA, sync, admitted", "us", Target(times=1.1))
def gcra_admitted(lib: Library) -> Answer:
    limiter = lib.api.Limiter(_state(lib, _client(), CALLS))
    answers: list[Any] = []
    value = wall_per_call(
        lambda: answers.append(limiter.try_acquire("k", blocking=False)), CALLS, CHUNKS
    )
    expect(answers == [True] * CALLS, "refused with room to spare")
    return Answer(value)


@row("redis-gcra-denied", "Redis, GCRA, sync, denied by the server", "us", Target(times=1.1))
def gcra_denied(lib: Library) -> Answer:
    bucket = _state(lib, _client(), 1)
    item, answers = partial(lib.api.RateItem, "k"), []
    expect(bucket.put(item(bucket.now())), "refused with room to spare")
    value = wall_per_call(lambda: answers.append(bucket.put(item(bucket.now()))), CALLS, CHUNKS)
    expect(answers == [False] * CALLS, "admitted over the limit")
    return Answer(value)


@row("redis-gcra-task", "Redis, GCRA, asyncio, one task, admitted", "us", Target(times=1.1))
def gcra_task(lib: Library) -> Answer:
    async def measure() -> Answer:
        found: list[float] = []
        async with _async_client() as client:
            limiter = lib.api.Limiter(_state(lib, client, CALLS))
            for _ in range(CHUNKS):
                start = time.perf_counter()
                for _ in range(CALLS // CHUNKS):
                    expect(await limiter.try_acquire_async("k"), "refused with room to spare")
                found.append((time.perf_counter() - start) / (CALLS // CHUNKS) * 1e6)
        return Answer(median(found))

    return asyncio.run(measure())


@row("redis-threads", "Redis, 8 threads, admitted", "us")
def threads(lib: Library) -> Answer:
    each = CALLS // THREADS
    bucket = _bucket(lib, _client(), each * THREADS)
    limiter = lib.api.Limiter(bucket)
    answers: list[Any] = []

    def work() -> None:
        answers.extend([limiter.try_acquire("k") for _ in range(each)])

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    value = (time.perf_counter() - start) / (each * THREADS) * 1e6
    expect(answers == [True] * (each * THREADS), "refused with room to spare")
    return Answer(value, over=_over(limiter, bucket, each * THREADS))


async def _all_at_once(call: Callable[[], Awaitable[object]]) -> tuple[float, list[Any]]:
    start = time.perf_counter()
    answers = await asyncio.gather(*(call() for _ in range(TASKS)))
    return (time.perf_counter() - start) / TASKS * 1e6, answers


def _pipelined() -> Answer:
    """As many calls of the small script in one pipeline."""

    async def measure() -> Answer:
        found: list[float] = []
        async with _async_client() as client:
            sha = await client.script_load(SMALL_SCRIPT)
            for _ in range(ROUNDS):
                key, start = _key(), time.perf_counter()
                pipe = client.pipeline(transaction=False)
                for number in range(TASKS):
                    pipe.evalsha(sha, 1, key, TASKS, HOUR_MS, f"k:{number}")
                expect(sum(await pipe.execute()) == TASKS, "the floor is wrong")
                found.append((time.perf_counter() - start) / TASKS * 1e6)
        return Answer(median(found))

    return asyncio.run(measure())


@row("redis-1000-tasks", "Redis, asyncio, 1 000 tasks at once", "us", Target(times=8), _pipelined)
def thousand_tasks(lib: Library) -> Answer:
    async def measure() -> Answer:
        found, over = [], 0
        async with _async_client() as client:
            for _ in range(ROUNDS):
                bucket = await _bucket(lib, client, TASKS)
                limiter = lib.api.Limiter(bucket)
                value, answers = await _all_at_once(partial(limiter.try_acquire_async, "k"))
                expect(answers == [True] * TASKS, "refused with room to spare")
                more = [await limiter.try_acquire_async("k", blocking=False) for _ in range(10)]
                expect(await bucket.count() == TASKS + sum(more), "wrong count")
                found.append(value)
                over = max(over, sum(more))
        return Answer(median(found), over)

    return asyncio.run(measure())


HEAVY_CALLS = 3 * CHUNKS


def _members() -> Answer:
    """ZADD of as many members, packed beforehand: each unit is a member of the set."""
    client, key, score = _client(), _key(), time.time_ns() // 1_000_000
    connection = client.connection_pool.get_connection()

    def packed(call: int) -> Any:
        words = [word for unit in range(WEIGHT) for word in (score, f"k:{call:016x}:{unit}")]
        return connection.pack_command("ZADD", key, *words)

    commands = iter([packed(call) for call in range(HEAVY_CALLS)])

    def add() -> None:
        connection.send_packed_command(next(commands))
        expect(connection.read_response() == WEIGHT, "the floor is wrong")

    return Answer(wall_per_call(add, HEAVY_CALLS, CHUNKS))


@row("redis-weight-1000", "Redis, weight 1 000", "us", Target(times=3), _members)
def heavy(lib: Library) -> Answer:
    calls = HEAVY_CALLS
    bucket = _bucket(lib, _client(), WEIGHT * calls)
    limiter = lib.api.Limiter(bucket)
    answers: list[Any] = []
    value = wall_per_call(
        lambda: answers.append(limiter.try_acquire("k", WEIGHT, blocking=False)), calls, CHUNKS
    )
    expect(answers == [True] * calls, "refused with room to spare")
    return Answer(value, over=_over(limiter, bucket, WEIGHT * calls))


@row("redis-denied-again", "Redis, denied again before the wait is over", "us", Target(times=20))
def denied_again(lib: Library) -> Answer:
    client = _client()
    return _denied_again(lib, client, _bucket(lib, client, 10))


@row("redis-gcra-denied-again", "Redis, GCRA, denied again", "us", Target(times=20))
def gcra_denied_again(lib: Library) -> Answer:
    client = _client()
    return _denied_again(lib, client, _state(lib, client, 10))


def _denied_again(lib: Library, client: Any, bucket: Any) -> Answer:
    limiter = lib.api.Limiter(bucket)
    for _ in range(10):
        expect(limiter.try_acquire("k", blocking=False), "refused with room to spare")
    limiter.try_acquire("k", blocking=False)
    answers: list[Any] = []
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    value = wall_per_call(
        lambda: answers.append(limiter.try_acquire("k", blocking=False)), CALLS, CHUNKS
    )
    asked = client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    return Answer(value, answers.count(True), f"{asked} round trips for {CALLS} calls")


@row("redis-free-key", "Redis: a free key while another task waits", "ms", Target(at_most=10))
def free_key(lib: Library) -> Answer:
    async def measure() -> Answer:
        async with _async_client() as client:
            script = importlib.import_module("pyrate_limiter.buckets.redis_bucket").LuaScript
            sha = await client.script_load(script.PUT_ITEM)
            limiter = lib.per_key(
                lib.api.Rate(1, WAIT_MS),
                lambda rates: lib.api.RedisBucket(rates, client, _key(), sha),
            )
            expect(await limiter.try_acquire_async("warm"), "refused with room to spare")
            return await ask_for_free_key(limiter, WAIT_MS / 1000)

    return asyncio.run(measure())
