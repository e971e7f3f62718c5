"""BucketFactory, SingleBucketFactory, limiter_factory and Leaker."""

import asyncio
import pickle

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    BucketFactory,
    Duration,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    SingleBucketFactory,
    StateBucket,
    TokenBucket,
    limiter_factory,
)
from pyrate_limiter.abstracts.bucket import Leaker
from pyrate_limiter.errors import InvalidBucket
from tests.support.doubles import ListBucket, in_async_form, one


class Routed(BucketFactory):
    """Routes by name, and does not call ``super().__init__()``."""

    def __init__(self):
        self.routes = {}

    def wrap_item(self, name, weight=1):
        return RateItem(name, 0, weight)

    def get(self, item):
        if item.name not in self.routes:
            self.routes[item.name] = self.create(InMemoryBucket, one())
        return self.routes[item.name]


@pytest.fixture
def factory():
    routed = Routed()
    yield routed
    routed.close()


def test_create_builds_and_schedules(factory):
    bucket = factory.create(InMemoryBucket, one(5), algorithm=None)
    assert isinstance(bucket, InMemoryBucket)
    assert factory.get_buckets() == [bucket]


def test_limiter_routes_each_item_to_the_bucket_that_get_gives(factory):
    limiter = Limiter(factory)
    assert [limiter.try_acquire(name, blocking=False) for name in "aab"] == [True, False, True]
    assert limiter.buckets() == list(factory.routes.values())


def test_get_that_gives_no_bucket_is_an_error(factory):
    factory.get = lambda item: "no bucket"
    with pytest.raises(AssertionError, match=r"Invalid bucket: item: foo"):
        Limiter(factory).try_acquire("foo")


def test_only_buckets_are_scheduled(factory):
    with pytest.raises(AssertionError, match="must be an AbstractBucket"):
        factory.schedule_leak("no bucket")


def test_leaker_is_none_before_anything_is_scheduled_and_after_close(factory):
    assert factory._leaker is None
    factory.create(InMemoryBucket, one())
    assert isinstance(factory._leaker, Leaker)
    factory.close()
    assert factory._leaker is None


def test_leak_interval_is_ten_seconds_unless_set(factory):
    assert factory.leak_interval == 10_000


def test_leak_interval_can_be_set_before_and_after_scheduling(factory):
    factory.leak_interval = 500
    factory.create(InMemoryBucket, one())
    assert factory._leaker.leak_interval == factory.leak_interval == 500
    factory.leak_interval = 700
    assert factory._leaker.leak_interval == factory.leak_interval == 700


def test_subclass_may_set_leak_interval_before_init():
    class Early(SingleBucketFactory):
        def __init__(self, bucket):
            self.leak_interval = 123
            super().__init__(bucket)

    early = Early(InMemoryBucket(one()))
    assert early._leaker.leak_interval == 123
    early.close()


@pytest.mark.parametrize("value", [1.5, None, "5"])
def test_leak_interval_that_is_no_number_of_ms_is_refused(factory, value):
    with pytest.raises(TypeError, match="leak_interval must be"):
        factory.leak_interval = value


def test_dispose_takes_a_bucket_or_its_id(factory):
    first, second = (factory.create(InMemoryBucket, one()) for _ in range(2))
    assert factory.dispose(first) is True
    assert factory.dispose(id(second)) is True
    assert factory.dispose(first) is False
    assert factory.get_buckets() == []


@pytest.mark.parametrize("wrong", ["x", None, 1.5])
def test_dispose_of_what_is_no_bucket_is_a_mistake_that_is_named(factory, wrong):
    for disposing in (factory, Limiter.per_key(Rate(1, 1_000))):
        with pytest.raises(AssertionError, match=f"dispose of, .* got {wrong!r}") as caught:
            disposing.dispose(wrong)
        assert isinstance(caught.value, InvalidBucket)


def test_dispose_before_anything_is_scheduled_is_false(factory):
    assert factory.dispose(12345) is False
    assert factory.get_buckets() == factory.owned_buckets() == []


def test_close_closes_owned_buckets_once(factory):
    closed = []
    bucket = factory.create(ListBucket, one())
    bucket.close = lambda: closed.append(1)
    assert factory.owned_buckets() == [bucket]
    factory.close()
    factory.close()
    assert closed == [1]


def test_factory_survives_pickle_and_goes_on_leaking(factory):
    factory.leak_interval = 777
    factory.get(RateItem("a", 0)).put(RateItem("a", 0))
    again = pickle.loads(pickle.dumps(factory))
    assert again.leak_interval == 777
    assert again.get_buckets() == [again.routes["a"]]
    assert again.routes["a"].count() == 1
    again.close()


def test_factory_that_was_never_used_survives_pickle(factory):
    again = pickle.loads(pickle.dumps(factory))
    assert (again._leaker, again.routes) == (None, {})


def test_single_bucket_factory_routes_everything_to_its_bucket():
    bucket = InMemoryBucket(one())
    single = SingleBucketFactory(bucket)
    item = single.wrap_item("foo", 3)
    assert (item.name, item.weight) == ("foo", 3)
    assert abs(item.timestamp - bucket.now()) < 1000
    assert single.get(item) is single.bucket is bucket
    assert single.owned_buckets() == single.get_buckets() == [bucket]
    single.close()


