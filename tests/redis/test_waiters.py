"""Several claims in one call, room between claims, and the true time of late waiters."""

import asyncio
import inspect
import time
from types import SimpleNamespace

import pytest

from pyrate_limiter import FixedWindow, Rate, RateItem, RedisBucket, RedisKeys
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.buckets.redis import commands
from pyrate_limiter.testing import ManualClock
from tests.support.redis_servers import async_client, fresh_key, shared_url, sync_client

START = 1_700_000_000_000
FOR_EVER = 1 << 50


@pytest.fixture
def client():
    with sync_client(shared_url()) as client:
        yield client


def bucket_on(client, *rates, algorithm=None):
    bucket = RedisBucket(list(rates), client, fresh_key(), algorithm=algorithm)
    bucket._clock = ManualClock(START)
    return bucket


def full(client, *rates, algorithm=None):
    """A bucket that one item fills at the start."""
    bucket = bucket_on(client, *rates, algorithm=algorithm)
    assert bucket.put(RateItem("full", START, rates[0].limit))
    return bucket


def claim(bucket, weight=1, patience=FOR_EVER, pad=0):
    item = RateItem("a", bucket.now(), weight)
    assert bucket.claim(item, patience, pad).allowed
    return item


def waits(decisions):
    return [decision.wait_ms if decision.allowed else None for decision in decisions]


async def ready(value):
    return await value if inspect.isawaitable(value) else value


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("of_keys", [False, True], ids=["bucket", "keys"])
def test_a_line_is_one_call_that_ends_with_the_first_refusal(client, is_async, of_keys):
    async def main():
        ours = await async_client(shared_url()) if is_async else client
        if of_keys:
            bucket = RedisKeys(ours, fresh_key()).for_name([Rate(2, 1000)], "name")
        else:
            bucket = RedisBucket([Rate(2, 1000)], ours, fresh_key())
        bucket._clock = ManualClock(START)
        items = [RateItem("a", START, weight) for weight in (1, 1, 2, 1, 1)]
        client.config_resetstat()
        decisions = await ready(bucket.claim_several(items, 1500, 0))
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
        assert waits(decisions) == [0, 0, 1001, None]
        assert decisions[-1].retry_after_ms == 2002
        assert [item.timestamp - START for item in items] == [0, 0, 1001, 0, 0]
        assert await ready(bucket.count()) == 4
        assert await ready(bucket.release(items[2]))
        assert not await ready(bucket.release(items[4]))
        assert await ready(bucket.count()) == 2

    client.script_load(RedisBucket([Rate(1, 1)], client, "k")._head[0].text)
    asyncio.run(main())


def test_a_line_by_the_servers_clock_holds_its_moments_and_its_time_limit(client):
    bucket = RedisBucket([Rate(2, 60_000)], client, fresh_key())
    items = [RateItem("a", 0, 2) for _ in range(3)]
    decisions = bucket.claim_several(items, 90_000, 0)
    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert decisions[1].wait_ms > 59_000
    assert items[1].timestamp - items[0].timestamp > 60_000
    assert bucket.pause(items[1], decisions[1]) > 50


def test_no_claim_of_a_line_goes_before_the_one_before_it(client):
    bucket = full(client, Rate(3, 1000))
    ahead = [claim(bucket, weight) for weight in (1, 2, 2)]
    assert [item.timestamp - START for item in ahead] == [1001, 1001, 2002]
    bucket.release(ahead[0])
    first, light = RateItem("a", START, 2), RateItem("a", START, 1)
    assert waits(bucket.claim_several([first, light], FOR_EVER, 0)) == [3003, 3003]
    held = claim(bucket)
    assert held.timestamp == START + 1001
    bucket.release(held)
    decisions = bucket.claim_several([RateItem("a", START)], FOR_EVER, 0, START + 2002)
    assert waits(decisions) == [2002]


def test_a_line_whose_last_claim_is_far_ahead_of_the_log_is_not_put_off(client):
    bucket = full(client, Rate(1, 1000))
    decisions = bucket.claim_several([RateItem("a", START)], FOR_EVER, 0, START + 3_600_000)
    assert waits(decisions) == [1001]


