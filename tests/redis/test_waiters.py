"""Several reservations in one call, room between them, and the true time of late waiters."""

import asyncio
import inspect
import time
from types import SimpleNamespace

import pytest

from pyrate_limiter import FixedWindow, Rate, RateItem, RedisBucket, RedisKeys
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.redis import commands
from pyrate_limiter.buckets.redis.request import Outcome, Step
from pyrate_limiter.buckets.redis.reservations import undoing
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


def reserve(bucket, weight=1, max_wait_ms=FOR_EVER, pad=0):
    reservation = bucket.reserve(RateItem("a", bucket.now(), weight), max_wait_ms, pad)
    assert isinstance(reservation, Reservation)
    return reservation


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
        decisions = await ready(bucket.reserve_several(items, 1500, 0))
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
        assert waits(decisions) == [0, 0, 1001, None]
        assert decisions[-1].retry_after_ms == 2002
        assert [item.timestamp - START for item in items] == [0, 0, 1001, 0, 0]
        assert await ready(bucket.count()) == 4
        assert await ready(bucket.cancel(decisions[2]))
        assert not await ready(bucket.cancel(decisions[2]))
        assert await ready(bucket.count()) == 2

    client.script_load(RedisBucket([Rate(1, 1)], client, "k")._head[0].text)
    asyncio.run(main())


def test_a_line_by_the_servers_clock_holds_its_moments_and_its_time_limit(client):
    bucket = RedisBucket([Rate(2, 60_000)], client, fresh_key())
    items = [RateItem("a", 0, 2) for _ in range(3)]
    decisions = bucket.reserve_several(items, 90_000, 0)
    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert decisions[1].wait_ms > 59_000
    assert items[1].timestamp - items[0].timestamp > 60_000
    assert bucket.pause(decisions[1]) > 50


def test_no_reservation_of_a_line_goes_before_the_one_before_it(client):
    bucket = full(client, Rate(3, 1000))
    ahead = [reserve(bucket, weight) for weight in (1, 2, 2)]
    assert [each.item.timestamp - START for each in ahead] == [1001, 1001, 2002]
    bucket.cancel(ahead[0])
    first, light = RateItem("a", START, 2), RateItem("a", START, 1)
    assert waits(bucket.reserve_several([first, light], FOR_EVER, 0)) == [3003, 3003]
    held = reserve(bucket)
    assert held.item.timestamp == START + 1001
    bucket.cancel(held)
    decisions = bucket.reserve_several([RateItem("a", START)], FOR_EVER, 0, START + 2002)
    assert waits(decisions) == [2002]


def test_a_line_whose_last_reservation_is_far_ahead_of_the_log_is_not_put_off(client):
    bucket = full(client, Rate(1, 1000))
    decisions = bucket.reserve_several([RateItem("a", START)], FOR_EVER, 0, START + 3_600_000)
    assert waits(decisions) == [1001]


def test_a_reservation_may_be_given_back_in_parts(client):
    bucket = full(client, Rate(5, 1000))
    heavy = reserve(bucket, 5)
    assert bucket.cancel(heavy.part(2))
    assert bucket.count() == 8
    light = reserve(bucket, 2)
    assert light.item.timestamp == heavy.item.timestamp
    bucket._clock.set(int(heavy.item.timestamp))
    assert bucket.confirm(heavy.part(3), heavy.item.timestamp).allowed
    assert bucket.cancel(heavy.part(3))
    assert not bucket.cancel(heavy)
    assert bucket.count() == 7


@pytest.mark.parametrize("algorithm", [None, FixedWindow()], ids=["sliding", "fixed"])
def test_room_that_was_given_back_between_reservations_is_used(client, algorithm):
    bucket = full(client, Rate(1, 1000), algorithm=algorithm)
    first, second, third = (reserve(bucket) for _ in range(3))
    moment = second.item.timestamp
    assert bucket.cancel(second)
    assert reserve(bucket).item.timestamp == moment
    assert reserve(bucket).item.timestamp > third.item.timestamp
    assert first.item.timestamp < moment < third.item.timestamp


