"""Limiter: what it takes, what it answers, how it waits."""

import asyncio
import inspect
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import (
    BucketAsyncWrapper,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    SingleBucketFactory,
    StateBucket,
)
from tests.support.doubles import ListBucket, ManualClock, OwnFactory, in_async_form, one

BUCKETS = [InMemoryBucket, StateBucket, ListBucket]


@pytest.fixture(params=BUCKETS)
def kind(request):
    return request.param


@pytest.fixture
def limiter(world, kind):
    return Limiter(world.on(kind([Rate(2, 1000)])))


@pytest.fixture
def async_limiter(world, kind):
    return Limiter(world.on(BucketAsyncWrapper(kind([Rate(2, 1000)]))))


class TestArgument:
    def test_a_rate(self):
        limiter = Limiter(Rate(3, 1000))
        assert isinstance(limiter.bucket_factory, SingleBucketFactory)
        assert isinstance(limiter.bucket_factory.bucket, InMemoryBucket)
        assert limiter.buckets()[0].rates == [Rate(3, 1000)]

    def test_a_list_of_rates(self):
        limiter = Limiter([Rate(9, 2000), Rate(6, 1000)])
        assert limiter.buckets()[0].rates == [Rate(6, 1000), Rate(9, 2000)]

    def test_a_bucket(self, kind):
        bucket = kind(one())
        limiter = Limiter(bucket)
        assert limiter.bucket_factory.bucket is bucket
        assert limiter.buckets() == [bucket]

    def test_a_factory(self):
        factory = SingleBucketFactory(InMemoryBucket(one()))
        assert Limiter(factory).bucket_factory is factory

    @pytest.mark.parametrize("wrong", ["5/s", 5, None, object(), [1, 2], [Rate(1, 1), "x"]])
    def test_something_else_is_refused(self, wrong):
        with pytest.raises(AssertionError, match="Limiter takes a Rate") as caught:
            Limiter(wrong)
        assert isinstance(caught.value, TypeError)

    def test_an_empty_list_is_refused(self):
        with pytest.raises(AssertionError, match="must not be empty") as caught:
            Limiter([])
        assert isinstance(caught.value, ValueError)

    def test_a_bad_list_is_refused(self):
        with pytest.raises(ValueError, match="Invalid rate list"):
            Limiter([Rate(2, 1000), Rate(1, 2000)])

    def test_buffer_ms_is_50_unless_given(self):
        assert Limiter(Rate(1, 1)).buffer_ms == 50
        assert Limiter(Rate(1, 1), 7).buffer_ms == 7
        assert Limiter(Rate(1, 1), buffer_ms=0).buffer_ms == 0

    @pytest.mark.parametrize("wrong", [1.5, "50", None])
    def test_a_buffer_that_is_no_number_of_ms_is_refused(self, wrong):
        with pytest.raises(TypeError, match="buffer_ms must be"):
            Limiter(Rate(1, 1), wrong)

    def test_lock_is_readable(self):
        limiter = Limiter(Rate(1, 1))
        with limiter.lock:
            assert limiter.try_acquire() is True