def test_a_claim_may_be_given_back_in_parts(client):
    bucket = full(client, Rate(5, 1000))
    heavy = claim(bucket, 5)
    assert bucket.release(RateItem("a", heavy.timestamp, 2))
    assert bucket.count() == 8
    light = claim(bucket, 2)
    assert light.timestamp == heavy.timestamp
    bucket._clock.set(int(heavy.timestamp))
    assert bucket.settle(RateItem("other", heavy.timestamp, 3), heavy.timestamp).allowed
    assert bucket.release(RateItem("a", heavy.timestamp, 3))
    assert not bucket.release(heavy)
    assert bucket.count() == 7


@pytest.mark.parametrize("algorithm", [None, FixedWindow()], ids=["sliding", "fixed"])
def test_room_that_was_given_back_between_claims_is_used(client, algorithm):
    bucket = full(client, Rate(1, 1000), algorithm=algorithm)
    first, second, third = (claim(bucket) for _ in range(3))
    moment = second.timestamp
    assert bucket.release(second)
    assert claim(bucket).timestamp == moment
    assert claim(bucket).timestamp > third.timestamp
    assert first.timestamp < moment < third.timestamp


def test_room_between_claims_is_not_used_where_a_later_one_would_go_too_early(client):
    bucket = full(client, Rate(2, 1000))
    bucket._clock.advance(500)
    heavy = claim(bucket, 2)
    assert heavy.timestamp == START + 1001
    bucket._clock.advance(100)
    assert claim(bucket).timestamp == START + 2002


def test_a_caller_who_does_not_wait_uses_what_was_given_back_now(client):
    bucket = bucket_on(client, Rate(3, 1000))
    used = [claim(bucket) for _ in range(3)]
    claims = [claim(bucket) for _ in range(3)]
    assert {item.timestamp for item in claims} == {START + 1001}
    bucket._clock.advance(500)
    assert not bucket.put(RateItem("a", START + 500))
    assert bucket.release(used[0])
    assert bucket.release(claims[0])
    assert bucket.put(RateItem("a", START + 500))
    assert not bucket.put(RateItem("a", START + 500))


def test_a_waiter_that_is_late_within_its_pad_is_recorded_at_the_true_time(client):
    bucket = RedisBucket([Rate(1, 1000)], client, fresh_key())
    first, late = RateItem("a", 0), RateItem("a", 0)
    assert bucket.claim(first).allowed
    assert bucket.claim(late, FOR_EVER).wait_ms > 1000
    while server_ms(client) < late.timestamp + 10:  # of the 50 that are kept clear
        time.sleep(bucket.pause(late, ADMITTED) or 0.001)
    departed = server_ms(client)
    assert bucket.settle(late, bucket.now(), FOR_EVER) == ADMITTED
    last = RateItem("a", 0)
    assert bucket.claim(last, FOR_EVER).wait_ms > 900
    assert last.timestamp > departed + 1000


@pytest.mark.parametrize(("interval", "asks"), [(40, False), (4000, True)])
def test_a_waiter_that_is_on_time_asks_only_whether_a_hold_has_come(
    client, monkeypatch, interval, asks
):
    bucket = RedisBucket([Rate(1, interval)], client, fresh_key())
    assert bucket.claim(RateItem("a", 0)).allowed
    item = RateItem("a", 0)
    assert bucket.claim(item, FOR_EVER).wait_ms > 0
    due = SimpleNamespace(monotonic=lambda: item.timestamp.claim.late)
    monkeypatch.setattr(commands, "time", due)
    client.config_resetstat()
    assert bucket.settle(item, bucket.now(), FOR_EVER).allowed
    assert ("cmdstat_evalsha" in client.info("commandstats")) is asks


def server_ms(client):
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


def test_a_refusal_behind_others_of_a_line_is_not_remembered_for_everybody(client):
    bucket = RedisBucket([Rate(2, 60_000)], client, fresh_key())
    items = [RateItem("a", 0), RateItem("a", 0, 2)]
    assert waits(bucket.claim_several(items, 0, 0)) == [0, None]
    other = RedisBucket([Rate(2, 60_000)], client, bucket.bucket_key)
    assert other.release(items[0])
    assert bucket.claim(RateItem("a", 0, 2)).allowed
