"""Limiter.per_key and the factory behind it."""

import asyncio
import pickle
import sys
import threading

import pytest

from pyrate_limiter import (
    AbstractClock,
    BucketAsyncWrapper,
    InMemoryBucket,
    KeyedBucketFactory,
    Limiter,
    Rate,
    RateItem,
    StateBucket,
)
from pyrate_limiter.errors import BucketRetired, InvalidBucket, TooManyKeys
from tests.support.doubles import ListBucket, one


def on_world(world, kind=InMemoryBucket):
    return lambda rates: world.on(kind(rates))


@pytest.fixture(params=[InMemoryBucket, StateBucket])
def kind(request):
    return request.param


def test_each_name_has_a_bucket_of_its_own(kind):
    limiter = Limiter.per_key(Rate(1, 60_000), bucket=kind)
    assert [limiter.try_acquire(name, blocking=False) for name in "aabb"] == [1, 0, 1, 0]
    limiter.close()


def test_without_per_key_every_name_shares_one(kind):
    limiter = Limiter(kind(one(1, 60_000)))
    assert [limiter.try_acquire(name, blocking=False) for name in "ab"] == [True, False]
    limiter.close()


def test_rates_of_a_list_all_hold(world):
    limiter = Limiter.per_key([Rate(1, 100), Rate(2, 1000)], bucket=on_world(world))
    got = []
    for _ in range(4):
        got.append(limiter.try_acquire("a", blocking=False))
        world.advance(101)
    assert got == [True, True, False, False]


def test_waiting_for_one_name_takes_nothing_of_another(world):
    limiter = Limiter.per_key(Rate(1, 1000), bucket=on_world(world))
    assert all(limiter.try_acquire("a") for _ in range(3))
    assert limiter.try_acquire("b", blocking=False) is True


@pytest.mark.parametrize("name", ["", "é", "\0", "x" * 10_000])
def test_any_name_is_a_key(name):
    limiter = Limiter.per_key(Rate(1, 60_000))
    assert [limiter.try_acquire(name, blocking=False) for _ in range(2)] == [True, False]
    limiter.close()


def test_an_idle_bucket_is_dropped_where_room_is_needed(world, kind):
    factory = KeyedBucketFactory(one(), bucket=on_world(world, kind), max_keys=3)
    limiter = Limiter(factory)
    for name in "abc":
        limiter.try_acquire(name)
    world.advance(1002)
    assert limiter.try_acquire("d", blocking=False) is True
    assert len(factory) == 1


def test_a_live_bucket_is_never_dropped(world, kind):
    factory = KeyedBucketFactory(one(1, 60_000), bucket=on_world(world, kind), max_keys=3)
    limiter = Limiter(factory)
    for name in "abc":
        limiter.try_acquire(name)
    world.advance(59_000)
    with pytest.raises(TooManyKeys, match="all 3 keys hold live units") as caught:
        limiter.try_acquire("d")
    assert (caught.value.name, caught.value.max_keys) == ("d", 3)
    assert [limiter.try_acquire(name, blocking=False) for name in "abc"] == [False] * 3


def test_memory_is_bounded_by_max_keys(world, kind):
    factory = KeyedBucketFactory(one(1, 10), bucket=on_world(world, kind), max_keys=50)
    limiter = Limiter(factory)
    for number in range(1000):
        limiter.try_acquire(str(number))
        world.advance(1)
        assert len(factory) <= 50


def test_a_flood_of_refused_names_does_not_search_for_room_each_time(world, monkeypatch):
    looks = []

    class Watched(InMemoryBucket):
        def retire(self, now):
            looks.append(1)
            return super().retire(now)

    factory = KeyedBucketFactory(one(1, 60_000), bucket=on_world(world, Watched), max_keys=2)
    monkeypatch.setattr("pyrate_limiter.keyed.time.monotonic", world.monotonic)
    limiter = Limiter(factory)
    limiter.try_acquire("a")
    limiter.try_acquire("b")
    for number in range(100):
        with pytest.raises(TooManyKeys):
            limiter.try_acquire(str(number))
    assert len(looks) == 2
    world.advance(60_002)
    assert limiter.try_acquire("c") is True


