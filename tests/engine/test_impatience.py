"""Callers that give up: nobody starves, and nothing is left behind. On every kind of bucket."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from pyrate_limiter import BucketFactory, Limiter, Rate, RateItem
from pyrate_limiter._engine.wait_options import ahead_ms
from pyrate_limiter._engine.wait_queue import queue_at
from tests.support import postgres_fixtures
from tests.support.backends import ALL, bucket_of
from tests.support.doubles import ListBucket, one
from tests.support.redis_servers import DEFAULT, shared_url

AHEAD_MS = ahead_ms(True)


async def outlook(limiter):
    return await limiter.acquire_async("next", blocking=False)


async def settled(call):
    """Wait until what others give back on their way out has arrived."""
    for _ in range(2000):
        if await call():
            return True
        await asyncio.sleep(0.005)
    return False


async def gone(tasks):
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    return [answer for answer in answers if not isinstance(answer, BaseException)]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("how", ["wait_for", "cancel, back first", "timeout"])
def test_those_who_gave_up_leave_nothing_behind(kind, how, tmp_path):
    async def wait(limiter):
        if how == "wait_for":
            return await asyncio.wait_for(limiter.try_acquire_async("gone"), 0.05)
        return await limiter.try_acquire_async("gone", timeout=0.05 if how == "timeout" else 60)

    async def main():
        rates = [Rate(2, 60_000)]
        async with bucket_of(kind, rates, tmp_path) as bucket:
            limiter = Limiter(bucket)
            assert await limiter.try_acquire_async("first", 2)
            before = (await outlook(limiter)).retry_after_ms
            tasks = [asyncio.ensure_future(wait(limiter)) for _ in range(60)]
            await asyncio.sleep(0.02)
            if how.startswith("cancel"):
                for task in reversed(tasks):
                    task.cancel()
            assert not any(await gone(tasks))
            assert queue_at(bucket) is None

            async def as_before():
                return (await outlook(limiter)).retry_after_ms <= before

            assert await settled(as_before)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ALL)
def test_who_reserves_nothing_ahead_waits_all_the_same(kind, tmp_path):
    async def main():
        async with bucket_of(kind, [Rate(1, 60_000)], tmp_path) as bucket:
            limiter = Limiter(bucket, reserve_ahead=False)
            assert await limiter.try_acquire_async("first")
            await asyncio.wait_for(limiter.try_acquire_async("next"), 0.3)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())


@pytest.mark.parametrize("kind", ALL)
def test_whoever_stays_is_not_held_up_by_those_who_left(kind, tmp_path):
    async def main():
        async with bucket_of(kind, [Rate(1, 300)], tmp_path) as bucket:
            limiter = Limiter(bucket)
            assert await limiter.try_acquire_async("first")
            before = [asyncio.ensure_future(limiter.try_acquire_async("gone")) for _ in range(40)]
            await asyncio.sleep(0.01)
            stays = asyncio.ensure_future(limiter.try_acquire_async("stays"))
            await asyncio.sleep(0.01)
            for task in before:
                task.cancel()
            await gone(before)
            # It would be 12 s behind them, and the time of the loop is real.
            return await asyncio.wait_for(stays, 6)

    assert asyncio.run(main()) is True


@pytest.mark.parametrize("kind", ALL)
def test_the_limit_is_used_however_many_give_up(kind, tmp_path):
    """Three times as many as fit, each of whom stays half as long as the others make him wait."""
    interval, limit, windows = 150, 6, 12

    async def main():
        passed = []
        async with bucket_of(kind, [Rate(limit, interval)], tmp_path) as bucket:
            limiter, loop = Limiter(bucket, buffer_ms=0), asyncio.get_running_loop()

            async def call():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(limiter.try_acquire_async("a"), 0.12)
                    passed.append(loop.time())

            tasks, begun = [], loop.time()
            while loop.time() < begun + windows * interval / 1000:
                tasks += [asyncio.ensure_future(call()) for _ in range(3)]
                await asyncio.sleep(interval / 1000 / limit)
            second_half = begun + (loop.time() - begun) / 2
            await gone(tasks)
        return sum(moment > second_half for moment in passed)

    # Those who starve are admitted in the first windows only. A busy machine may lose some.
    assert asyncio.run(main()) >= windows / 2 * limit / 4


@pytest.mark.parametrize("kind", ALL)
def test_tasks_that_ask_in_one_turn_of_the_loop_are_admitted_in_this_order(kind, tmp_path):
    async def main():
        order = []
        async with bucket_of(kind, [Rate(4, 60)], tmp_path) as bucket:
            limiter = Limiter(bucket)

            async def call(number):
                assert await limiter.try_acquire_async("a")
                order.append(number)

            await asyncio.gather(*(call(number) for number in range(24)))
        return order

    assert asyncio.run(main()) == list(range(24))


WAITERS = """
    import asyncio, sys
    from pathlib import Path
    from tests.support import postgres_fixtures
    from pyrate_limiter import *

    async def main(kind, where, name):
        rates = [Rate(10, 1000)]
        if kind == "sqlite":
            bucket = SQLiteBucket.init_from_file(rates, db_path=where)
        elif kind == "redis":
            import redis
            bucket = RedisBucket.init(rates, redis.Redis.from_url(where), name)
        else:
            bucket = PostgresBucket(postgres_fixtures.pool(where), name, rates)
        limiter = Limiter(bucket)
        tasks = [asyncio.ensure_future(limiter.try_acquire_async("gone")) for _ in range(300)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.5)
        print("waiting", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main(*sys.argv[1:]))
