"""Programs for 3.x as people wrote them, unchanged: every import is from the top of the package."""

import asyncio
import inspect
import multiprocessing
import re
import time
from concurrent.futures import ProcessPoolExecutor
from inspect import isawaitable
from threading import Thread
from unittest.mock import patch

import pytest

import pyrate_limiter
from pyrate_limiter import (
    BucketAsyncWrapper,
    BucketFactory,
    BucketFullException,
    Duration,
    InMemoryBucket,
    Limiter,
    LimiterDelayException,
    MultiprocessBucket,
    PostgresBucket,
    PostgresClock,
    Rate,
    RateItem,
    RedisBucket,
    SQLiteBucket,
    SQLiteClock,
    TimeClock,
    limiter_factory,
    validate_rate_list,
)
from tests.support import postgres_fixtures
from tests.support.redis_servers import fresh_key, shared_url, sync_client


@pytest.mark.parametrize(
    "delay", [Duration.MINUTE, Duration.MINUTE.value, 60_000, Duration.DAY, Duration.SECOND * 30]
)
def test_a_limiter_that_waits_and_whose_answer_nobody_reads(world, delay):
    limiter = Limiter(Rate(2, Duration.SECOND), raise_when_fail=False, max_delay=delay)
    world.on(limiter.bucket_factory.bucket)
    start = world.ms
    for _ in range(5):
        limiter.try_acquire("get")
    assert world.ms - start == 2 * 1_051


def test_a_list_of_rates_in_a_bucket(world):
    bucket = world.on(InMemoryBucket([Rate(2, Duration.SECOND)]))
    limiter = Limiter(bucket, raise_when_fail=False, max_delay=Duration.MINUTE)
    world.on(bucket)
    assert [limiter.try_acquire("x") for _ in range(3)] == [True] * 3


def test_the_delay_is_read_from_the_exception(world):
    limiter = Limiter(Rate(1, 300), max_delay=100)
    world.on(limiter.bucket_factory.bucket)
    limiter.try_acquire("x")
    with pytest.raises(LimiterDelayException) as caught:
        limiter.try_acquire("x")
    error = caught.value
    assert (error.actual_delay, error.max_delay, error.item.name) == (350, 100, "x")
    assert error.meta_info["actual_delay"] / 1000 == 0.35
    assert re.search(r"actual=(\d+)", str(error)).group(1) == "350"


def test_a_refusal_says_how_long_in_seconds_as_in_2x(world):
    limiter = Limiter(Rate(1, 300), raise_when_fail=True)
    world.on(limiter.bucket_factory.bucket)
    limiter.try_acquire("x")
    with pytest.raises(BucketFullException) as caught:
        limiter.try_acquire("x")
    assert caught.value.meta_info["remaining_time"] == 0.301
    with pytest.raises(BucketFullException) as caught:
        limiter.try_acquire("x", 2)
    assert "remaining_time" not in caught.value.meta_info


def test_a_loop_of_ones_own(world):
    limiter = Limiter(Rate(1, 300), raise_when_fail=False)
    world.on(limiter.bucket_factory.bucket)
    limiter.try_acquire("x")
    rounds = 0
    while not limiter.try_acquire("x"):
        world.advance(10)
        rounds += 1
    assert rounds == 31


def test_tokens_are_a_weight(world):
    limiter = Limiter(Rate(100_000, Duration.MINUTE), raise_when_fail=False)
    world.on(limiter.bucket_factory.bucket)
    answers = [limiter.try_acquire("model", weight=tokens) for tokens in (60_000, 50_000, 40_000)]
    assert answers == [True, False, True]


class PerUser(BucketFactory):
    def __init__(self, *rates):
        self.clock = TimeClock()
        self.rates = list(rates)
        self.buckets = {}

    def wrap_item(self, name, weight=1):
        return RateItem(name, self.clock.now(), weight=weight)

    def get(self, item):
        if item.name not in self.buckets:
            self.buckets[item.name] = self.create(self.clock, InMemoryBucket, rates=self.rates)
        return self.buckets[item.name]


def test_a_factory_for_each_user():
    factory = PerUser(Rate(1, Duration.MINUTE))
    limiter = Limiter(factory, raise_when_fail=False)
    assert [limiter.try_acquire(name) for name in "aabba"] == [True, False, True, False, False]
    assert len(limiter.buckets()) == 2
    assert isinstance(factory.buckets["a"]._clock, TimeClock)


@pytest.mark.parametrize("call", [Limiter, lambda one: Limiter(argument=one)])
def test_a_factory_that_keeps_a_clock_of_3x_makes_a_limiter_of_3x(call):
    limiter = call(PerUser(Rate(1, Duration.MINUTE)))
    assert limiter.try_acquire("a")
    with pytest.raises(BucketFullException):
        limiter.try_acquire("a")


def test_a_factory_with_another_clock_makes_a_limiter_of_this_release():
    factory = PerUser(Rate(1, Duration.MINUTE))
    factory.clock = pyrate_limiter.WallClock()
    assert type(Limiter(factory)) is Limiter


