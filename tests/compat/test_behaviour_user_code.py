"""Users' own buckets, clocks, policies and factories, in every mixture of sync and async."""

import asyncio
import inspect
import itertools

import pytest

from pyrate_limiter import (
    GCRA,
    BucketAsyncWrapper,
    InMemoryBucket,
    InMemoryStateStore,
    Limiter,
    LogAlgorithm,
    Rate,
    RateItem,
    SlidingWindowLog,
    StateAlgorithm,
    StateBucket,
    StateStore,
)
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.reservation import Reservation
from tests.support.doubles import (
    AsyncManualClock,
    ListBucket,
    ManualClock,
    OwnFactory,
    in_async_form,
    one,
)

METHODS = ("put", "peek", "leak", "count", "flush", "waiting")
MIXTURES = [
    subset for size in range(len(METHODS) + 1) for subset in itertools.combinations(METHODS, size)
]


def acquire_all(limiter, world, calls=4, **kwargs):
    async def scenario():
        return [await limiter.try_acquire_async("x", **kwargs) for _ in range(calls)]

    return world.run(scenario())


@pytest.mark.parametrize("methods", MIXTURES, ids="-".join)
def test_five_methods_in_any_mixture_are_enough_for_a_limiter(world, methods):
    bucket = in_async_form(ListBucket, *methods)(one(2, 1000), ManualClock(world))
    start = world.ms
    assert acquire_all(Limiter(bucket), world) == [True] * 4
    assert 1001 <= world.ms - start <= 1200
    assert len(bucket.units) == 4


@pytest.mark.parametrize("methods", MIXTURES, ids="-".join)
def test_five_methods_in_any_mixture_are_enough_for_the_wrapper(world, methods):
    bucket = in_async_form(ListBucket, *methods)(one(2, 1000), ManualClock(world))
    start = world.ms
    assert acquire_all(Limiter(BucketAsyncWrapper(bucket)), world) == [True] * 4
    assert 1001 <= world.ms - start <= 1200


@pytest.mark.parametrize("methods", MIXTURES, ids="-".join)
def test_five_methods_in_any_mixture_answer_check(world, methods):
    bucket = in_async_form(ListBucket, *methods)(one(2, 1000), ManualClock(world))
    limiter = Limiter(bucket)
    assert acquire_all(limiter, world, 2) == [True] * 2
    decision = world.run(limiter.check_async())
    assert (decision.failing_rate, decision.retry_after_ms) == (Rate(2, 1000), 1001)
    assert world.run(limiter.check_async(weight=0)).allowed
    assert world.run(limiter.check_async(weight=3)).retry_after_ms is None


@pytest.mark.parametrize("methods", MIXTURES, ids="-".join)
def test_five_methods_in_any_mixture_without_blocking(world, methods):
    bucket = in_async_form(ListBucket, *methods)(one(2, 1000), ManualClock(world))
    assert acquire_all(Limiter(bucket), world, 3, blocking=False) == [True, True, False]
    assert acquire_all(Limiter(bucket), world, 1, timeout=0.2) == [False]


def test_try_acquire_over_a_sync_bucket_with_async_peek_is_awaitable_where_it_has_to_wait(world):
    bucket = in_async_form(ListBucket, "peek")(one(1, 1000), ManualClock(world))
    limiter = Limiter(bucket)
    assert limiter.try_acquire() is True
    promise = limiter.try_acquire()
    assert inspect.isawaitable(promise)
    assert world.run(promise) is True


class OwnNow(ListBucket):
    moment = 7_000

    def now(self):
        return self.moment


class OwnAsyncNow(OwnNow):
    async def now(self):
        return self.moment