"""


def places(kind, folder):
    name = postgres_fixtures.table()
    if kind == "sqlite":
        return str(folder / "limits.db"), name
    return (shared_url(DEFAULT) if kind == "redis" else postgres_fixtures.dsn()), name


def bucket_at(kind, where, name):
    from pyrate_limiter import PostgresBucket, RedisBucket, SQLiteBucket

    rates = [Rate(10, 1000)]
    if kind == "sqlite":
        return SQLiteBucket.init_from_file(rates, db_path=where), contextlib.nullcontext()
    if kind == "redis":
        import redis

        client = redis.Redis.from_url(where)
        return RedisBucket.init(rates, client, name), client
    pool = postgres_fixtures.pool(where)
    return PostgresBucket(pool, name, rates), pool


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_a_killed_process_with_many_waiters_leaves_no_more_than_the_look_ahead(kind, tmp_path):
    where, name = places(kind, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WAITERS), kind, where, name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.fspath(pytest_root()),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    bucket, driver = bucket_at(kind, where, name)
    with driver, bucket:
        retry = bucket.check(RateItem("next", bucket.now())).retry_after_ms or 0
    assert retry <= AHEAD_MS + 1001


def pytest_root():
    from pathlib import Path

    return Path(__file__).parents[2]


class SlowFactory(BucketFactory):
    """A user's factory, one method of which waits until it is told to go on."""

    def __init__(self, slow, bucket):
        self.slow, self.bucket, self.go_on = slow, bucket, asyncio.Event()

    async def wrap_item(self, name, weight=1):
        if self.slow == "wrap_item":
            await self.go_on.wait()
        return RateItem(name, self.bucket.now(), weight)

    async def get(self, item):
        if self.slow == "get":
            await self.go_on.wait()
        return self.bucket


class SlowPut(ListBucket):
    is_async = True

    def __init__(self):
        super().__init__(one(5))
        self.go_on = asyncio.Event()

    async def put(self, item):
        await self.go_on.wait()
        return super().put(item)


@pytest.mark.parametrize("slow", ["wrap_item", "get", "put"])
def test_a_caller_waits_no_longer_than_he_said_whatever_is_slow(slow):
    async def main():
        bucket = SlowPut()
        if slow != "put":
            bucket.go_on.set()
        factory = SlowFactory(slow, bucket)
        limiter = Limiter(factory)
        # Nothing that is slow goes on before all have answered.
        calls = [limiter.try_acquire_async("a", timeout=0.05) for _ in range(3)]
        answers = await asyncio.gather(*calls)
        factory.go_on.set()
        bucket.go_on.set()
        return answers, await limiter.try_acquire_async("a", timeout=60)

    assert asyncio.run(main()) == ([False] * 3, True)


def test_one_slow_key_of_ones_own_does_not_hold_up_another():
    class Keys(BucketFactory):
        def __init__(self):
            self.buckets = {"slow": SlowPut(), "free": SlowPut()}
            self.buckets["free"].go_on.set()

        def wrap_item(self, name, weight=1):
            return RateItem(name, self.buckets[name].now(), weight)

        def get(self, item):
            return self.buckets[item.name]

    async def main():
        factory = Keys()
        limiter = Limiter(factory)
        slow = [asyncio.ensure_future(limiter.try_acquire_async("slow")) for _ in range(3)]
        await asyncio.sleep(0)
        free = await limiter.try_acquire_async("free")
        waiting = not any(task.done() for task in slow)
        factory.buckets["slow"].go_on.set()
        return free, waiting, await asyncio.gather(*slow)

    assert asyncio.run(main()) == (True, True, [True] * 3)