def test_room_between_reservations_is_not_used_where_a_later_one_would_go_too_early(client):
    bucket = full(client, Rate(2, 1000))
    bucket._clock.advance(500)
    heavy = reserve(bucket, 2)
    assert heavy.item.timestamp == START + 1001
    bucket._clock.advance(100)
    assert reserve(bucket).item.timestamp == START + 2002


def test_a_caller_who_does_not_wait_uses_what_was_given_back_now(client):
    bucket = bucket_on(client, Rate(3, 1000))
    used = [reserve(bucket) for _ in range(3)]
    waiting = [reserve(bucket) for _ in range(3)]
    assert {each.item.timestamp for each in waiting} == {START + 1001}
    bucket._clock.advance(500)
    assert not bucket.put(RateItem("a", START + 500))
    assert bucket.cancel(used[0])
    assert bucket.cancel(waiting[0])
    assert bucket.put(RateItem("a", START + 500))
    assert not bucket.put(RateItem("a", START + 500))


def test_a_waiter_that_is_late_within_its_pad_is_recorded_at_the_true_time(client):
    bucket = RedisBucket([Rate(1, 1000)], client, fresh_key())
    first, late = RateItem("a", 0), RateItem("a", 0)
    assert bucket.reserve(first).allowed
    reserved_late = bucket.reserve(late, FOR_EVER)
    assert reserved_late.wait_ms > 1000
    while server_ms(client) < late.timestamp + 10:  # of the 50 that are kept clear
        time.sleep(bucket.pause(reserved_late) or 0.001)
    departed = server_ms(client)
    assert bucket.confirm(reserved_late, bucket.now(), FOR_EVER).wait_ms == 0
    last = RateItem("a", 0)
    assert bucket.reserve(last, FOR_EVER).wait_ms > 900
    assert last.timestamp > departed + 1000


@pytest.mark.parametrize(("interval", "asks"), [(40, False), (4000, True)])
def test_a_waiter_that_is_on_time_asks_only_whether_a_hold_has_come(
    client, monkeypatch, interval, asks
):
    bucket = RedisBucket([Rate(1, interval)], client, fresh_key())
    assert bucket.reserve(RateItem("a", 0)).allowed
    item = RateItem("a", 0)
    reservation = bucket.reserve(item, FOR_EVER)
    assert reservation.wait_ms > 0
    due = SimpleNamespace(monotonic=lambda: reservation.handle.late)
    monkeypatch.setattr(commands, "time", due)
    client.config_resetstat()
    assert bucket.confirm(reservation, bucket.now(), FOR_EVER).allowed
    assert ("cmdstat_evalsha" in client.info("commandstats")) is asks


def server_ms(client):
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


def test_a_refusal_behind_others_of_a_line_is_not_remembered_for_everybody(client):
    bucket = RedisBucket([Rate(2, 60_000)], client, fresh_key())
    decisions = bucket.reserve_several([RateItem("a", 0), RateItem("a", 0, 2)], 0, 0)
    assert waits(decisions) == [0, None]
    other = RedisBucket([Rate(2, 60_000)], client, bucket.bucket_key)
    assert other.cancel(decisions[0])
    assert bucket.reserve(RateItem("a", 0, 2)).allowed


@pytest.mark.parametrize(
    ("kind", "outcome", "mark"),
    [
        ("reserve", Outcome(START, 0, 0, 0, 0, 0), "0"),
        ("reserve", Outcome(START, 0, 30, 5, 0, 0), "+30"),
        ("next", Outcome(START, 0, 30, -1, 0, 0), "-30"),
        ("confirm", Outcome(START, 0, 0, 1, 0, 0), "=7"),
        ("confirm", Outcome(START, 0, 30, 5, 0, 0), "+30"),  # it was gone, and reserved anew
        ("confirm", Outcome(START, 2, 30, 0, 0, 0), None),
        ("cancel", Outcome(START, 0, 0, 0, 0, 0), None),
    ],
)
def test_what_nobody_waits_for_is_given_back_under_the_mark_that_it_was_stored_by(
    kind, outcome, mark
):
    undo = undoing(Step(kind, 3, "-7", 0, "a:1"), outcome)
    assert undo == (None if mark is None else Step("cancel", 3, mark, 1, "a:1"))