class TestTryAcquire:
    def test_takes_what_is_free(self, limiter):
        assert [limiter.try_acquire("a", blocking=False) for _ in range(3)] == [True, True, False]

    def test_every_name_shares_the_one_bucket(self, limiter):
        assert [limiter.try_acquire(name, blocking=False) for name in "abc"] == [True, True, False]

    def test_needs_no_argument(self, limiter):
        assert limiter.try_acquire() is True

    def test_takes_its_arguments_by_place(self, limiter):
        assert limiter.try_acquire("a", 2, True, 1) is True
        assert limiter.try_acquire("a", 1, False) is False

    def test_blocking_waits_until_it_fits(self, limiter, world):
        start = world.ms
        assert all(limiter.try_acquire() for _ in range(5))
        assert 1000 <= world.ms - start <= 2200

    def test_non_blocking_never_waits(self, limiter, world):
        for _ in range(5):
            limiter.try_acquire(blocking=False)
        assert world.slept == []

    def test_a_wait_that_can_never_end_is_false_at_once(self, limiter, world):
        assert limiter.try_acquire(weight=3) is False
        assert limiter.try_acquire(weight=3, timeout=5) is False
        assert world.slept == []

    def test_timeout_0_takes_what_is_free_now(self, limiter, world):
        assert [limiter.try_acquire(timeout=0) for _ in range(3)] == [True, True, False]
        assert sum(world.slept) == 0

    def test_timeout_that_is_long_enough_waits_as_long_as_it_has_to(self, limiter, world):
        limiter.try_acquire(weight=2)
        assert limiter.try_acquire(timeout=60) is True
        assert world.slept
        assert sum(world.slept) < 1.2

    def test_timeout_that_is_too_short_is_slept_out_and_then_false(self, limiter, world):
        limiter.try_acquire(weight=2)
        assert limiter.try_acquire(weight=2, timeout=0.4) is False
        assert sum(world.slept) == pytest.approx(0.4, abs=0.01)

    def test_a_timed_out_call_takes_nothing(self, limiter, world):
        limiter.try_acquire(weight=2)
        limiter.try_acquire(weight=2, timeout=0.4)
        world.advance(700)
        assert limiter.try_acquire(weight=2, blocking=False) is True

    @pytest.mark.parametrize("timeout", [-2, -0.5, float("nan"), float("-inf")])
    def test_a_negative_timeout_is_refused(self, limiter, timeout):
        with pytest.raises(ValueError, match="timeout must be -1 or >= 0"):
            limiter.try_acquire(timeout=timeout)

    def test_an_infinite_timeout_waits_for_ever(self, limiter):
        limiter.try_acquire(weight=2)
        assert limiter.try_acquire(timeout=float("inf")) is True

    @pytest.mark.parametrize("timeout", [0, 1, 0.5])
    def test_a_timeout_without_blocking_is_refused(self, limiter, timeout):
        with pytest.raises(RuntimeError, match="Can't set timeout with non-blocking"):
            limiter.try_acquire(blocking=False, timeout=timeout)

    def test_weight_0_is_true_at_once(self, limiter, world):
        limiter.try_acquire(weight=2)
        assert limiter.try_acquire(weight=0) is True
        assert limiter.try_acquire(weight=0, blocking=False) is True
        assert world.slept == []

    def test_weight_0_is_plain_true_over_an_async_bucket_too(self, async_limiter):
        assert async_limiter.try_acquire(weight=0) is True

    def test_a_negative_weight_is_refused(self, limiter):
        with pytest.raises(AssertionError, match="weight must be >= 0, got -1"):
            limiter.try_acquire(weight=-1)

    @pytest.mark.parametrize("weight", [1.5, "1", None])
    def test_a_weight_of_another_type_is_refused(self, limiter, weight):
        with pytest.raises(TypeError, match="weight must be a whole number"):
            limiter.try_acquire(weight=weight)

    @given(name=st.text())
    def test_any_name_will_do(self, name):
        limiter = Limiter(Rate(1, 3_600_000))
        assert limiter.try_acquire(name, blocking=False) is True
        assert limiter.buckets()[0].peek(0).name == name
        limiter.close()

    def test_weights_are_all_or_nothing(self, limiter):
        assert limiter.try_acquire(weight=1, blocking=False) is True
        assert limiter.try_acquire(weight=2, blocking=False) is False
        assert limiter.try_acquire(weight=1, blocking=False) is True

    def test_enormous_limits(self, world, kind):
        if kind is ListBucket:
            return  # it keeps a list of its units
        limiter = Limiter(world.on(kind([Rate(10**15, 1000)])))
        assert limiter.try_acquire(weight=10**15, blocking=False) is True
        assert limiter.try_acquire(weight=1, blocking=False) is False
        assert limiter.try_acquire(weight=10**15) is True
        assert limiter.try_acquire(weight=10**15 + 1) is False


