"""A user's own factory: asked once for a call, obeyed in all that it overrides, and cheap."""

import asyncio
import copy
import gc
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    BucketFactory,
    InMemoryBucket,
    Limiter,
    MonotonicClock,
    Rate,
    RateItem,
    StateBucket,
)
from pyrate_limiter._engine.wait_options import WaitOptions
from pyrate_limiter._engine.wait_queue import join
from pyrate_limiter._engine.waiter import Waiter
from pyrate_limiter.errors import InvalidBucket, InvalidRateList, WrongType
from pyrate_limiter.keyed import KeyedBucketFactory
from tests.support.doubles import ManualClock

RATES = [Rate(1, 1000)]


class PerUser(BucketFactory):
    """As the README of 4.5.1 shows it; ``asked`` is what was asked of it."""

    def __init__(self, clock, kind=InMemoryBucket, rates=RATES):
        self.clock, self.kind, self.rates = clock, kind, rates
        self.by_name, self.asked = {}, []

    def wrap_item(self, name, weight=1):
        self.asked.append("wrap_item")
        return RateItem(name, self.clock.now(), weight)

    def get(self, item):
        self.asked.append("get")
        if item.name not in self.by_name:
            bucket = self.create(self.kind, self.rates)
            bucket._clock = self.clock
            self.by_name[item.name] = bucket
        return self.by_name[item.name]


@pytest.fixture
def clock(world):
    return ManualClock(world)


@pytest.fixture
def factory(clock):
    made = PerUser(clock)
    yield made
    made.close()


def admitted(world, limiter, form, name="a", **options):
    if form == "sync":
        return limiter.try_acquire(name, **options)
    return world.run(limiter.try_acquire_async(name, **options))


FORMS = ["sync", "async"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
def test_each_name_has_a_bucket_of_its_own(world, clock, kind, form):
    limiter = Limiter(PerUser(clock, kind))
    verdicts = [admitted(world, limiter, form, name, blocking=False) for name in "abab"]
    assert verdicts == [True, True, False, False]
    world.advance(1001)
    assert admitted(world, limiter, form, "a", blocking=False)
    limiter.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_call_asks_its_factory_once_whether_it_is_admitted_or_refused(world, factory, form):
    limiter = Limiter(factory)
    for expected in (True, False):
        factory.asked.clear()
        assert admitted(world, limiter, form, blocking=False) is expected
        assert factory.asked == ["wrap_item", "get"]
    factory.asked.clear()
    assert not admitted(world, limiter, form, timeout=0)
    assert factory.asked == ["wrap_item", "get"]


@pytest.mark.parametrize("form", FORMS)
def test_a_refused_call_waits_for_its_turn_at_the_bucket_that_refused_it(world, factory, form):
    limiter = Limiter(factory, buffer_ms=0)
    start = world.ms
    assert [admitted(world, limiter, form) for _ in range(3)] == [True] * 3
    assert world.ms - start == 2002
    assert factory.asked.count("get") == 3


@pytest.mark.parametrize("form", FORMS)
def test_what_the_factory_takes_counts_against_the_timeout_of_a_refused_call(world, factory, form):
    factory.rates = [Rate(1, 60_000)]
    limiter = Limiter(factory)
    assert admitted(world, limiter, form)
    stamp, stamped = factory.wrap_item, []

    def slow(name, weight=1):
        world.advance(700)
        stamped.append(name)
        return stamp(name, weight)

    factory.wrap_item = slow
    start = world.ms
    assert not admitted(world, limiter, form, timeout=0.9)
    assert world.ms - start == 200 + 700 * len(stamped)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["wrap_item", "get"])
def test_what_a_sync_function_returns_to_be_awaited_is_awaited(world, factory, form, method):
    plain = getattr(factory, method)

    async def later(*args):
        await asyncio.sleep(0)
        return plain(*args)

    setattr(factory, method, partial(later))  # which does not look async
    limiter = Limiter(factory)

    async def call():
        method = limiter.try_acquire if form == "sync" else limiter.try_acquire_async
        return [await method("a", blocking=False) for _ in range(2)]

    assert world.run(call()) == [True, False]
    gc.collect()  # a coroutine that was left unawaited would warn


@pytest.mark.parametrize("found", [None, "a bucket"])
def test_a_factory_that_finds_no_bucket_is_told_after_it_was_asked_once(factory, found):
    factory.get = lambda item: factory.asked.append("get") or found
    with pytest.raises(InvalidBucket, match="what the factory's get returns"):
        Limiter(factory).try_acquire("a")
    assert factory.asked == ["wrap_item", "get"]


