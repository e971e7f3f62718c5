"""`Limiter.hold`: nothing is admitted under a name before its end, whoever asks."""

import asyncio
import copy
import decimal
import math
import pickle
import threading
import time

import pytest
import redis

from pyrate_limiter import (
    GCRA,
    BucketAsyncWrapper,
    BucketFactory,
    InMemoryBucket,
    Limiter,
    MultiprocessBucket,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    SingleBucketFactory,
    SQLiteBucket,
    StateBucket,
)
from pyrate_limiter._engine.wait_queue import queue_at
from pyrate_limiter.errors import (
    AsyncBucketInSyncCode,
    BucketRetired,
    CannotHold,
    OutOfRange,
    TooManyKeys,
    WrongType,
)
from pyrate_limiter.testing import ManualClock
from tests.buckets.test_own_bucket_conformance import OwnBucket
from tests.support.kinds import KINDS
from tests.support.redis_servers import async_client, free_port, fresh_key, shared_url, sync_client

HOUR = 3600
every_kind = pytest.mark.parametrize("kind", KINDS)
in_memory = pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Waiters:
    """Threads that wait at a limiter, one after the other, and when each of them went."""

    def __init__(self, limiter, number, weight=1):
        self.went, self._limiter, self._weight = [], limiter, weight
        self._threads = []
        for place in range(number):
            thread = threading.Thread(target=self._wait, args=(place,), daemon=True)
            self._threads.append(thread)
            thread.start()
            until(lambda place=place: self._stand() > place)

    def _stand(self):
        queue = queue_at(self._limiter.bucket_factory.bucket)
        return 0 if queue is None else queue.size

    def _wait(self, place):
        assert self._limiter.try_acquire("a", self._weight)
        self.went.append((time.monotonic(), place))

    def join(self):
        for thread in self._threads:
            thread.join(20)
        return sorted(self.went)


@every_kind
def test_those_who_wait_already_wait_for_the_hold_and_then_go_in_order(kind, make):
    bucket = make(kind, [Rate(2, 500)])
    if kind == "fixed window":
        until(lambda: bucket.now() % 500 < 100)  # they join before the next one begins
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", 2, blocking=False)
    waiters = Waiters(limiter, 3, weight=2)
    began = time.monotonic()
    limiter.hold("a", 0.7)
    went = waiters.join()
    assert [place for _, place in went] == [0, 1, 2]
    assert went[0][0] >= began + 0.699  # a clock may have read up to a ms less
    assert went[2][0] >= began + 1.198  # a fixed window may be all but over when the first goes


@every_kind
def test_those_who_wait_go_on_when_the_hold_is_released(kind, make):
    limiter = Limiter(make(kind, [Rate(100, 1000)]))
    limiter.hold("a", HOUR)
    waiters = Waiters(limiter, 3)
    assert waiters.went == []
    assert limiter.release_hold("a") is True
    assert [place for _, place in waiters.join()] == [0, 1, 2]
    assert limiter.release_hold("a") is False


@every_kind
def test_who_does_not_wait_is_told_the_rest_of_the_hold(kind, make):
    limiter = Limiter(make(kind, [Rate(5, 1000)]))
    began = time.monotonic()
    assert limiter.hold("a", HOUR) == HOUR
    assert limiter.acquire("a", 6, timeout=1).retry_after_ms is None  # that never fits
    assert limiter.try_acquire("a", blocking=False) is False
    assert limiter.try_acquire("a", timeout=0) is False
    for ask in (
        lambda: limiter.acquire("a", 2, blocking=False),
        lambda: limiter.acquire("a", 5, timeout=1),
        lambda: limiter.check("a", 3),
    ):
        told = ask().retry_after_ms
        assert HOUR * 1000 - (time.monotonic() - began + 1) * 1000 <= told <= HOUR * 1000
    assert limiter.try_acquire("a", 0) is True


@every_kind
def test_tasks_wait_for_a_hold(kind, make):
    async def run():
        limiter = Limiter(make(kind, [Rate(2, 1000)]))
        began = time.monotonic()
        assert await limiter.hold_async("a", 0.3) == 0.3
        tasks = [asyncio.ensure_future(limiter.try_acquire_async("a")) for _ in range(2)]
        assert await asyncio.gather(*tasks) == [True, True]
        assert time.monotonic() >= began + 0.299
        assert await limiter.hold_async("a", HOUR) == HOUR
        task = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await asyncio.sleep(0.05)
        assert await limiter.release_hold_async("a") is True
        assert await task is True

    asyncio.run(run())