@pytest.mark.parametrize("kind", [OwnNow, OwnAsyncNow])
def test_overridden_now_stamps_the_items(world, kind):
    bucket = kind(one(5))
    assert acquire_all(Limiter(bucket), world, 1) == [True]
    assert bucket.peek(0).timestamp == 7_000


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
def test_overridden_now_of_a_built_in_bucket_stamps_the_items(world, kind):
    moments = []

    class Own(kind):
        def now(self):
            moments.append(1)
            return world.ms

    limiter = Limiter(Own(one()))
    assert [limiter.try_acquire(blocking=False) for _ in range(2)] == [True, False]
    assert len(moments) >= 2


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket, ListBucket])
def test_overridden_waiting_is_what_the_limiter_waits(world, kind):
    class Own(kind):
        def waiting(self, item):
            return 5_000

    limiter = Limiter(world.on(Own(one())), buffer_ms=0)
    limiter.try_acquire()
    assert limiter.try_acquire() is True
    assert sum(world.slept) == pytest.approx(5)


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket, ListBucket])
def test_overridden_waiting_of_minus_one_is_never(world, kind):
    class Own(kind):
        def waiting(self, item):
            return -1

    limiter = Limiter(world.on(Own(one())))
    limiter.try_acquire()
    assert limiter.try_acquire() is False
    assert world.slept == []


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket, ListBucket])
def test_overridden_put_sees_every_attempt(world, kind):
    seen = []

    class Own(kind):
        def put(self, item):
            seen.append(item.name)
            return super().put(item)

    limiter = Limiter(world.on(Own(one())))
    assert [limiter.try_acquire("a"), limiter.try_acquire("b")] == [True, True]
    assert limiter.try_acquire("c", blocking=False) is False
    assert seen == ["a", "b", "b", "c"]


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
def test_overridden_put_may_be_async(world, kind):
    class Own(kind):
        async def put(self, item):
            await asyncio.sleep(0)
            return super().put(item)

    assert acquire_all(Limiter(world.on(Own(one()))), world, 3) == [True] * 3


def test_overridden_put_decision_is_obeyed(world):
    class Own(InMemoryBucket):
        def put_decision(self, item):
            return Decision(self.rates[0], 10)

    limiter = Limiter(world.on(Own(one())))
    assert limiter.acquire(blocking=False).allowed in {True, False}


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket, ListBucket])
@pytest.mark.parametrize("clock", [ManualClock, AsyncManualClock])
def test_a_users_clock_sync_or_async(world, kind, clock):
    bucket = kind(one(2, 1000))
    bucket._clock = clock(world)
    start = world.ms
    assert acquire_all(Limiter(bucket), world) == [True] * 4
    assert 1000 <= world.ms - start <= 2200


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket, ListBucket])
def test_try_acquire_with_an_async_clock_is_awaitable(world, kind):
    bucket = kind(one(2, 1000))
    bucket._clock = AsyncManualClock(world)
    promise = Limiter(bucket).try_acquire()
    assert inspect.isawaitable(promise)
    assert world.run(promise) is True


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
def test_leak_with_an_async_clock_can_be_awaited(world, kind):
    async def scenario():
        bucket = kind(one(2, 1000))
        bucket._clock = AsyncManualClock(world)
        bucket.put(RateItem("x", world.ms - 5000))
        leaked = bucket.leak()
        return await leaked if inspect.isawaitable(leaked) else leaked

    assert world.run(scenario()) == (1 if kind is InMemoryBucket else 0)


class Strict(SlidingWindowLog):
    def max_weight(self, rate):
        return 1


class Slower(SlidingWindowLog):
    """A unit counts for twice the interval."""

    def window_start(self, rate, now):
        return now - 2 * rate.interval

    def retry_after(self, rate, now, blocking_timestamp):
        if blocking_timestamp is None:
            return 0
        return max(0, blocking_timestamp + 2 * rate.interval + 1 - now)


class Longer(SlidingWindowLog):
    """Only the answer to "how long" differs."""

    def retry_after(self, rate, now, blocking_timestamp):
        return super().retry_after(rate, now, blocking_timestamp) + 500


class Generous(SlidingWindowLog):
    def admit(self, rates, counts, weight):
        return super().admit(rates, [0 for _ in counts], weight)


class HalfOpen(SlidingWindowLog):
    def window_start(self, rate, now):
        return now - rate.interval + 1

    def retry_after(self, rate, now, blocking_timestamp):
        return max(0, super().retry_after(rate, now, blocking_timestamp) - 1)


def test_overridden_max_weight_says_what_is_not_worth_waiting_for(world):
    limiter = Limiter(world.on(InMemoryBucket(one(5), Strict())))
    assert limiter.try_acquire(weight=5, blocking=False) is True
    assert limiter.try_acquire(weight=5) is False
    assert world.slept == []