class Ready(BucketFactory):
    def __init__(self, clock, bucket):
        self.clock, self.bucket = clock, bucket
        self.leak_interval = 300
        self.schedule_leak(bucket, clock)

    def schedule_leak(self, *args):
        super().schedule_leak(*args)

    def wrap_item(self, name, weight=1):
        now = self.clock.now()

        async def later():
            return RateItem(name, await now, weight)

        return later() if isawaitable(now) else RateItem(name, now, weight)

    def get(self, item):
        return self.bucket


@pytest.mark.parametrize("clock", ["TimeClock", "TimeAsyncClock"])
def test_a_factory_over_a_ready_bucket(clock):
    async def main():
        bucket = InMemoryBucket([Rate(1, Duration.MINUTE)])
        factory = Ready(getattr(pyrate_limiter, clock)(), bucket)
        limiter = Limiter(factory, raise_when_fail=False)
        answers = [limiter.try_acquire("x"), limiter.try_acquire("x")]
        answers = [await one if isawaitable(one) else one for one in answers]
        assert factory.leak_interval == 300
        return answers

    assert asyncio.run(main()) == [True, False]


def test_tasks_over_an_async_wrapper_take_turns():
    async def main():
        bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, 100)]))
        limiter = Limiter(bucket, max_delay=Duration.MINUTE, raise_when_fail=False)
        order = []

        async def one(number):
            assert await limiter.try_acquire_async("x", 1)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(4)))
        return order

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_a_limiter_over_an_async_bucket_is_built_outside_an_event_loop():
    bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, 60_000)]))
    limiter = Limiter(bucket, raise_when_fail=False)

    async def main():
        return [await limiter.try_acquire("x"), await limiter.try_acquire("x")]

    assert asyncio.run(main()) == [True, False]


@pytest.mark.parametrize("kwargs", [{}, {"table": "mine"}, {"use_file_lock": True}])
@pytest.mark.parametrize(
    "make_clock",
    [SQLiteClock, lambda bucket: SQLiteClock(bucket.conn), lambda _: TimeClock()],
)
def test_a_sqlite_file(tmp_path, kwargs, make_clock):
    rates = [Rate(2, Duration.MINUTE)]
    bucket = SQLiteBucket.init_from_file(rates, db_path=str(tmp_path / "x.sqlite"), **kwargs)
    limiter = Limiter(bucket, clock=make_clock(bucket), raise_when_fail=False)
    assert [limiter.try_acquire("x") for _ in range(3)] == [True, True, False]
    bucket.close()


def acquire_in_worker(_):
    return limiter_factory.LIMITER.try_acquire("task")


def set_up_worker(bucket):
    limiter_factory.init_global_limiter(bucket, max_delay=5, raise_when_fail=False)


def test_worker_processes_share_a_bucket():
    bucket = MultiprocessBucket.init([Rate(4, Duration.HOUR)])
    with ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn"), initializer=set_up_worker, initargs=(bucket,)
    ) as pool:
        answers = list(pool.map(acquire_in_worker, range(8)))
    assert sum(answers) == 4


