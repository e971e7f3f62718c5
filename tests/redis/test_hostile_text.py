"""Whatever a name or a key is called: it arrives as it is, and changes nothing else."""

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import GCRA, Rate, RateItem, RedisBucket, RedisKeys, RedisStateStore
from pyrate_limiter.buckets.redis.reservations import MOST_IN_NAME, safe_name
from pyrate_limiter.testing import ManualClock
from tests.support.hostile import TEXTS
from tests.support.redis_servers import fresh_key, shared_url

HOURLY = [Rate(4, 3_600_000)]
CLIENTS = [{}, {"decode_responses": True}, {"encoding": "latin-1"}]


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def client(request):
    with redis.Redis.from_url(shared_url(), **request.param) as made:
        yield made


@pytest.fixture(scope="module")
def admin():
    with redis.Redis.from_url(shared_url(), decode_responses=True) as made:
        yield made


@given(name=TEXTS, other=TEXTS)
def test_a_bucket_stores_the_name_and_nothing_else(client, admin, name, other):
    key = "test:hostile name"
    bucket = RedisBucket(HOURLY, client, key)
    bucket.flush()
    clock = bucket._clock = ManualClock(1_000_000_000)
    reserved, waits = RateItem(other, clock.ms, 2), RateItem(name, clock.ms)
    assert bucket.put(RateItem(name, clock.ms, 2))
    first = bucket.reserve(reserved)
    assert first.wait_ms == 0
    later = bucket.reserve(waits, 1 << 40, 0)
    assert later.wait_ms == 3_600_001
    assert bucket.peek(0).name == safe_name(name)
    stored = sorted(bucket.peek(place).name for place in range(1, 5))
    assert stored == sorted([safe_name(name), safe_name(other)] * 2)
    assert bucket.cancel(later)
    assert bucket.cancel(first)
    assert bucket.count() == 2
    assert bucket.put(RateItem(other, clock.ms, 2))
    assert not bucket.put(RateItem(name, clock.ms))
    assert admin.keys(f"{key}*") == [key]


@given(names=st.lists(TEXTS, min_size=2, max_size=5))
def test_a_line_of_any_names_is_told_apart(client, names):
    bucket = RedisBucket([Rate(1, 100)], client, "test:hostile line")
    bucket.flush()
    clock = bucket._clock = ManualClock(1_000_000_000)
    line = [RateItem(name, clock.ms) for name in names]
    made = bucket.reserve_several(line, 1 << 40, 0)
    assert [one.wait_ms for one in made] == [101 * place for place in range(len(names))]
    for reservation in made[1:]:
        clock.set(1_000_000_000 + reservation.wait_ms)
        assert bucket.confirm(reservation, clock.ms, 1 << 40).wait_ms == 0
    found = [bucket.peek(place).name for place in reversed(range(len(names)))]
    assert found == list(map(safe_name, names))


@given(name=TEXTS, other=TEXTS)
def test_each_name_is_limited_by_itself(admin, name, other):
    keys = RedisKeys(admin, f"{fresh_key()} \n:")
    clock = ManualClock(1_000_000_000)
    one, two = keys.for_name(HOURLY, name), keys.for_name(HOURLY, other)
    one._clock = two._clock = clock
    assert one.put(RateItem(name, clock.ms, 4))
    apart = safe_name(name) != safe_name(other)
    assert two.put(RateItem(other, clock.ms, 4)) is apart
    assert not one.put(RateItem(name, clock.ms))
    one.flush()
    two.flush()


@given(key=TEXTS.map(safe_name))
def test_a_key_may_be_called_anything(admin, key):
    key = f"{fresh_key()}{key}"
    bucket = RedisBucket(HOURLY, admin, key)
    store = RedisStateStore(admin, f"{key} state")
    assert bucket.put(RateItem(key, bucket.now(), 4))
    assert store.check(GCRA(), HOURLY, 1_000_000, 4).allowed
    assert not store.check(GCRA(), HOURLY, 1_000_000, 1).allowed
    assert admin.type(key) == "zset"
    assert admin.type(f"{key} state") == "hash"
    bucket.flush()
    store.reset()
    assert not admin.exists(key, f"{key} state")


@given(one=TEXTS, other=TEXTS)
def test_names_that_differ_stand_for_themselves(one, other):
    readable = [it.encode("utf-8", "backslashreplace") for it in (one, other)]
    assert (safe_name(one) == safe_name(other)) is (readable[0] == readable[1])
    assert len(safe_name(one)) <= max(MOST_IN_NAME, 64 * 6 + 65)