class TestAsync:
    def test_over_an_async_bucket_it_returns_an_awaitable(self, async_limiter, world):
        async def scenario():
            promise = async_limiter.try_acquire(blocking=False)
            assert inspect.isawaitable(promise)
            return [await promise] + [
                await async_limiter.try_acquire(blocking=False) for _ in range(2)
            ]

        assert world.run(scenario()) == [True, True, False]

    def test_waits_with_asyncio_sleep(self, async_limiter, world):
        async def scenario():
            return [await async_limiter.try_acquire() for _ in range(5)]

        start = world.ms
        assert world.run(scenario()) == [True] * 5
        assert 1000 <= world.ms - start <= 2200
        assert world.slept == []

    def test_try_acquire_async_is_always_a_coroutine(self, limiter, async_limiter, world):
        for each in (limiter, async_limiter):
            promise = each.try_acquire_async()
            assert inspect.iscoroutine(promise)
            assert world.run(promise) is True

    def test_try_acquire_async_over_a_sync_bucket_lets_others_run(self, limiter, world):
        async def scenario():
            ticks = []

            async def ticker():
                while True:
                    ticks.append(1)
                    await asyncio.sleep(0.1)

            other = asyncio.ensure_future(ticker())
            got = [await limiter.try_acquire_async() for _ in range(3)]
            other.cancel()
            return got, len(ticks)

        got, ticks = world.run(scenario())
        assert got == [True] * 3
        assert ticks >= 5
        assert world.slept == []

    def test_timeouts_hold_in_async_form(self, async_limiter, world):
        async def scenario():
            await async_limiter.try_acquire_async(weight=2)
            return [
                await async_limiter.try_acquire_async(weight=2, timeout=0),
                await async_limiter.try_acquire_async(weight=2, timeout=0.4),
                await async_limiter.try_acquire_async(weight=3),
                await async_limiter.try_acquire_async(weight=2, timeout=60),
            ]

        assert world.run(scenario()) == [False, False, False, True]

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"weight": -1}, ValueError),
            ({"weight": 0.5}, TypeError),
            ({"timeout": -2}, ValueError),
            ({"timeout": 1, "blocking": False}, RuntimeError),
        ],
    )
    def test_bad_arguments_are_refused_in_async_form(self, limiter, world, arguments, error):
        with pytest.raises(error):
            world.run(limiter.try_acquire_async(**arguments))

    def test_weight_0_in_async_form(self, async_limiter, world):
        assert world.run(async_limiter.try_acquire_async(weight=0)) is True


class TestDecorator:
    def test_wraps_a_sync_function(self, limiter, world):
        @limiter.as_decorator(name="f", weight=1)
        def add(a, b=2):
            """Adds."""
            return a + b

        start = world.ms
        assert [add(1), add(1, b=5), add(2)] == [3, 6, 4]
        assert world.ms - start >= 400
        assert (add.__name__, add.__doc__) == ("add", "Adds.")

    def test_wraps_an_async_function(self, limiter, async_limiter, world):
        for each in (limiter, async_limiter):

            @each.as_decorator()
            async def add(a, b):
                await asyncio.sleep(0)
                return a + b

            assert inspect.iscoroutinefunction(add)
            assert world.run(add(1, b=2)) == 3

    def test_methods_and_their_arguments(self, limiter):
        class Api:
            @limiter.as_decorator()
            def call(self, *args, **kwargs):
                return self, args, kwargs

        api = Api()
        assert api.call(1, x=2) == (api, (1,), {"x": 2})

    def test_never_admitted_is_a_runtime_error(self, limiter, world):
        @limiter.as_decorator(name="f", weight=3)
        def never():
            pytest.fail("it ran")

        with pytest.raises(RuntimeError, match="can never admit weight=3"):
            never()

    def test_never_admitted_is_a_runtime_error_in_async_form(self, limiter, world):
        @limiter.as_decorator(name="f", weight=3)
        async def never():
            pytest.fail("it ran")

        with pytest.raises(RuntimeError, match="can never admit weight=3"):
            world.run(never())

    def test_sync_function_over_an_async_bucket_is_refused_before_it_runs(self, async_limiter):
        @async_limiter.as_decorator()
        def function():
            pytest.fail("it ran")

        with pytest.raises(RuntimeError, match="Can't use async bucket with sync decorator"):
            function()

    def test_arguments_are_given_by_name(self, limiter):
        with pytest.raises(TypeError):
            limiter.as_decorator("f", 1)