def test_overridden_window_start_is_obeyed(world):
    bucket = world.on(InMemoryBucket(one(1, 1000), Slower()))
    limiter = Limiter(bucket, buffer_ms=0)
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(3))
    assert world.ms - start == 2 * 2001


def test_overridden_retry_after_is_what_is_waited(world):
    limiter = Limiter(world.on(InMemoryBucket(one(1, 1000), Longer())), buffer_ms=0)
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(3))
    assert world.ms - start == 2 * 1501


def test_overridden_admit_is_obeyed(world):
    limiter = Limiter(world.on(InMemoryBucket(one(1, 1000), Generous())))
    assert all(limiter.try_acquire(blocking=False) for _ in range(5))


def test_overridden_edge_is_obeyed(world):
    bucket = InMemoryBucket(one(1, 1000), HalfOpen())
    assert [bucket.put(RateItem("x", stamp)) for stamp in (0, 999, 1000)] == [True, False, True]


def test_a_subclass_that_changes_nothing_changes_nothing(world):
    same = type("Same", (SlidingWindowLog,), {})
    stamps = [0, 0, 500, 1000, 1001, 1400, 1501, 1502]
    verdicts = []
    for policy in (SlidingWindowLog(), same()):
        bucket = InMemoryBucket(one(2, 1000), policy)
        verdicts.append(
            [(bucket.put(RateItem("x", s)), bucket.waiting(RateItem("x", s))) for s in stamps]
        )
    assert verdicts[0] == verdicts[1]


class Alternating(LogAlgorithm):
    """A log policy of one's own: nothing at all in odd seconds."""

    def window_start(self, rate, now):
        return now - now % 1000

    def admit(self, rates, counts, weight):
        short = next((r for r, n in zip(rates, counts, strict=True) if n + weight > r.limit), None)
        return ADMITTED if short is None else Decision(short)

    def retry_after(self, rate, now, blocking_timestamp):
        return 1000 - now % 1000

    def blocking_offset(self, rate, weight):
        return None


def test_a_log_policy_of_ones_own(world):
    limiter = Limiter(world.on(InMemoryBucket(one(2, 1000), Alternating())), buffer_ms=0)
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(5))
    assert world.ms - start == 2000


@pytest.mark.parametrize("policy", [Slower, Longer, Alternating])
def test_async_waits_obey_a_policy_of_ones_own(world, policy):
    limiter = Limiter(world.on(InMemoryBucket(one(2, 1000), policy())), buffer_ms=0)
    assert acquire_all(limiter, world, 5) == [True] * 5


class Countdown(StateAlgorithm):
    """A state policy of one's own: so many units for ever after, one more each second."""

    def initial(self, rates):
        return (rates[0].limit, 0)

    def step(self, rates, state, now, weight):
        left, since = state
        left += (now - since) // 1000 if since else 0
        left = min(left, rates[0].limit)
        if weight > rates[0].limit:
            return state, Decision(rates[0])
        if weight > left:
            return state, Decision(rates[0], max(1, 1000 * (weight - left) - (now - since) % 1000))
        return (left - weight, now), ADMITTED

    def consumed(self, rates, state, now):
        return rates[0].limit - state[0]


def test_a_state_policy_of_ones_own(world):
    bucket = world.on(StateBucket(one(3, 1000), Countdown()))
    limiter = Limiter(bucket, buffer_ms=0)
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(5))
    assert world.ms - start == 2000
    assert bucket.count() == 3
    assert limiter.try_acquire(weight=4) is False


class Free(GCRA):
    def step(self, rates, state, now, weight):
        return state, ADMITTED


def test_a_subclass_of_gcra_is_obeyed(world):
    limiter = Limiter(world.on(StateBucket(one(), Free())))
    assert all(limiter.try_acquire(blocking=False) for _ in range(5))


class DictStore(StateStore):
    """A state store of one's own."""

    def __init__(self):
        self.state = None

    def check(self, algorithm, rates, now, weight):
        state = algorithm.initial(rates) if self.state is None else self.state
        self.state, decision = algorithm.step(rates, state, now, weight)
        return decision

    def read(self, algorithm, rates):
        return algorithm.initial(rates) if self.state is None else self.state

    def reset(self):
        self.state = None