def test_single_bucket_factory_sweeps_only_if_told_to():
    bucket = InMemoryBucket(one())
    single = SingleBucketFactory(bucket, schedule_leak=False)
    assert single._leaker is None
    assert single.get_buckets() == []
    assert single.owned_buckets() == [bucket]


def test_create_inmemory_limiter():
    limiter = limiter_factory.create_inmemory_limiter(2, Duration.MINUTE, 30)
    assert limiter.buckets()[0].rates == [Rate(2, 60_000)]
    assert limiter.buffer_ms == 30
    default = limiter_factory.create_inmemory_limiter()
    assert default.buckets()[0].rates == [Rate(3, 1000)]
    limiter.close()
    default.close()


def test_create_token_bucket_limiter():
    limiter = limiter_factory.create_token_bucket_limiter(2, Duration.MINUTE, burst=5)
    (bucket,) = limiter.buckets()
    assert isinstance(bucket, StateBucket)
    assert isinstance(bucket._algorithm, TokenBucket)
    assert bucket.rates == [Rate(2, 60_000, burst=5)]
    limiter.close()


def test_init_global_limiter_sets_the_modules_limiter(monkeypatch):
    monkeypatch.setattr(limiter_factory, "LIMITER", None)
    bucket = InMemoryBucket(one())
    limiter_factory.init_global_limiter(bucket, 5)
    assert limiter_factory.LIMITER.buckets() == [bucket]
    assert limiter_factory.LIMITER.buffer_ms == 5
    limiter_factory.LIMITER.close()


class TestLeaker:
    @pytest.fixture
    def leaker(self):
        made = Leaker(10_000)
        yield made
        made.close()

    def test_keys_are_ids(self, leaker):
        bucket = InMemoryBucket(one())
        leaker.register(bucket)
        assert leaker.sync_buckets == {id(bucket): bucket}
        assert leaker.async_buckets == {}

    def test_async_buckets_are_kept_apart(self, leaker):
        bucket = BucketAsyncWrapper(InMemoryBucket(one()))
        leaker.register(bucket)
        assert leaker.async_buckets == {id(bucket): bucket}
        assert leaker.sync_buckets == {}

    @pytest.mark.parametrize("is_async", [True, False])
    def test_a_bucket_that_knows_its_nature_is_not_probed(self, leaker, is_async):
        bucket = ListBucket(one())
        bucket.is_async = is_async
        bucket.leak = lambda now=None: pytest.fail("probed")
        leaker.register(bucket)
        assert bool(leaker.async_buckets) is is_async

    @pytest.mark.parametrize("kind", [ListBucket, in_async_form(ListBucket, "leak")])
    def test_a_bucket_of_unknown_nature_is_probed_with_leak_0(self, leaker, kind):
        leaker.register(kind(one()))
        assert bool(leaker.async_buckets) is (kind is not ListBucket)

    def test_deregister_says_whether_it_was_there(self, leaker):
        bucket = InMemoryBucket(one())
        leaker.register(bucket)
        assert leaker.deregister(id(bucket)) is True
        assert leaker.deregister(id(bucket)) is False

    def test_is_alive_while_sync_buckets_are_swept(self, leaker):
        assert leaker.is_alive() is False
        leaker.register(InMemoryBucket(one()))
        assert leaker.is_alive() is False
        leaker.start()
        assert leaker.is_alive() is True
        assert leaker._stop_event.is_set() is False
        leaker.close()
        assert leaker.is_alive() is False
        assert leaker._stop_event.is_set() is True

    def test_close_forgets_the_buckets_and_start_comes_too_late(self, leaker):
        leaker.register(InMemoryBucket(one()))
        leaker.close()
        leaker.close()
        leaker.start()
        assert (leaker.sync_buckets, leaker.is_alive()) == ({}, False)

    def test_leak_async_leaks_async_buckets_on_their_loop(self, leaker):
        async def scenario():
            inner = InMemoryBucket(one())
            bucket = BucketAsyncWrapper(inner)
            inner.put(RateItem("x", inner.now() - 5000))
            leaker.register(bucket)
            leaker.leak_async()
            await asyncio.sleep(0)
            await leaker.aio_leak_task
            return inner.count()

        assert asyncio.run(scenario()) == 0

    def test_leak_async_without_a_loop_does_nothing(self, leaker):
        leaker.register(BucketAsyncWrapper(InMemoryBucket(one())))
        leaker.leak_async()
        assert leaker.aio_leak_task is None

    def test_close_cancels_the_sweep_that_is_under_way(self, leaker):
        class Slow(ListBucket):
            is_async = True

            async def leak(self, current_timestamp=None):
                await asyncio.sleep(3600)

        async def scenario():
            leaker.register(Slow(one()))
            leaker.leak_async()
            await asyncio.sleep(0)
            task = leaker.aio_leak_task
            await asyncio.sleep(0)
            leaker.close()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(scenario())
