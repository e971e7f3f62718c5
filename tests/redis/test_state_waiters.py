"""What is stored of a GCRA state in Redis, and of those who wait for it."""

import pytest

from pyrate_limiter import Rate, RateItem, RedisStateStore, StateBucket
from pyrate_limiter.testing import ManualClock
from tests.support.redis_servers import fresh_key, shared_url, sync_client
from tests.support.state_waiters import START, depart, reserve

ONE_EACH_200_MS = Rate(5, 1000, burst=1)


@pytest.fixture
def bucket():
    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, fresh_key())
        bucket = StateBucket([ONE_EACH_200_MS], store=store, clock=ManualClock(START))
        assert bucket.put(RateItem("first", START))
        yield bucket


def test_the_hash_has_one_field_per_rate_while_nobody_waits(bucket):
    store, rates = bucket.store, [Rate(5, 1000, burst=1), Rate(20, 10_000)]
    bucket.rates = rates
    bucket.flush()

    def fields():
        found = store.redis.hgetall(store.key)
        assert all(int(value) > 1000 * START for name, value in found.items() if name != b"open")
        return sorted(found)

    assert bucket.put(RateItem("a", START))
    assert not bucket.put(RateItem("a", START))
    assert bucket.check(RateItem("a", START)).retry_after_ms == 200
    assert fields() == [b"tat1", b"tat2"]
    goes, leaves = reserve(bucket, "goes"), reserve(bucket, "leaves")
    assert fields() == [b"open", b"tat1", b"tat2"]
    assert depart(bucket, [goes]) == [("goes", 200)]
    assert bucket.cancel(leaves)
    assert fields() == [b"tat1", b"tat2"]
    assert store.read(bucket.algorithm, rates) == tuple(
        int(value) for value in store.redis.hmget(store.key, ["tat1", "tat2"])
    )


def test_a_state_that_4_5_1_has_stored_is_gone_by(bucket):
    store = bucket.store
    bucket.flush()
    store.redis.hset(store.key, "tat1", 1000 * (START + 70) + 200_000)
    assert not bucket.put(RateItem("a", START))
    assert bucket.waiting(RateItem("a", START)) == 270
    assert bucket.put(RateItem("a", START + 270))
    assert store.redis.hgetall(store.key) == {b"tat1": b"%d" % (1000 * (START + 470))}


def test_what_is_kept_beside_a_state_expires_with_it(bucket):
    store = bucket.store
    lives = [store.redis.pttl(key) for key in store.redis.scan_iter(f"{store.key}*", count=1000)]
    assert len(lives) == 2
    assert all(0 < life <= 400 for life in lives)


def test_what_was_reserved_under_fewer_rates_is_served_under_more():
    key = fresh_key()
    with sync_client(shared_url()) as client:
        one, two = (
            StateBucket(rates, store=RedisStateStore(client, key))
            for rates in ([Rate(1, 1000)], [Rate(1, 1000), Rate(20, 60_000)])
        )
        assert one.reserve(RateItem("a", one.now()), 5000).allowed
        assert one.reserve(RateItem("a", one.now()), 5000).wait_ms
        later = two.reserve(RateItem("a", two.now()), 5000)
        assert later.wait_ms
        assert two.confirm(later, two.now(), 5000).allowed
        assert two.cancel(later)


def test_a_cancel_after_a_flush_changes_no_time(bucket):
    bucket._clock = ManualClock(1000)  # not the server's time
    bucket.flush()
    item = RateItem("a", bucket.now())
    reservation = bucket.reserve(item)
    assert reservation.allowed
    bucket.flush()
    bucket.cancel(reservation)
    for _ in range(6):
        bucket._clock.advance(bucket.rates[0].interval * 2)
        assert bucket.put(RateItem("a", bucket.now()))


def test_a_key_lives_until_nothing_is_owed():
    key = fresh_key()
    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, key, ttl_ms=2000)
        bucket = StateBucket([Rate(2000, 2000)], store=store)
        assert bucket.put(RateItem("a", bucket.now()))
        while client.pttl(key) > 1950:
            pass
        assert bucket.put(RateItem("a", bucket.now(), 1990))
        assert client.pttl(key) > 1950