@every_kind
def test_what_one_limiter_holds_another_on_the_same_bucket_waits_for(kind, make):
    bucket = make(kind, [Rate(5, 1000)])
    one, other = Limiter(bucket), Limiter(bucket)
    assert other.try_acquire("b", blocking=False)
    one.hold("a", HOUR)
    assert other.try_acquire("b", blocking=False) is False  # names share the bucket
    one.release_hold("b")
    assert other.try_acquire("b", blocking=False) is True


@pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan, math.inf, -math.inf, 1.8e9])
def test_seconds_out_of_reach_are_refused_with_the_value(seconds):
    limiter = Limiter(Rate(1, 1000))
    with pytest.raises(
        OutOfRange, match=r"seconds must be .* from 0 to 31622400 \(366 days\), got"
    ):
        limiter.hold("a", seconds)
    with pytest.raises(OutOfRange):
        asyncio.run(limiter.hold_async("a", seconds))
    assert limiter.try_acquire("a", blocking=False)


@pytest.mark.parametrize("seconds", ["5", None, [1], 10**400, 1j])
def test_seconds_that_are_no_number_are_refused_with_the_value(seconds):
    with pytest.raises(WrongType, match="seconds must be a number of seconds"):
        Limiter(Rate(1, 1000)).hold("a", seconds)


def test_seconds_may_be_of_any_numeric_type_and_are_rounded_up_to_ms():
    limiter = Limiter(Rate(1, 1000))
    assert limiter.hold("a", 0) == 0
    assert limiter.hold("a", decimal.Decimal("0.0001")) == 0.001
    assert limiter.hold("a", 31_622_400) == 31_622_400


def test_a_users_own_bucket_that_cannot_hold_says_so_and_can_be_taught():
    class Taught(OwnBucket):
        held = 0

        def hold(self, item, hold_ms):
            self.held = max(self.held, item.timestamp + hold_ms)
            return self.held - item.timestamp

        def release_hold(self, item):
            stood, self.held = self.held > item.timestamp, 0
            return stood

        def put(self, item):
            if item.timestamp < self.held:
                self.failing_rate = self.rates[0]
                return False
            return super().put(item)

        def waiting(self, item):
            return max(super().waiting(item), self.held - item.timestamp)

    with pytest.raises(CannotHold, match=r"OwnBucket object .* cannot hold"):
        Limiter(OwnBucket([Rate(1, 1000)])).hold("a", 1)
    with pytest.raises(CannotHold):
        Limiter(OwnBucket([Rate(1, 1000)])).release_hold("a")
    limiter = Limiter(Taught([Rate(9, 1000)]))
    limiter.hold("a", HOUR)
    assert limiter.try_acquire("a", blocking=False) is False
    waiters = Waiters(limiter, 2)
    assert limiter.release_hold("a") is True
    assert len(waiters.join()) == 2


def test_an_algorithm_with_a_script_of_its_own_cannot_hold_in_redis():
    class Own(GCRA):
        def redis_script(self):
            return "return {-1, 0}"

        def step(self, rates, state, now, weight):
            return super().step(rates, state, now, weight)

    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, fresh_key())
        limiter = Limiter(StateBucket([Rate(1, 1000)], Own(), store))
        with pytest.raises(CannotHold):
            limiter.hold("a", 1)


def test_an_async_bucket_is_held_by_awaiting():
    async def run():
        client = await async_client(shared_url())
        limiter = Limiter(await RedisBucket.init([Rate(2, 1000)], client, fresh_key()))
        for call in (lambda: limiter.hold("a", 1), lambda: limiter.release_hold("a")):
            with pytest.raises(AsyncBucketInSyncCode):
                call()
        assert await limiter.hold_async("a", HOUR) == HOUR
        assert await limiter.try_acquire_async("a", blocking=False) is False
        assert await limiter.release_hold_async("a") is True
        await client.aclose()

    asyncio.run(run())


@in_memory
def test_a_wrapped_bucket_is_held_through_its_wrapper(make):
    async def run():
        bucket = make([Rate(2, 1000)])
        wrapped, item = BucketAsyncWrapper(bucket), RateItem("a", bucket.now(), 0)
        assert await wrapped.hold(item, 5000) == 5000
        assert await Limiter(wrapped).try_acquire("a", blocking=False) is False
        assert await wrapped.release_hold(item) is True

    asyncio.run(run())


