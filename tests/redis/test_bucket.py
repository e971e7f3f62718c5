import sys
import time

import pytest

from pyrate_limiter import (
    GCRA,
    FixedWindow,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    SlidingWindowLog,
    StateBucket,
)
from pyrate_limiter.buckets.redis_bucket import LuaScript
from pyrate_limiter.errors import (
    AlgorithmMismatch,
    MissingDriver,
    NoRedisImplementation,
    OutOfRange,
    WrongType,
)
from pyrate_limiter.testing import ManualClock
from tests.support.redis_servers import shared_url, sync_client

RATE = Rate(2, 60_000)


@pytest.fixture
def client(request):
    with sync_client(shared_url()) as client:
        client.delete("unit", request.node.name)
        yield client
        client.delete("unit", request.node.name)


class Counting:
    """A client that counts its round trips."""

    def __init__(self, client):
        self.client = client
        self.calls = 0

    def __getattr__(self, name):
        self.calls += 1
        return getattr(self.client, name)

    def execute_command(self, *args, **options):
        return self.client.execute_command(*args, **options)


def test_the_documented_ways_to_make_one(client):
    script_hash = client.script_load(LuaScript.PUT_ITEM)
    bucket = RedisBucket([RATE], client, "unit", script_hash)
    assert bucket.bucket_key == "unit"
    assert bucket.redis is client
    assert bucket.script_hash == script_hash
    assert bucket.put(RateItem("a", bucket.now(), 2))
    other = RedisBucket.init([RATE], client, bucket_key="unit", algorithm=SlidingWindowLog())
    assert not other.put(RateItem("a", bucket.now()))


def test_an_algorithm_that_lua_cannot_obey_is_refused(client):
    class Own(SlidingWindowLog):
        def window_start(self, rate, now):
            return now - 2 * rate.interval

    class Same(FixedWindow):
        """Only another name."""

    RedisBucket([RATE], client, "unit", algorithm=Same())
    for algorithm in (Own(), GCRA()):
        with pytest.raises(AlgorithmMismatch) as error:
            RedisBucket([RATE], client, "unit", algorithm=algorithm)
        assert isinstance(error.value, TypeError)


def test_a_state_algorithm_without_a_script_is_refused(client):
    class NoScript(GCRA):
        def redis_script(self):
            return None

    class OwnStep(GCRA):
        def step(self, rates, state, now, weight):
            return super().step(rates, state, now, 2 * weight)

    for algorithm in (NoScript(), OwnStep()):
        bucket = StateBucket([RATE], algorithm, store=RedisStateStore(client, "unit"))
        limiter = Limiter(bucket)
        for call in (
            lambda: bucket.put(RateItem("a", 0)),  # noqa: B023 - called here
            lambda: limiter.try_acquire("a"),  # noqa: B023 - as above
            lambda: limiter.try_acquire("a", blocking=False),  # noqa: B023 - as above
            lambda: limiter.check("a"),  # noqa: B023 - as above
        ):
            with pytest.raises(NoRedisImplementation, match="no Redis implementation") as error:
                call()
            assert isinstance(error.value, TypeError)
        assert not client.exists("unit")


def test_a_script_of_ones_own_is_run(client):
    class Own(GCRA):
        def redis_script(self):
            return "if tonumber(ARGV[2]) > 1 then return {0, 777} end return {-1, 0}"

        def step(self, rates, state, now, weight):
            raise NotImplementedError

    class Ours(Own):
        def redis_script(self):
            return super().redis_script()

    bucket = StateBucket([RATE], Ours(), store=RedisStateStore(client, "unit"))
    assert bucket.put(RateItem("a", 0))
    assert bucket.put_decision(RateItem("a", 0, 2)).retry_after_ms == 777
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", 1)
    assert not limiter.try_acquire("a", 2, blocking=False)


@pytest.mark.parametrize(
    "options",
    [{"on_error": "ignore"}, {"call_timeout": "1"}, {"denial_memory_ms": 1.5}, {"on_error": 3}],
)
def test_bad_options_are_refused(client, options):
    with pytest.raises(WrongType):
        RedisBucket([RATE], client, "unit", **options)


def test_options_out_of_range_are_refused(client):
    for options in ({"call_timeout": 0}, {"call_timeout": -1.5}, {"denial_memory_ms": -1}):
        with pytest.raises(OutOfRange):
            RedisBucket([RATE], client, "unit", **options)
    with pytest.raises(OutOfRange, match=r"ttl_ms .* 1 or more, got 0"):
        RedisStateStore(client, "unit", ttl_ms=0)


def test_what_is_no_client_is_refused():
    with pytest.raises(WrongType):
        RedisBucket([RATE], object(), "unit")


def test_a_missing_driver_says_what_to_install(monkeypatch, client):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingDriver, match=r"pyrate-limiter\[redis\]") as error:
        RedisBucket([RATE], client, "unit")
    assert isinstance(error.value, ImportError)


def log(client, **options):
    return RedisBucket([RATE], client, "unit", **options)


def state(client, **options):
    return StateBucket([RATE], store=RedisStateStore(client, "unit", **options))