class AsyncDictStore(DictStore):
    is_async = True

    async def check(self, algorithm, rates, now, weight):
        await asyncio.sleep(0)
        return DictStore.check(self, algorithm, rates, now, weight)

    async def read(self, algorithm, rates):
        return DictStore.read(self, algorithm, rates)

    async def reset(self):
        DictStore.reset(self)


class SubclassedStore(InMemoryStateStore):
    pass


async def value_of(answer):
    return await answer if inspect.isawaitable(answer) else answer


@pytest.mark.parametrize("store", [DictStore, AsyncDictStore, SubclassedStore])
@pytest.mark.parametrize("clock", [ManualClock, AsyncManualClock])
def test_a_state_store_of_ones_own(world, store, clock):
    async def scenario():
        bucket = StateBucket(one(2, 1000), store=store(), clock=clock(world))
        assert bucket.is_async is (store is AsyncDictStore)
        limiter = Limiter(bucket, buffer_ms=0)
        start = world.ms
        assert [await limiter.try_acquire_async() for _ in range(4)] == [True] * 4
        assert 1000 <= world.ms - start <= 1010
        assert await value_of(bucket.count()) == 2
        refused = await limiter.check_async()
        assert refused.retry_after_ms == pytest.approx(500, abs=2)
        assert (await limiter.check_async(weight=0)).allowed
        await value_of(bucket.flush())
        assert await value_of(bucket.count()) == 0
        assert await value_of(bucket.put(RateItem("x", world.ms, 3))) is False
        assert await value_of(bucket.waiting(RateItem("x", world.ms, 3))) == -1
        assert await value_of(bucket.waiting(RateItem("x", world.ms, 1))) == 0
        assert await value_of(bucket.cancel(Reservation(RateItem("x", world.ms, 1)))) is False

    world.run(scenario())


FACTORY_FORMS = [(), ("wrap_item",), ("get",), ("wrap_item", "get")]
BUCKET_FORMS = [
    InMemoryBucket,
    StateBucket,
    ListBucket,
    in_async_form(ListBucket, "put"),
    in_async_form(ListBucket, *METHODS),
]


@pytest.mark.parametrize("forms", FACTORY_FORMS, ids="-".join)
@pytest.mark.parametrize("bucket", BUCKET_FORMS)
@pytest.mark.parametrize("wrap", [False, True])
def test_a_users_factory_in_every_mixture(world, forms, bucket, wrap):
    inner = world.on(bucket(one(2, 1000)))
    bucket = BucketAsyncWrapper(inner) if wrap else inner
    limiter = Limiter(in_async_form(OwnFactory, *forms)(bucket, ManualClock(world)))
    start = world.ms
    assert acquire_all(limiter, world) == [True] * 4
    assert 1000 <= world.ms - start <= 2200
    assert acquire_all(limiter, world, 1, blocking=False) == [False]
    assert limiter.buckets() == []


@pytest.mark.parametrize("forms", FACTORY_FORMS[1:], ids="-".join)
def test_try_acquire_over_an_async_factory_is_awaitable(world, forms):
    bucket = world.on(InMemoryBucket(one(2, 1000)))
    limiter = Limiter(in_async_form(OwnFactory, *forms)(bucket, ManualClock(world)))
    promise = limiter.try_acquire()
    assert inspect.isawaitable(promise)
    assert world.run(promise) is True


def test_each_attempt_at_a_users_bucket_is_stamped_anew(world):
    stamps = []

    class Own(ListBucket):
        def put(self, item):
            stamps.append(item.timestamp)
            return super().put(item)

    limiter = Limiter(world.on(Own(one(1, 1000))), buffer_ms=0)
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(2))
    assert [stamp - start for stamp in stamps] == [0, 0, 1001]


def test_a_users_bucket_is_called_under_the_limiters_lock(world):
    class Own(ListBucket):
        def put(self, item):
            seen.append(limiter.lock._is_owned())
            return super().put(item)

    seen = []
    limiter = Limiter(world.on(Own(one())))
    assert limiter.try_acquire() is True
    assert seen == [True]


def test_an_error_of_a_users_bucket_passes_and_frees_the_lock(world):
    class Own(ListBucket):
        def put(self, item):
            raise OSError("disk")

    limiter = Limiter(world.on(Own(one())))
    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            limiter.try_acquire()
    assert limiter.lock.acquire(blocking=False)
    limiter.lock.release()