def test_a_users_bucket_that_cannot_retire_is_never_dropped(world):
    factory = KeyedBucketFactory(one(), bucket=on_world(world, ListBucket), max_keys=1)
    limiter = Limiter(factory)
    limiter.try_acquire("a")
    world.advance(10_000)
    with pytest.raises(TooManyKeys):
        limiter.try_acquire("b")


def test_a_retired_bucket_refuses_all_use(world, kind):
    bucket = world.on(kind(one()))
    assert bucket.retire(world.ms) is True
    item = RateItem("x", world.ms)
    for call in (bucket.put, bucket.reserve, bucket.check):
        with pytest.raises(BucketRetired):
            call(item)


def test_a_bucket_with_live_or_reserved_units_does_not_retire(world, kind):
    bucket = world.on(kind(one()))
    bucket.put(RateItem("x", world.ms))
    assert bucket.reserve(RateItem("x", world.ms), 60_000).allowed
    assert bucket.retire(world.ms) is False
    assert bucket.retire(world.ms + 1001) is False


@pytest.mark.parametrize("call", ["try_acquire", "acquire", "check", "try_acquire_async"])
def test_a_caller_whose_bucket_was_dropped_meanwhile_gets_a_new_one(world, kind, call):
    class Racing(KeyedBucketFactory):
        """Drops the bucket after it was handed out, the first time."""

        raced = False

        def get(self, item):
            bucket = super().get(item)
            if not self.raced:
                self.raced = True
                assert bucket.retire(world.ms)
                del self._keys.buckets[item.name]
            return bucket

    limiter = Limiter(Racing(one(), bucket=on_world(world, kind)))
    answer = getattr(limiter, call)("a")
    assert world.run(answer) if call.endswith("async") else answer
    limiter.close()


def test_the_straight_path_survives_a_dropped_bucket(world, kind):
    limiter = Limiter.per_key(one(), bucket=kind)
    limiter.try_acquire("a")
    bucket = limiter.bucket_factory.bucket("a")
    bucket.flush()
    assert bucket.retire(bucket.now())
    del limiter.bucket_factory._keys.buckets["a"]
    assert limiter.try_acquire("a") is True
    limiter.close()


def test_the_sweep_drops_idle_buckets_and_keeps_live_ones(world, kind):
    factory = KeyedBucketFactory(one(), bucket=on_world(world, kind))
    limiter = Limiter(factory)
    limiter.try_acquire("old")
    world.advance(900)
    limiter.try_acquire("new")
    world.advance(200)
    assert factory._keys.leak() == 1
    assert list(factory._keys.buckets) == ["new"]
    limiter.close()


def test_async_buckets_are_keyed_too(world):
    limiter = Limiter.per_key(
        one(1, 1000), bucket=lambda rates: BucketAsyncWrapper(world.on(InMemoryBucket(rates)))
    )

    async def scenario():
        return [await limiter.try_acquire("a"), await limiter.try_acquire("a")]

    assert world.run(scenario()) == [True, True]
    assert limiter.bucket_factory._keys.leak() == 0


def test_dispose_drops_a_bucket_by_itself_or_id():
    limiter = Limiter.per_key(Rate(1, 60_000))
    limiter.try_acquire("a")
    limiter.try_acquire("b")
    first, second = limiter.buckets()
    assert limiter.dispose(first) is True
    assert limiter.dispose(id(second)) is True
    assert limiter.dispose(first) is False
    assert limiter.try_acquire("a", blocking=False) is True
    limiter.close()


def test_close_closes_and_drops_the_buckets():
    closed = []

    class Own(InMemoryBucket):
        def close(self):
            closed.append(1)

    limiter = Limiter.per_key(Rate(1, 1000), bucket=Own)
    limiter.try_acquire("a")
    limiter.close()
    limiter.close()
    assert (closed, limiter.buckets()) == ([1], [])