@pytest.mark.parametrize("form", FORMS)
def test_nobody_passes_those_who_wait_at_the_bucket_of_a_users_factory(form):
    def ask():
        if form == "sync":
            return limiter.try_acquire("a", blocking=False)
        return asyncio.run(limiter.try_acquire_async("a", blocking=False))

    factory = PerUser(MonotonicClock())
    limiter = Limiter(factory)
    bucket = factory.get(RateItem("a", 0))
    terms = WaitOptions(blocking=True, seconds=-1, buffer_ms=0, known=False)
    waiter = Waiter("a", 1, terms, 0, stamped_by_bucket=True)
    queue = join(bucket, waiter)
    queue.block()
    assert not ask()
    assert bucket.count() == 0
    queue.leave(waiter)
    assert ask()
    limiter.close()


def test_an_item_that_the_factory_has_changed_is_taken_as_it_is(factory):
    factory.rates = [Rate(5, 1000)]
    factory.wrap_item = lambda name, weight=1: RateItem("all", factory.clock.now(), 2 * weight)
    limiter = Limiter(factory)
    assert [limiter.try_acquire(name, blocking=False) for name in "abc"] == [True, True, False]
    assert list(factory.by_name) == ["all"]
    assert factory.by_name["all"].count() == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_bucket_that_was_dropped_meanwhile_is_asked_for_again(world, factory, form):
    keyed = KeyedBucketFactory(RATES)
    dropped = keyed.bucket("a")
    dropped._clock = factory.clock
    assert dropped.retire(factory.clock.now())
    found = iter([dropped, InMemoryBucket(RATES)])
    factory.get = lambda item: next(found)
    assert admitted(world, Limiter(factory), form, blocking=False)
    keyed.close()


@pytest.mark.parametrize("method", ["put", "reserve", "put_decision", "waiting", "limiter_lock"])
def test_what_a_subclass_of_a_bucket_overrides_is_called(clock, method):
    called = []

    def noted(self, *args):
        called.append(method)
        return getattr(InMemoryBucket, method)(self, *args)

    kind = type("Noting", (InMemoryBucket,), {method: noted})
    limiter = Limiter(PerUser(clock, kind), buffer_ms=0)
    assert [limiter.try_acquire("a") for _ in range(2)] == [True, True]
    # A `reserve` that is the bucket's own admits without them.
    assert called or method in {"put_decision", "limiter_lock"}
    limiter.close()


def test_a_subclass_that_overrides_nothing_of_it_limits_alike(clock):
    class Named(InMemoryBucket):
        title = "mine"

    limiter = Limiter(PerUser(clock, Named))
    assert [limiter.try_acquire("a", blocking=False) for _ in range(2)] == [True, False]
    limiter.close()


def test_a_blocked_caller_of_an_async_factory_waits_for_its_turn(world, factory):
    stamp, find = factory.wrap_item, factory.get

    async def wrap_item(name, weight=1):
        return stamp(name, weight)

    async def get(item):
        return find(item)

    factory.wrap_item, factory.get = wrap_item, get
    limiter = Limiter(factory, buffer_ms=0)
    start = world.ms
    assert [admitted(world, limiter, "async") for _ in range(3)] == [True] * 3
    assert world.ms - start == 2002
    assert not admitted(world, limiter, "async", timeout=0.5)


def test_an_async_factory_that_stamps_no_item_is_named(world, factory):
    async def wrap_item(name, weight=1):
        return None

    factory.wrap_item = wrap_item
    with pytest.raises(WrongType, match="wrap_item returns must be a RateItem, got None"):
        admitted(world, Limiter(factory), "async")


def test_async_clothes_are_awaited_and_swept(world, factory):
    inner = InMemoryBucket(RATES)
    inner._clock = factory.clock
    bucket = BucketAsyncWrapper(inner)
    factory.get = lambda item: bucket
    factory.schedule_leak(bucket)
    limiter = Limiter(factory)

    async def call():
        verdicts = [await limiter.try_acquire_async("a", blocking=False) for _ in range(2)]
        assert factory._leaker._loop is asyncio.get_running_loop()
        return [*verdicts, await limiter.try_acquire("a", blocking=False)]

    assert world.run(call()) == [True, False, False]


