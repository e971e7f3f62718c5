"""Waiters on a GCRA state in Redis that are late, leave, or never come back."""

import pytest

from pyrate_limiter import Rate, RateItem, RedisStateStore, StateBucket
from pyrate_limiter.testing import ManualClock
from tests.support.redis_servers import fresh_key, shared_url, sync_client

START = 1_700_000_000_000
FOR_EVER = 1 << 40
ONE_EACH_200_MS = Rate(5, 1000, burst=1)


@pytest.fixture
def bucket():
    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, fresh_key())
        bucket = StateBucket([ONE_EACH_200_MS], store=store, clock=ManualClock(START))
        assert bucket.put(RateItem("first", START))
        yield bucket


def claim(bucket, name="a"):
    item = RateItem(name, bucket.now())
    assert bucket.claim(item, FOR_EVER, 0).allowed
    return item


def depart(bucket, items):
    """Let waiters go as they can, in their order of moments; when each went, from the start."""
    went, waiting = [], list(items)
    while waiting:
        item = min(waiting, key=lambda each: each.timestamp)
        bucket._clock.set(max(bucket.now(), int(item.timestamp)))
        if not bucket.settle(item, bucket.now(), FOR_EVER).wait_ms:
            went.append((item.name, bucket.now() - START))
            waiting.remove(item)
    return went


def test_waiters_of_a_loop_that_was_stalled_go_one_after_the_other(bucket):
    waiters = [claim(bucket, name) for name in "ABCDE"]
    assert [item.timestamp - START for item in waiters] == [200, 400, 600, 800, 1000]
    bucket._clock.advance(1300)
    assert depart(bucket, waiters) == [
        ("A", 1300),
        ("B", 1500),
        ("C", 1700),
        ("D", 1900),
        ("E", 2100),
    ]


def test_who_comes_while_late_waiters_have_yet_to_go_goes_after_them(bucket):
    waiters = [claim(bucket, name) for name in "ABCD"]
    bucket._clock.advance(1100)
    assert not bucket.put(RateItem("E", bucket.now()))
    last = claim(bucket, "E")
    assert depart(bucket, [*waiters, last])[-1] == ("E", 1900)


def test_who_comes_after_a_waiter_that_left_does_not_go_together_with_another(bucket):
    first, second = claim(bucket, "A"), claim(bucket, "B")
    assert bucket.release(first)
    assert depart(bucket, [second, claim(bucket, "C")]) == [("C", 200), ("B", 400)]


def test_a_late_waiter_counts_also_where_somebody_came_in_between(bucket):
    late = claim(bucket, "A")
    bucket._clock.advance(250)
    assert not bucket.put(RateItem("B", bucket.now()))
    assert depart(bucket, [late]) == [("A", 250)]
    bucket._clock.advance(199)
    assert not bucket.put(RateItem("B", bucket.now()))
    bucket._clock.advance(1)
    assert bucket.put(RateItem("B", bucket.now()))


def test_waiters_of_a_process_that_was_killed_hold_nobody_up_for_long(bucket):
    for _ in range(5):
        claim(bucket, "killed")
    bucket._clock.advance(1000 + 2001)
    assert bucket.put(RateItem("a", bucket.now()))
    bucket._clock.advance(200)
    assert bucket.put(RateItem("a", bucket.now()))


def test_a_waiter_that_comes_back_after_it_was_given_up_waits_its_turn_anew(bucket):
    stalled = claim(bucket, "A")
    bucket._clock.advance(10_000)
    assert bucket.put(RateItem("B", bucket.now()))
    assert depart(bucket, [stalled]) == [("A", 10_200)]


def test_a_waiter_gives_back_a_part_of_its_claim(bucket):
    bucket.rates = [Rate(5, 1000, burst=3)]
    bucket.flush()
    assert bucket.put(RateItem("a", START, 3))
    heavy = RateItem("a", START, 3)
    assert bucket.claim(heavy, FOR_EVER, 0).wait_ms == 600
    assert bucket.release(RateItem("a", heavy.timestamp, 2))
    assert bucket.count() == 4
    assert bucket.release(RateItem("a", heavy.timestamp, 1))
    assert not bucket.release(heavy)
    assert bucket.count() == 3


# The stored format


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
    goes, leaves = claim(bucket, "goes"), claim(bucket, "leaves")
    assert fields() == [b"open", b"tat1", b"tat2"]
    assert depart(bucket, [goes]) == [("goes", 200)]
    assert bucket.release(leaves)
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


def test_what_was_claimed_under_fewer_rates_is_served_under_more():
    key = fresh_key()
    with sync_client(shared_url()) as client:
        one, two = (
            StateBucket(rates, store=RedisStateStore(client, key))
            for rates in ([Rate(1, 1000)], [Rate(1, 1000), Rate(20, 60_000)])
        )
        assert one.claim(RateItem("a", one.now()), 5000).allowed
        assert one.claim(RateItem("a", one.now()), 5000).wait_ms
        later = RateItem("a", two.now())
        assert two.claim(later, 5000).wait_ms
        assert two.settle(later, two.now(), 5000).allowed
        assert two.release(later)


def test_a_release_after_a_flush_changes_no_time(bucket):
    bucket._clock = ManualClock(1000)  # not the server's time
    bucket.flush()
    item = RateItem("a", bucket.now())
    assert bucket.claim(item).allowed
    bucket.flush()
    bucket.release(item)
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
