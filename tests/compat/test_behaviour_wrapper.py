"""BucketAsyncWrapper and the clocks."""

import asyncio
import inspect
import time

import pytest
import time_machine
from freezegun import freeze_time

from pyrate_limiter import (
    BucketAsyncWrapper,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    MonotonicAsyncClock,
    MonotonicClock,
    Rate,
    RateItem,
    WallClock,
)
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.clocks import AbstractClock
from tests.support.doubles import ListBucket, in_async_form, one

CALLS = [
    ("put", (RateItem("x", 0),)),
    ("put_decision", (RateItem("x", 0),)),
    ("waiting", (RateItem("x", 0),)),
    ("leak", (0,)),
    ("flush", ()),
    ("count", ()),
    ("peek", (0,)),
    ("reserve", (RateItem("x", 0),)),
    ("confirm", (Reservation(RateItem("x", 0)), 0)),
    ("cancel", (Reservation(RateItem("x", 0)),)),
    ("check", (RateItem("x", 0),)),
]


@pytest.mark.parametrize(("method", "args"), CALLS)
def test_every_method_but_now_is_awaitable(method, args):
    async def scenario():
        bucket = BucketAsyncWrapper(InMemoryBucket(one()))
        answer = getattr(bucket, method)(*args)
        assert inspect.isawaitable(answer)
        await answer

    asyncio.run(scenario())


def test_now_is_what_the_bucket_gives():
    bucket = BucketAsyncWrapper(InMemoryBucket(one()))
    assert isinstance(bucket.now(), int)


def test_wrapper_passes_everything_through():
    inner = InMemoryBucket(one(), FixedWindow())
    bucket = BucketAsyncWrapper(inner)
    assert bucket.bucket is inner
    assert bucket.rates is inner.rates
    assert bucket._algorithm is inner._algorithm
    assert bucket._clock is inner._clock
    assert bucket.is_async is True
    assert bucket.limiter_lock() is None


def test_rates_and_clock_can_be_set_through_the_wrapper():
    inner = InMemoryBucket(one())
    bucket = BucketAsyncWrapper(inner)
    bucket.rates = [Rate(9, 900)]
    bucket._clock = clock = WallClock()
    assert inner.rates == [Rate(9, 900)]
    assert inner._clock is clock


def test_failing_rate_passes_through():
    async def scenario():
        bucket = BucketAsyncWrapper(InMemoryBucket(one()))
        assert await bucket.put(RateItem("x", 0)) is True
        assert await bucket.put(RateItem("x", 0)) is False
        return bucket.failing_rate, await bucket.waiting(RateItem("x", 0)), await bucket.count()

    assert asyncio.run(scenario()) == (Rate(1, 1000), 1001, 1)


@pytest.mark.parametrize(
    "inner", [ListBucket, in_async_form(ListBucket, "put"), in_async_form(ListBucket, "peek")]
)
def test_a_users_own_bucket_works_in_the_wrapper(inner):
    async def scenario():
        bucket = BucketAsyncWrapper(inner(one()))
        verdicts = [await bucket.put(RateItem("x", stamp)) for stamp in (0, 0, 1001)]
        return verdicts, (await bucket.peek(0)).timestamp

    assert asyncio.run(scenario()) == ([True, False, True], 1001)


def test_wrapper_closes_its_bucket():
    closed = []
    inner = ListBucket(one())
    inner.close = lambda: closed.append(1)
    with BucketAsyncWrapper(inner):
        pass
    assert closed == [1]


def test_wrapper_refuses_what_is_no_bucket():
    with pytest.raises(TypeError, match="must be an AbstractBucket"):
        BucketAsyncWrapper("no bucket")


def test_limiter_around_a_wrapper_needs_no_running_loop(world):
    limiter = Limiter(world.on(BucketAsyncWrapper(InMemoryBucket(one()))))
    assert world.run(limiter.try_acquire_async()) is True


@pytest.mark.parametrize("clock", [MonotonicClock(), WallClock()])
def test_clock_reads_whole_milliseconds(clock):
    assert isinstance(clock, AbstractClock)
    assert type(clock.now()) is int
    assert clock.now() <= clock.now()


def test_async_clock_reads_what_the_monotonic_clock_reads():
    before = MonotonicClock().now()
    now = asyncio.run(MonotonicAsyncClock().now())
    assert before <= now <= MonotonicClock().now()


def test_wall_clock_is_epoch_time():
    assert abs(WallClock().now() - time.time() * 1000) < 1000
    assert abs(AbstractClock._get_wall_ms() - WallClock().now()) < 1000


@pytest.mark.parametrize("clock", [MonotonicClock(), WallClock()])
def test_clock_says_how_long_until_a_moment(clock):
    ahead = clock.seconds_until(clock.now() + 5000)
    assert 4 < ahead <= 5


def test_a_users_clock_need_not_know_it_more_finely():
    class Own(AbstractClock):
        def now(self):
            return 5

    assert Own().seconds_until(10) is None


@pytest.mark.parametrize("base", [MonotonicClock, WallClock])
def test_a_users_clock_that_tells_another_time_is_slept_by_its_own(base):
    class Behind(base):
        def now(self):
            return super().now() - 3_600_000

    clock = Behind()
    assert clock.seconds_until(clock.now() + 5000) is None
    assert clock.pause(clock.now() + 5000, 5000) == 5


def test_a_clock_that_has_stepped_back_does_not_lengthen_a_pause():
    clock = WallClock()
    assert clock.pause(clock.now() + 3_600_000, 200) == 0.2
    assert 0.1 < clock.pause(clock.now() + 200, 200) <= 0.2
    assert clock.pause(clock.now() - 3_600_000, 200) == 0


def test_the_clocks_follow_freezegun():
    with freeze_time("2024-01-02 03:04:05.5") as frozen:
        wall, monotonic = WallClock().now(), MonotonicClock().now()
        assert wall == 1_704_164_645_500
        frozen.tick(2.5)
        assert WallClock().now() == wall + 2500
        assert MonotonicClock().now() == monotonic + 2500
        assert asyncio.run(_read_async_clock()) == monotonic + 2500


async def _read_async_clock():
    return await MonotonicAsyncClock().now()


def test_the_wall_clock_follows_time_machine():
    with time_machine.travel(1_704_164_645.5, tick=False) as traveller:
        assert WallClock().now() == 1_704_164_645_500
        traveller.shift(10)
        assert WallClock().now() == 1_704_164_655_500