class Routed(BucketFactory):
    """A user's own factory, sync or async."""

    def __init__(self, awaits):
        self.buckets = {name: InMemoryBucket([Rate(2, 1000)]) for name in "ab"}
        self.awaits = awaits

    def wrap_item(self, name, weight=1):
        item = RateItem(name, self.buckets[name].now(), weight)
        return self.later(item) if self.awaits else item

    def get(self, item):
        return self.buckets[item.name]

    async def later(self, item):
        return item


@pytest.mark.parametrize("awaits", [False, True])
def test_a_users_own_factory_leads_to_the_bucket_that_is_held(awaits):
    async def run():
        limiter = Limiter(Routed(awaits))
        await limiter.hold_async("a", HOUR)
        assert await limiter.try_acquire_async("a", blocking=False) is False
        assert await limiter.try_acquire_async("b", blocking=False) is True
        assert await limiter.release_hold_async("a") is True

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["log", "state", "sqlite", "redis"])
def test_a_name_of_its_own_is_held_alone(kind, tmp_path):
    with sync_client(shared_url()) as client:
        bucket = {
            "log": InMemoryBucket,
            "state": StateBucket,
            "sqlite": SQLiteBucket.per_key(tmp_path / "limits.db"),
            "redis": RedisKeys(client, fresh_key()),
        }[kind]
        with Limiter.per_key(Rate(2, 1000), bucket=bucket) as limiter:
            limiter.hold("a", HOUR)
            assert limiter.try_acquire("a", blocking=False) is False
            assert limiter.try_acquire("b", blocking=False) is True
            assert limiter.release_hold("b") is False
            assert limiter.release_hold("a") is True
            assert limiter.try_acquire("a", 2, blocking=False) is True


@in_memory
def test_a_name_that_is_held_is_not_dropped_for_idleness(make):
    limiter = Limiter.per_key(Rate(2, 10), bucket=make, max_keys=1)
    clock = limiter.bucket_factory.bucket("a")._clock = ManualClock(1_000_000)
    limiter.hold("a", 60)
    clock.advance(59_999)
    limiter.bucket_factory._keys.leak()
    assert len(limiter.bucket_factory) == 1
    assert limiter.release_hold("unknown") is False  # which makes no bucket
    with pytest.raises(TooManyKeys):
        limiter.hold("other", 1)
    clock.advance(1)
    limiter.bucket_factory._keys.leak()
    assert len(limiter.bucket_factory) == 0


