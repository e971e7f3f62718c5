"""What 3.9.0 does wrong, and `compat.v3` does not."""

import asyncio
import pickle
import time

import pytest

from pyrate_limiter import MonotonicClock, WallClock
from pyrate_limiter.compat import v3
from pyrate_limiter.compat.v3 import (
    BucketAsyncWrapper,
    BucketFullException,
    Duration,
    InMemoryBucket,
    Limiter,
    LimiterDelayException,
    MultiprocessBucket,
    Rate,
    SingleBucketFactory,
    SQLiteBucket,
    SQLiteClock,
    TimeClock,
)
from pyrate_limiter.compat.v3 import (
    MonotonicClock as Monotonic,
)
from pyrate_limiter.errors import WrongType
from tests.support.doubles import ListBucket


def limiter(world, argument=None, **kwargs):
    limiter = Limiter(argument or Rate(1, 300), **kwargs)
    if argument is None:
        world.on(limiter.bucket_factory.bucket)
    return limiter


@pytest.mark.parametrize("retry", [True, False])
def test_without_a_buffer_the_wait_is_as_long_as_it_takes(world, retry):
    limited = limiter(world, max_delay=1_000, buffer_ms=0, retry_until_max_delay=retry)
    assert [limited.try_acquire("x"), limited.try_acquire("x")] == [True, True]
    assert sum(world.slept) == pytest.approx(0.301)


def test_max_delay_may_be_assigned_as_a_duration(world):
    limited = limiter(world)
    limited.max_delay = Duration.SECOND
    assert limited.max_delay == 1_000
    assert [limited.try_acquire("x"), limited.try_acquire("x")] == [True, True]


@pytest.mark.parametrize("wrong", [-1, "5", float("nan"), [1]])
def test_a_max_delay_that_is_none_is_refused_also_when_assigned(world, wrong):
    limited = limiter(world)
    with pytest.raises(AssertionError, match="Max-delay must not be negative") as caught:
        limited.max_delay = wrong
    assert isinstance(caught.value, ValueError)
    assert limited.max_delay is None


@pytest.mark.parametrize("wrong", [None, 3, Rate(5, 1_000)])
def test_a_clock_that_is_none_is_refused_at_once(wrong):
    with pytest.raises(WrongType, match="several rates go into one list"):
        Limiter(Rate(1, 300), wrong)


def test_rates_in_a_tuple_have_the_clock_too():
    limited = Limiter((Rate(1, 300), Rate(5, 3_000)), _Stepping(), raise_when_fail=False)
    assert [limited.try_acquire("x"), limited.try_acquire("x")] == [True, False]
    assert limited.buckets()[0].peek(0).timestamp == _Stepping.ms


@pytest.mark.parametrize("wrong", ["1", None, 1.5, [1]])
def test_a_weight_that_is_no_number_is_refused_with_its_value(wrong):
    limited = Limiter(Rate(5, 300), raise_when_fail=False)

    def in_a_loop(name, weight):
        asyncio.run(limited.try_acquire_async(name, weight))

    for call in (limited.try_acquire, in_a_loop):
        with pytest.raises(WrongType, match="item's weight must be a whole number, got") as caught:
            call("x", wrong)
        assert caught.value.value == wrong


def test_a_factory_that_wraps_into_nothing_is_told_so():
    class Empty(v3.BucketFactory):
        def wrap_item(self, name, weight=1):
            del name, weight

        def get(self, item):
            return item

    with pytest.raises(WrongType, match="wrap_item returns must be a RateItem, got None"):
        Limiter(Empty()).try_acquire("x")


@pytest.mark.parametrize("wrong", [None, 5, "5/second", [5], [Rate(1, 300), None]])
def test_a_bucket_of_no_rates_is_refused_with_the_value(wrong):
    with pytest.raises(WrongType, match="rates must be a Rate or a list of Rate, got"):
        InMemoryBucket(wrong)


def test_max_delay_is_for_the_whole_wait_of_tasks(world):
    limited = limiter(world, max_delay=500, retry_until_max_delay=True)

    async def one():
        return await limited.try_acquire_async("x")

    async def main():
        return await asyncio.gather(*(one() for _ in range(3)), return_exceptions=True)

    start = world.ms
    first, second, third = world.run(main())
    assert (first, second) == (True, True)
    assert isinstance(third, LimiterDelayException)
    assert third.actual_delay > third.max_delay == 500
    assert world.ms - start < 600


@pytest.mark.parametrize("make", [InMemoryBucket, ListBucket])
def test_the_event_loop_goes_on_while_a_task_waits_on_a_synchronous_bucket(make, world):
    bucket = make([Rate(1, 200)])
    limited = Limiter(bucket, max_delay=5_000)
    world.on(bucket)

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        answers = [await limited.try_acquire_async("x") for _ in range(2)]
        ticking.cancel()
        return answers, ticks

    answers, ticks = world.run(main())
    assert answers == [True, True]
    assert 20 <= ticks <= 25


def test_awaited_calls_take_turns_as_well():
    async def main():
        bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, 100)]))
        limited = Limiter(bucket, max_delay=60_000)
        order = []

        async def one(number):
            assert await limited.try_acquire("x")
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(4)))
        return order

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_a_refused_call_of_a_decorated_function_is_not_made(world):
    limited = limiter(world, raise_when_fail=False)
    calls = []
    call = limited.as_decorator()(lambda: ("x", 1))(lambda: calls.append(1))

    @limited.as_decorator()(lambda: ("x", 1))
    async def call_async():
        calls.append(1)

    call()
    for refused in (call, lambda: asyncio.run(call_async())):
        with pytest.raises(BucketFullException) as caught:
            refused()
        assert (caught.value.item.name, str(caught.value.rate)) == ("x", "limit=1/300ms")
        assert caught.value.meta_info["remaining_time"] == 0.301
    assert calls == [1]