class TestLife:
    def test_close_and_with(self, kind):
        closed = []
        bucket = kind(one())
        if kind is ListBucket:
            bucket.close = lambda: closed.append(1)
        with Limiter(bucket) as limiter:
            assert limiter.bucket_factory._leaker is not None
        assert limiter.bucket_factory._leaker is None
        limiter.close()
        assert limiter.buckets() == []
        assert len(closed) <= 2

    def test_dispose(self, limiter):
        (bucket,) = limiter.buckets()
        assert limiter.dispose(bucket) is True
        assert limiter.dispose(id(bucket)) is False

    def test_survives_pickle_with_what_it_holds(self, kind):
        limiter = Limiter(kind([Rate(2, 3_600_000)]), 7)
        limiter.try_acquire("a")
        again = pickle.loads(pickle.dumps(limiter))
        assert again.buffer_ms == 7
        assert [again.try_acquire(blocking=False) for _ in range(2)] == [True, False]
        assert limiter.try_acquire(blocking=False) is True
        again.close()
        limiter.close()

    def test_a_default_buffer_is_still_adaptive_after_pickle(self, world):
        limiter = pickle.loads(pickle.dumps(Limiter(Rate(1, 100))))
        world.on(limiter.bucket_factory.bucket)
        limiter.try_acquire()
        limiter.try_acquire()
        assert sum(world.slept) == pytest.approx(0.106)

    def test_unpickled_limiter_still_holds_the_cross_process_lock(self):
        limiter = pickle.loads(pickle.dumps(Limiter(Locked(one()))))
        held = limiter.bucket_factory.bucket.shared
        assert limiter.try_acquire(blocking=False) is True
        assert held.taken == ["acquire", "release"]

    def test_can_be_built_around_an_async_bucket_outside_a_loop(self, world):
        limiter = Limiter(in_async_form(ListBucket, "put", "leak")(one(), ManualClock(world)))
        assert world.run(limiter.try_acquire_async()) is True


class Recorder:
    def __init__(self):
        self.taken = []

    def acquire(self, blocking=True, timeout=-1):
        self.taken.append("acquire")
        return True

    def release(self):
        self.taken.append("release")


class Locked(ListBucket):
    def __init__(self, rates):
        super().__init__(rates)
        self.shared = Recorder()

    def limiter_lock(self):
        return self.shared


def test_buffer_that_was_given_is_added_to_each_wait(world):
    limiter = Limiter(world.on(InMemoryBucket(one(1, 100))), buffer_ms=500)
    limiter.try_acquire()
    limiter.try_acquire()
    assert sum(world.slept) == pytest.approx(0.601)


def test_buffer_0_waits_no_longer_than_it_has_to(world):
    limiter = Limiter(world.on(InMemoryBucket(one(1, 100))), buffer_ms=0)
    limiter.try_acquire()
    limiter.try_acquire()
    assert sum(world.slept) == pytest.approx(0.101)


class TestHandleBucketPut:
    def test_admits_an_item_in_the_bucket_given(self, limiter, world, kind):
        other = world.on(kind([Rate(1, 1000)]))
        item = RateItem("x", world.ms)
        assert limiter.handle_bucket_put(other, item, False) is True
        assert limiter.handle_bucket_put(other, RateItem("x", world.ms), False) is False
        assert limiter.bucket_factory.bucket.count() == 0

    def test_waits_where_it_may(self, limiter, world, kind):
        bucket = limiter.bucket_factory.bucket
        for _ in range(3):
            assert limiter.handle_bucket_put(bucket, RateItem("x", world.ms), blocking=True)
        assert len(world.slept) == 1

    def test_gives_up_at_the_deadline(self, limiter, world):
        bucket = limiter.bucket_factory.bucket
        limiter.try_acquire(weight=2)
        deadline = world.monotonic() + 0.3
        item = RateItem("x", world.ms, 2)
        assert limiter.handle_bucket_put(bucket, item, True, False, deadline) is False
        assert sum(world.slept) == pytest.approx(0.3, abs=0.01)

    def test_is_awaitable_on_demand(self, limiter, world):
        bucket = limiter.bucket_factory.bucket
        promise = limiter.handle_bucket_put(bucket, RateItem("x", world.ms), True, True)
        assert world.run(promise) is True


def test_threads_share_the_limit():
    limiter = Limiter(Rate(100, 3_600_000))
    got = []

    def work():
        got.extend(limiter.try_acquire(blocking=False) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 100
    limiter.close()


def test_a_user_factorys_stamp_is_what_counts(world):
    bucket = InMemoryBucket(one())
    limiter = Limiter(OwnFactory(world.on(bucket), ManualClock(world)))
    limiter.try_acquire()
    assert bucket.peek(0).timestamp == world.ms