LOG_AND_STATE = pytest.mark.parametrize("make", [log, state])


@LOG_AND_STATE
def test_one_round_trip_for_an_acquisition_and_none_for_a_remembered_refusal(client, make):
    counting = Counting(client)
    limiter = Limiter(make(counting))
    assert limiter.try_acquire("a", blocking=False)
    client.script_load(LuaScript.PUT_ITEM)
    counting.calls = 0
    assert limiter.try_acquire("a", blocking=False)
    assert counting.calls == 1
    assert not limiter.try_acquire("a", blocking=False)
    assert counting.calls == 2
    for _ in range(50):
        assert not limiter.try_acquire("a", blocking=False)
    wait = limiter.acquire("a", blocking=False).retry_after_ms
    assert 20_000 < wait <= 60_001
    assert counting.calls == 2


def test_a_call_that_does_not_wait_uses_a_reserve_that_was_replaced(client):
    bucket = log(client)
    limiter, seen = Limiter(bucket), []
    reserve = bucket.reserve
    bucket.reserve = lambda *terms, **more: seen.append(terms) or reserve(*terms, **more)
    assert limiter.try_acquire("a", blocking=False)
    assert len(seen) == bucket.count() == 1


@LOG_AND_STATE
def test_a_call_that_does_not_wait_goes_by_the_clock_that_the_bucket_was_given(client, make):
    bucket = make(client)
    limiter = Limiter(bucket)
    clock = bucket._clock = ManualClock(10**12)
    assert [limiter.try_acquire("a", blocking=False) for _ in range(3)] == [True, True, False]
    clock.advance(60_001)
    assert limiter.try_acquire("a", 2, blocking=False)


@LOG_AND_STATE
def test_a_remembered_refusal_is_forgotten_on_flush_and_cancel(client, make):
    bucket = make(client)
    limiter = Limiter(bucket)
    item = RateItem("a", 0, 2)
    reservation = bucket.reserve(item)
    assert reservation
    assert not limiter.try_acquire("a", blocking=False)
    assert bucket.cancel(reservation)
    assert limiter.try_acquire("a", 2, blocking=False)
    assert not limiter.try_acquire("a", blocking=False)
    bucket.flush()
    assert limiter.try_acquire("a", blocking=False)


@LOG_AND_STATE
def test_the_memory_of_refusals_is_bounded_and_can_be_switched_off(client, make):
    other = make(client)
    for memory in (0, 50):
        limiter = Limiter(make(client, denial_memory_ms=memory))
        assert limiter.try_acquire("a", 2, blocking=False)
        assert not limiter.try_acquire("a", blocking=False)
        other.flush()
        time.sleep(memory / 1000)
        assert limiter.try_acquire("a", 2, blocking=False)
        other.flush()


def test_keys_expire_by_themselves(client):
    limiter = Limiter(RedisBucket([Rate(2, 200)], client, "unit"))
    assert limiter.try_acquire("a", blocking=False)
    assert 200 < client.pttl("unit") <= 1400
    reserves = Limiter(RedisBucket([Rate(1, 60_000)], client, "unit"))
    reserves.acquire("a", blocking=False)
    assert client.pttl("unit") > 0


def test_expired_units_are_cleaned_up_beyond_a_slack(client):
    bucket = RedisBucket([Rate(10, 100)], client, "unit")
    for second in range(300):
        assert bucket.put(RateItem("a", second * 1000, 10))
    assert bucket.count() < 1000
    bucket = RedisBucket([Rate(100, 3000)], client, "unit")
    bucket.flush()
    now = bucket.now()
    assert bucket.put(RateItem("a", now, 100))
    assert bucket.put(RateItem("a", now + 3001, 100))
    assert bucket.count() == 200


def test_keys_under_a_prefix(client):
    keys = RedisKeys(client, "unit:")
    limiter = Limiter.per_key(RATE, bucket=keys, max_keys=3)
    for name in ("a", "b", "c", "d", "e"):
        assert limiter.try_acquire(name, 2, blocking=False)
    assert not limiter.try_acquire("a", blocking=False)
    assert len(limiter.buckets()) <= 3
    assert sorted(client.keys("unit:*")) == [b"unit:a", b"unit:b", b"unit:c", b"unit:d", b"unit:e"]
    client.delete(*client.keys("unit:*"))


def test_a_heavy_item_is_one_call(client):
    bucket = RedisBucket([Rate(5000, 60_000)], client, "unit")
    item = RateItem("a", 0, 5000)
    reservation = bucket.reserve(item)
    assert reservation
    assert bucket.count() == 5000
    assert bucket.cancel(reservation)
    assert bucket.count() == 0


def test_a_reservation_cancelled_on_a_clock_of_the_callers_own_gives_back_itself_alone(client):
    store = RedisStateStore(client, "unit")
    bucket = StateBucket([RATE], store=store, clock=ManualClock(10**12))
    item = RateItem("a", bucket.now())
    reservation = bucket.reserve(item)
    assert reservation.allowed
    assert bucket.put(RateItem("a", bucket.now()))
    assert bucket.cancel(reservation)
    assert [bucket.put(RateItem("a", bucket.now())) for _ in range(2)] == [True, False]