class TestCreate:
    def test_sweeps_each_bucket_once(self, factory):
        first, second, third = (factory.create(InMemoryBucket, RATES) for _ in range(3))
        factory.schedule_leak(second)
        assert factory.get_buckets() == [first, second, third]
        assert factory._leaker.sync_buckets == {id(b): b for b in (first, second, third)}
        assert factory.dispose(id(first)) is True
        fourth = factory.create(InMemoryBucket, RATES)
        assert factory.dispose(fourth) is True
        assert factory.dispose(fourth) is False
        assert factory.get_buckets() == [second, third]

    def test_leaks_what_it_made(self, factory):
        buckets = [factory.create(InMemoryBucket, RATES) for _ in range(3)]
        for bucket in buckets:
            bucket.put(RateItem("a", bucket.now() - 5000))
        factory._leaker.sweep()
        assert [bucket.count() for bucket in buckets] == [0, 0, 0]

    def test_calls_schedule_leak_where_that_is_overridden(self, clock):
        class Unswept(PerUser):
            def schedule_leak(self, new_bucket, associated_clock=None):
                self.asked.append(new_bucket)

        factory = Unswept(clock)
        bucket = factory.create(InMemoryBucket, RATES)
        assert factory.asked == [bucket]
        assert factory._leaker is None

    def test_makes_buckets_that_survive_pickle_apart_from_each_other(self, factory):
        buckets = [factory.create(InMemoryBucket, RATES) for _ in range(2)]
        factory.by_name.update(zip("ab", buckets, strict=True))
        again = pickle.loads(pickle.dumps(factory.by_name))
        assert again["a"].put(RateItem("a", again["a"].now()))
        assert [again["a"].count(), again["b"].count(), buckets[0].count()] == [1, 0, 0]

    @pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
    def test_refuses_rates_as_the_class_itself_does(self, factory, kind):
        with pytest.raises(InvalidRateList):
            factory.create(kind, [])

    def test_starts_the_sweeping_again_after_the_factory_was_closed(self, factory):
        factory.create(InMemoryBucket, RATES)
        factory.close()
        bucket = factory.create(InMemoryBucket, RATES)
        assert factory.get_buckets() == [bucket]
        while not factory._leaker.is_alive():  # the thread may be about to end, and starts again
            os.sched_yield()


class TestRatesOfManyBuckets:
    def test_other_rates_of_one_bucket_are_its_own(self, factory):
        first, second = (factory.create(InMemoryBucket, RATES) for _ in range(2))
        first.rates = [Rate(7, 1000)]
        assert (first.rates, second.rates) == ([Rate(7, 1000)], RATES)

    def test_a_list_that_the_program_changes_later_changes_no_bucket(self, factory):
        rates = [Rate(1, 1000)]
        first = factory.create(InMemoryBucket, rates)
        rates.append(Rate(5, 60_000))
        second = factory.create(InMemoryBucket, rates)
        assert (first.rates, second.rates) == ([Rate(1, 1000)], rates)

    def test_a_bucket_says_of_its_very_rates_which_was_short(self, factory):
        rates = [[Rate(1, 1000)] for _ in range(100)]  # more than are kept to be shared
        for own in rates:
            bucket = factory.create(InMemoryBucket, own)
            item = RateItem("a", bucket.now(), 2)
            assert not bucket.put(item)
            assert bucket.failing_rate is own[0]

    @pytest.mark.parametrize(
        "change",
        [
            lambda rates: rates.append(Rate(5, 60_000)),
            lambda rates: rates.__setitem__(0, Rate(5, 60_000)),
            lambda rates: rates.clear(),
            lambda rates: rates.sort(key=lambda rate: -rate.limit),
        ],
    )
    def test_they_cannot_be_changed_in_place(self, factory, change):
        bucket = factory.create(InMemoryBucket, RATES)
        with pytest.raises(InvalidRateList, match=r"assign a new list to bucket\.rates"):
            change(bucket.rates)
        assert bucket.rates == RATES


def test_a_clock_of_one_made_bucket_may_wait_for_threads_that_use_another(factory):
    first, second = (factory.create(InMemoryBucket, [Rate(9, 1000)]) for _ in "12")

    class Remote(MonotonicClock):
        def now(self):
            with ThreadPoolExecutor(1) as pool:
                item = RateItem("b", super().now())
                assert pool.submit(second.put, item).result(timeout=30)
            return super().now()

    first._clock = Remote()
    assert first.put(RateItem("a", first.now() + 5_000))


@pytest.mark.parametrize("change", [copy.copy, copy.deepcopy, list])
@pytest.mark.parametrize("made", [True, False])
def test_changed_rates_hold_once_they_are_assigned(factory, change, made):
    rates = [Rate(5, 60_000)]
    bucket = factory.create(InMemoryBucket, rates) if made else InMemoryBucket(rates)
    fewer = change(bucket.rates)
    fewer[0] = Rate(2, 60_000)
    bucket.rates = fewer
    assert [bucket.put(RateItem("a", bucket.now())) for _ in range(3)] == [True, True, False]


def test_swept_buckets_may_be_replaced_as_a_whole(factory):
    factory.create(InMemoryBucket, RATES)
    other = InMemoryBucket(RATES)
    factory._leaker.sync_buckets = {id(other): other}
    assert factory.get_buckets() == [other]