def test_a_refused_call_over_an_asynchronous_bucket_is_not_made():
    async def main():
        bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, 60_000)]))
        limited = Limiter(bucket, raise_when_fail=False)
        call = limited.as_decorator()(lambda: ("x", 1))(lambda: "called")
        answers = [await call()]
        with pytest.raises(BucketFullException):
            await call()
        return answers

    assert asyncio.run(main()) == ["called"]


@pytest.mark.parametrize(
    ("retry", "kind"), [(True, LimiterDelayException), (False, BucketFullException)]
)
def test_who_is_overtaken_until_the_time_is_up_is_told_so(world, retry, kind):
    bucket = ListBucket([Rate(1, 300)])
    limited = Limiter(bucket, max_delay=700, retry_until_max_delay=retry)
    world.on(bucket)
    limited.try_acquire("x")
    admit = bucket.put

    def admit_another_first(item):
        if world.slept:
            admit(limited.bucket_factory.wrap_item("another"))
        return admit(item)

    bucket.put = admit_another_first
    with pytest.raises(kind) as caught:
        limited.try_acquire("x")
    assert caught.value.item.name == "x"
    assert 0.6 < sum(world.slept) < 0.75


@pytest.mark.parametrize(
    ("weight", "max_delay", "message"),
    [
        (1, 100, "Required delay too large: actual=350, expected=100"),
        (2, 100, "Cannot fit item into bucket: item=RateItem(name=x, weight=2,"),
        (1, None, ""),
    ],
)
def test_a_refusal_is_logged_as_in_3x(world, caplog, weight, max_delay, message):
    limited = limiter(world, max_delay=max_delay, raise_when_fail=False)
    limited.try_acquire("x")
    assert not limited.try_acquire("x", weight)
    assert caplog.text == "" if not message else caplog.messages[0].startswith(message)


def test_another_factory_may_be_assigned(world):
    limited = limiter(world, raise_when_fail=False)
    limited.try_acquire("x")
    bucket = ListBucket([Rate(1, 300)])
    limited.bucket_factory = SingleBucketFactory(bucket, TimeClock())
    world.on(bucket)
    limited.max_delay = 1_000
    assert [limited.try_acquire("x"), limited.try_acquire("x")] == [True, True]
    assert bucket.count() == 2
    assert limited.bucket_factory.bucket is bucket
    assert limited.buffer_ms == 50


def test_the_lock_of_a_bucket_that_processes_share_is_beside_that_of_the_limiter():
    bucket = MultiprocessBucket.init([Rate(1, 300)])
    limited = Limiter(bucket)
    shared, _ = limited.lock
    assert shared is bucket.limiter_lock()
    assert [limited.try_acquire("x"), limited.bucket_factory.bucket.count()] == [True, 1]


def test_a_limiter_can_be_pickled():
    limited = Limiter(Rate(1, 60_000), raise_when_fail=False, max_delay=5)
    limited.try_acquire("x")
    same = pickle.loads(pickle.dumps(limited))
    assert (same.raise_when_fail, same.max_delay, same.buffer_ms) == (False, 5, 50)
    assert not same.try_acquire("x")


@pytest.mark.parametrize(
    "rates",
    [
        [Rate(5, 1_000), Rate(3, 2_000)],
        [Rate(5, 10), Rate(6, 11)],
        [Rate(5, 1_000), Rate(3, 1_000)],
    ],
)
def test_of_any_list_of_rates_each_one_holds(rates):
    bucket = InMemoryBucket(list(reversed(rates)))
    limited = Limiter(bucket, raise_when_fail=False)
    clock = _Stepping()
    bucket._clock = clock
    admitted = []
    for clock.ms in range(0, 4_000, 1 if rates[0].interval < 100 else 100):
        while limited.try_acquire("x"):
            admitted.append(clock.ms)
    for rate in rates:
        for start in admitted:
            within = [stamp for stamp in admitted if start <= stamp <= start + rate.interval]
            assert len(within) <= rate.limit
    assert len(admitted) > 3


class _Stepping(MonotonicClock):
    ms = 0

    def now(self):
        return self.ms


def test_the_module_of_ready_made_limiters_has_no_other_names():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        v3.limiter_factory.nothing  # noqa: B018 - reading it is what is tested


@pytest.mark.parametrize("wrapped", [True, False])
def test_ready_made_limiters_may_be_asynchronous(wrapped):
    limited = v3.limiter_factory.create_inmemory_limiter(1, 60_000, 5, async_wrapper=wrapped)

    async def main():
        return [await limited.try_acquire_async("x", weight) for weight in (0, 1, 1)]

    assert asyncio.run(main()) == [True, True, False]


class TestClocks:
    def test_the_default_clock_counts_from_the_epoch_in_memory_too(self):
        before = time.time_ns() // 1_000_000
        limited = Limiter(Rate(1, 300))
        limited.try_acquire("x")
        assert limited.buckets()[0].peek(0).timestamp >= before

    def test_a_bucket_with_a_clock_of_its_own_that_counts_from_the_epoch_keeps_it(self, tmp_path):
        bucket = SQLiteBucket.init_from_file([Rate(1, 300)], db_path=str(tmp_path / "x.sqlite"))
        Limiter(bucket)
        assert type(bucket._clock) is SQLiteClock
        Limiter(bucket, Monotonic())
        assert type(bucket._clock) is MonotonicClock
        bucket.close()

    def test_a_time_clock_is_a_wall_clock(self):
        assert isinstance(TimeClock(), WallClock)