def test_survives_pickle_with_its_keys():
    limiter = Limiter.per_key(Rate(1, 3_600_000))
    limiter.try_acquire("a")
    again = pickle.loads(pickle.dumps(limiter))
    assert [again.try_acquire(name, blocking=False) for name in "ab"] == [False, True]
    limiter.close()
    again.close()


def test_a_call_that_needs_room_looks_at_a_few_keys_only(world):
    looks = []

    class Watched(InMemoryBucket):
        def retire(self, now):
            looks.append(1)
            return super().retire(now)

    factory = KeyedBucketFactory(one(1, 60_000), bucket=on_world(world, Watched), max_keys=1000)
    limiter = Limiter(factory)
    for number in range(1000):
        limiter.try_acquire(str(number))
    for calls in range(1, 5):
        with pytest.raises(TooManyKeys):
            limiter.try_acquire("new")
        assert len(looks) <= 100 * calls


def test_calls_that_need_room_come_round_to_every_key(world):
    factory = KeyedBucketFactory(one(1, 60_000), bucket=on_world(world), max_keys=1000)
    limiter = Limiter(factory)
    for number in range(1000):
        limiter.try_acquire(str(number))
    factory.bucket("500").flush()
    refused = 0
    while True:
        try:
            limiter.try_acquire("new")
            break
        except TooManyKeys:
            refused += 1
    assert refused < 20
    assert "500" not in factory._keys.buckets


def test_keys_that_were_used_while_a_test_froze_the_time_are_dropped_afterwards(world, kind):
    factory = KeyedBucketFactory(one(), bucket=on_world(world, kind), max_keys=3)
    limiter = Limiter(factory)
    world.advance(10**12)
    for name in "abc":
        limiter.try_acquire(name)
    world.advance(-(10**12))
    for name in "de":
        with pytest.raises(TooManyKeys):
            limiter.try_acquire(name)
    world.advance(10**6)
    assert factory._keys.leak() == 3
    assert limiter.try_acquire("d", blocking=False) is True


def test_a_look_in_vain_while_a_test_froze_the_time_is_forgotten_afterwards(world, monkeypatch):
    factory = KeyedBucketFactory(one(), bucket=on_world(world), max_keys=1)
    monkeypatch.setattr("pyrate_limiter.keyed.time.monotonic", lambda: world.monotonic() + 1e9)
    limiter = Limiter(factory)
    limiter.try_acquire("a")
    with pytest.raises(TooManyKeys):
        limiter.try_acquire("b")
    monkeypatch.setattr("pyrate_limiter.keyed.time.monotonic", world.monotonic)
    world.advance(1002)
    assert limiter.try_acquire("b", blocking=False) is True


def test_a_key_on_which_somebody_has_waited_is_dropped_when_idle(world):
    bucket = world.on(StateBucket(one()))
    assert bucket.reserve(RateItem("x", world.ms)).allowed
    item = RateItem("x", world.ms)
    reservation = bucket.reserve(item, 60_000)
    world.advance(reservation.wait_ms)
    assert bucket.confirm(reservation, world.ms).allowed
    world.advance(2000)
    assert bucket.retire(world.ms) is True


def test_a_bucket_function_may_wait_for_a_thread_that_uses_the_same_limiter():
    def make(rates):
        if threading.current_thread() is threading.main_thread():
            helper = threading.Thread(target=limiter.try_acquire, args=("other",))
            helper.start()
            helper.join(30)
            assert not helper.is_alive()
        return InMemoryBucket(rates)

    limiter = Limiter.per_key(Rate(5, 1000), bucket=make)
    assert limiter.try_acquire("mine", blocking=False) is True
    assert len(limiter.buckets()) == 2
    limiter.close()