@in_memory
@pytest.mark.parametrize("way", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_of_a_bucket_is_held_as_well(make, way):
    bucket = make([Rate(2, 1000)])
    bucket.hold(RateItem("a", bucket.now(), 0), HOUR * 1000)
    other = way(bucket)
    assert not other.put(RateItem("a", other.now()))
    other.release_hold(RateItem("a", other.now(), 0))
    assert other.put(RateItem("a", other.now()))
    assert not bucket.put(RateItem("a", bucket.now()))


@in_memory
def test_a_retired_bucket_is_replaced_by_one_that_is_held(make):
    limiter = Limiter.per_key(Rate(2, 1000), bucket=make)
    bucket = limiter.bucket_factory.bucket("a")
    assert bucket.retire(bucket.now())
    limiter.hold("a", HOUR)
    assert limiter.try_acquire("a", blocking=False) is False


@pytest.mark.parametrize("method", ["hold", "release_hold"])
def test_a_bucket_that_is_dropped_meanwhile_is_asked_for_again(method):
    class Dropped(InMemoryBucket):
        def hold(self, item, hold_ms):
            raise BucketRetired

        def release_hold(self, item):
            raise BucketRetired

    class Changing(SingleBucketFactory):
        def get(self, item):
            return buckets.pop(0)

    buckets = [Dropped([Rate(1, 1000)]), InMemoryBucket([Rate(1, 1000)])]
    limiter = Limiter(Changing(buckets[1], schedule_leak=False))
    kept = buckets[1]
    kept.hold(RateItem("a", kept.now(), 0), 60_000)
    assert getattr(limiter, method)("a", *([HOUR] if method == "hold" else []))
    assert kept.put(RateItem("a", kept.now())) is (method == "release_hold")


def test_a_policy_that_a_bucket_overrides_waits_for_the_hold_too():
    class Shown(InMemoryBucket):
        def peek(self, index):
            return super().peek(index)

    bucket = Shown([Rate(2, 1000)])
    now = bucket.now()
    bucket.hold(RateItem("a", now, 0), 5000)
    assert not bucket.put(RateItem("a", now))
    assert bucket.waiting(RateItem("a", now)) == 5000
    assert bucket.waiting(RateItem("a", now, 2)) == 5000


@pytest.mark.parametrize("on_error", ["allow", "deny", InMemoryBucket])
@pytest.mark.parametrize("state", [False, True])
def test_a_hold_that_cannot_be_stored_is_an_error_whatever_the_outage_policy(on_error, state):
    with sync_client(f"redis://127.0.0.1:{free_port()}") as client:
        if state:
            store = RedisStateStore(client, "key", on_error=on_error)
            limiter = Limiter(StateBucket([Rate(1, 1000)], store=store))
        else:
            limiter = Limiter(RedisBucket([Rate(1, 1000)], client, "key", on_error=on_error))
        for call in (lambda: limiter.hold("a", 1), lambda: limiter.release_hold("a")):
            with pytest.raises(redis.ConnectionError):
                call()


@pytest.mark.parametrize("back", [0, 3_000, 30_000, 3_600_000])
@pytest.mark.parametrize(
    "make", [InMemoryBucket, StateBucket, MultiprocessBucket.init, SQLiteBucket.init_from_file]
)
def test_a_hold_lasts_as_long_as_it_was_to_whatever_the_clock_has_done_before(make, back):
    clock, bucket = ManualClock(1_700_000_000_000), make([Rate(2, 1000)])
    bucket._clock = clock
    assert bucket.put(RateItem("a", bucket.now()))
    clock.set(clock.now() - back)
    bucket.put(RateItem("a", bucket.now()))
    limiter = Limiter(bucket)
    limiter.hold("a", 60)
    clock.advance(59_000)
    assert not limiter.try_acquire("a", blocking=False)
    clock.advance(2_000)
    assert limiter.try_acquire("a", blocking=False)
    bucket.close()


@pytest.fixture
def server():
    with sync_client(shared_url()) as client:
        yield client


def test_a_long_hold_that_was_ended_leaves_no_long_life_behind(server):
    key = fresh_key()
    limiter = Limiter(RedisBucket([Rate(10, 50)], server, key))
    assert limiter.try_acquire("a", blocking=False)
    limiter.hold("a", HOUR)
    assert server.pttl(key) > 3_000_000
    assert limiter.release_hold("a")
    assert server.pttl(key) < 10_000


def test_what_is_given_back_while_a_name_is_held_leaves_the_hold_alone(server):
    bucket = RedisBucket([Rate(5, 1000)], server, fresh_key())
    bucket._clock = ManualClock(1_700_000_000_000)
    item = RateItem("a", bucket.now())
    bucket.hold(item, 3000)
    reservation = bucket.reserve(item, 60_000, 9)
    assert reservation.wait_ms >= 3000
    assert bucket.cancel(reservation)
    assert not bucket.put(RateItem("a", bucket.now()))


def test_a_hold_that_is_over_is_no_unit(server):
    bucket = RedisBucket([Rate(5, 1000)], server, fresh_key())
    bucket.hold(RateItem("a", bucket.now()), 1)
    until(lambda: bucket.reserve(RateItem("a", bucket.now(), 0)).remaining == 5)


def test_a_stamp_that_comes_late_makes_no_hold_shorter(server):
    key = fresh_key()
    early, late = (RedisBucket([Rate(5, 1000)], server, key) for _ in "12")
    early._clock, late._clock = ManualClock(1_700_000_000_000), ManualClock(1_699_999_999_100)
    early.hold(RateItem("a", early.now()), 1000)
    assert not late.put(RateItem("a", late.now()))
    assert early.check(RateItem("a", early.now())).retry_after_ms == 1000


@every_kind
def test_who_waits_for_the_end_of_a_hold_keeps_clear_of_it_and_knows_when_all_is_over(kind, make):
    bucket = make(kind, [Rate(5, HOUR * 1000)])
    bucket._clock = ManualClock(HOUR * 1_000_000)
    assert bucket.hold(RateItem("a", bucket.now(), 0), 100) == 100
    assert bucket.check(RateItem("a", bucket.now(), 0)).reset_after_ms == 100
    assert bucket.reserve(RateItem("a", bucket.now()), 60_000, 20).wait_ms == 120