def test_threads_retry_until_max_delay():
    bucket = InMemoryBucket([Rate(2, 100)])
    limiter = Limiter(
        bucket, max_delay=Duration.DAY, raise_when_fail=False, retry_until_max_delay=True
    )
    answers = []
    threads = [Thread(target=lambda: answers.append(limiter.try_acquire("x"))) for _ in range(6)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 6
    assert time.monotonic() - start >= 0.2


def test_redis_awaited_or_not():
    rates = [Rate(1, Duration.MINUTE)]
    with sync_client(shared_url()) as client:
        limiter = Limiter(RedisBucket.init(rates, client, fresh_key()), raise_when_fail=False)
        assert [limiter.try_acquire("x"), limiter.try_acquire("x")] == [True, False]

    async def main():
        import redis.asyncio

        client = redis.asyncio.Redis.from_url(shared_url())
        bucket = await RedisBucket.init(rates, client, fresh_key())
        limiter = Limiter(bucket, raise_when_fail=False)
        answers = [await limiter.try_acquire_async("x"), await limiter.try_acquire("x")]
        await client.aclose()
        return answers

    assert asyncio.run(main()) == [True, False]


@pytest.mark.parametrize("own_clock", [True, False])
def test_postgres(own_clock):
    with postgres_fixtures.pool() as pool:
        bucket = PostgresBucket(pool, postgres_fixtures.table(), [Rate(2, Duration.MINUTE)])
        kwargs = {"clock": PostgresClock(pool)} if own_clock else {}
        limiter = Limiter(bucket, raise_when_fail=False, **kwargs)
        assert [limiter.try_acquire("x") for _ in range(3)] == [True, True, False]
        limiter.max_delay = 5
        assert not asyncio.run(limiter.try_acquire_async("x"))


def test_ready_made_limiters(tmp_path):
    limiter = limiter_factory.create_inmemory_limiter(
        rate_per_duration=1, duration=Duration.MINUTE, max_delay=5
    )
    assert [limiter.try_acquire("x"), limiter.try_acquire("x")] == [True, False]
    path = str(tmp_path / "x.sqlite")
    limiter = limiter_factory.create_sqlite_limiter(
        rate_per_duration=1, duration=Duration.MINUTE, db_path=path, max_delay=5
    )
    assert [limiter.try_acquire("x"), limiter.try_acquire("x")] == [True, False]
    limiter.bucket_factory.bucket.close()


def test_looking_into_a_bucket_under_the_lock():
    limiter = Limiter(Rate(2, Duration.HOUR), raise_when_fail=False, max_delay=None)
    bucket = limiter.buckets()[0]
    assert limiter.bucket_factory.bucket.rates[0].interval == Duration.HOUR
    item = limiter.bucket_factory.wrap_item("x", 2)
    with limiter.lock:
        assert bucket.waiting(item) == 0
    assert bucket.put(RateItem("dummy", TimeClock().now(), 2))
    assert not limiter.try_acquire("x")
    assert bucket.count() == bucket.rates[0].limit
    with limiter.lock:
        assert 0 < bucket.waiting(limiter.bucket_factory.wrap_item("x", 1)) <= 3_600_001


def test_the_delay_is_changed_around_one_call(world):
    limiter = Limiter(Rate(1, 300), max_delay=Duration.MINUTE)
    world.on(limiter.bucket_factory.bucket)
    limiter.try_acquire("x")
    before, limiter.max_delay = limiter.max_delay, None
    with pytest.raises(BucketFullException):
        limiter.try_acquire("x")
    limiter.max_delay = before
    assert limiter.try_acquire("x")


def test_the_leaker_is_looked_at():
    limiter = Limiter(Rate(1, 300), raise_when_fail=True)
    leaker = limiter.bucket_factory._leaker
    assert leaker.is_alive()
    assert isinstance(leaker.ident, int)
    assert list(leaker.clocks) == list(leaker.sync_buckets)
    leaker.join(timeout=0)
    assert leaker.is_alive()
    assert limiter.dispose(limiter.buckets()[0])
    leaker.join()
    assert not leaker.is_alive()


def test_a_test_suite_replaces_the_delay():
    limiter = Limiter(Rate(1, Duration.HOUR), max_delay=5)
    limiter.try_acquire("x")
    refusal = BucketFullException(RateItem("x", timestamp=None), Rate(5, 3600))
    with (
        patch("pyrate_limiter.limiter.Limiter.delay_or_raise", side_effect=refusal) as replaced,
        pytest.raises(BucketFullException, match=r"limit=5/3\.6s"),
    ):
        limiter.try_acquire("x")
    assert replaced.call_count == 1
    with patch("pyrate_limiter.limiter.Limiter.delay_or_raise", return_value=True):
        assert limiter.try_acquire("x")
    with pytest.raises(LimiterDelayException):
        limiter.try_acquire("x")


def test_submodules_are_where_they_were():
    from pyrate_limiter.abstracts import AbstractClock
    from pyrate_limiter.abstracts import Rate as Same
    from pyrate_limiter.abstracts.clock import AbstractClock as Clock
    from pyrate_limiter.abstracts.rate import RateItem as Item
    from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket as Bucket
    from pyrate_limiter.clocks import TimeClock as Time
    from pyrate_limiter.exceptions import BucketFullException as Full
    from pyrate_limiter.limiter import BucketFullException as FullAgain

    assert Clock is AbstractClock is pyrate_limiter.AbstractClock
    assert (Same, Item, Bucket, Time) == (Rate, RateItem, InMemoryBucket, TimeClock)
    assert Full is FullAgain is BucketFullException
    assert validate_rate_list([Rate(limit=5, interval=100)])


def test_a_program_that_tries_3x_first_gets_3x():
    try:
        limiter = Limiter(
            InMemoryBucket([Rate(1, Duration.HOUR)]),
            max_delay=5,
            raise_when_fail=False,
            retry_until_max_delay=True,
        )
    except TypeError:
        limiter = Limiter(InMemoryBucket([Rate(1, Duration.HOUR)]))
    assert [limiter.try_acquire("x"), limiter.try_acquire("x")] == [True, False]
    assert "blocking" not in inspect.signature(limiter.try_acquire).parameters


def test_what_is_shown_at_the_top_is_of_this_release():
    assert "raise_when_fail" not in inspect.signature(Limiter.__init__).parameters
    assert list(inspect.signature(Limiter).parameters)[:2] == ["argument", "buffer_ms"]
    assert list(inspect.signature(SQLiteBucket).parameters)[:2] == ["rates", "conn"]
    plain = Limiter(Rate(1, 300))
    assert type(plain) is Limiter
    assert "blocking" in inspect.signature(plain.try_acquire).parameters


def test_several_rates_outside_a_list_are_a_mistake_that_is_explained():
    with pytest.raises(TypeError, match="whole number of milliseconds"):
        Limiter(Rate(1, 300), Rate(5, 3_000))
    with pytest.raises(TypeError, match="several rates go into one list"):
        Limiter(Rate(1, 300), Rate(5, 3_000), Rate(7, 30_000))