def test_a_clock_of_one_key_may_wait_for_a_thread_that_uses_another():
    """No code of the user's runs under a lock that another key can want."""

    class Waiting(AbstractClock):
        def now(self):
            helper = threading.Thread(target=limiter.try_acquire, args=("plain",))
            helper.start()
            helper.join(30)
            assert not helper.is_alive()
            return 5

    class Own(InMemoryBucket):
        pass

    limiter = Limiter.per_key(Rate(5, 1000), bucket=Own)
    limiter.bucket_factory.bucket("slow")._clock = Waiting()
    assert limiter.try_acquire("slow", blocking=False) is True
    limiter.close()


def test_an_error_of_one_keys_clock_does_not_end_the_sweep_of_the_others(world):
    factory = KeyedBucketFactory(one(), bucket=on_world(world))
    limiter = Limiter(factory)
    for name in "abc":
        limiter.try_acquire(name)
    world.advance(2000)
    factory.bucket("a")._clock = None
    with pytest.raises(AttributeError):
        factory._keys.leak()
    assert list(factory._keys.buckets) == ["a"]


def test_a_limiter_that_only_looks_at_an_unknown_name_keeps_no_bucket():
    with Limiter.per_key(Rate(1, 60_000)) as limiter:
        assert limiter.check("new").remaining == 1
        assert limiter.buckets() == []
        assert limiter.try_acquire("new")
        assert not limiter.check("new")
        assert len(limiter.buckets()) == 1


def test_a_look_at_an_unknown_name_keeps_no_bucket():
    factory = KeyedBucketFactory(Rate(1, 60_000))
    assert factory.look("new").count() == 0
    assert len(factory) == 0
    known = factory.bucket("known")
    assert factory.look("known") is known
    factory.close()


def test_a_bucket_that_was_retired_and_not_yet_dropped_is_replaced(kind):
    limiter = Limiter.per_key(one(), bucket=kind)
    limiter.try_acquire("a")
    bucket = limiter.bucket_factory.bucket("a")
    bucket.flush()
    assert bucket.retire(bucket.now())
    assert limiter.try_acquire("a", blocking=False) is True
    assert limiter.bucket_factory.bucket("a") is not bucket
    limiter.close()


@pytest.mark.parametrize("max_keys", [1.5, "1", None])
def test_max_keys_is_a_whole_number_of_one_or_more(max_keys):
    with pytest.raises(TypeError, match="max_keys must be a whole number"):
        Limiter.per_key(Rate(1, 1), max_keys=max_keys)


def test_what_the_bucket_function_gives_has_to_be_a_bucket():
    with pytest.raises(InvalidBucket, match="must be an AbstractBucket"):
        Limiter.per_key(Rate(1, 1), bucket=lambda rates: "x").try_acquire()


def test_threads_that_meet_a_new_name_together_get_one_bucket():
    limiter = Limiter.per_key(Rate(5, 3_600_000))
    got, start = [], threading.Barrier(8)

    def work():
        start.wait(10)
        got.extend(limiter.try_acquire("same", blocking=False) for _ in range(5))

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    finally:
        sys.setswitchinterval(old)
    assert sum(got) == 5
    limiter.close()


def test_sweep_and_use_race_without_losing_a_limit(world):
    """Units that are live are never forgotten while idle buckets are dropped around them."""
    limiter = Limiter.per_key(Rate(1, 3_600_000), max_keys=10_000)
    stop = threading.Event()

    def sweep():
        while not stop.is_set():
            limiter.bucket_factory._keys.leak()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        first = [limiter.try_acquire(str(n), blocking=False) for n in range(2000)]
        second = [limiter.try_acquire(str(n), blocking=False) for n in range(2000)]
    finally:
        stop.set()
        sweeper.join(10)
    assert all(first)
    assert not any(second)
    limiter.close()


def test_tasks_wait_for_their_own_key_only(world):
    limiter = Limiter.per_key(Rate(1, 1000), bucket=on_world(world))

    async def scenario():
        start = world.ms
        calls = [limiter.try_acquire_async(name) for name in "abcdeabcde"]
        got = await asyncio.gather(*calls)
        return got, world.ms - start

    got, elapsed = world.run(scenario())
    assert got == [True] * 10
    assert 1001 <= elapsed <= 1100
