"""Reservations on a state whose holders do not come back: they count from their moment on."""

import asyncio

import pytest

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, Rate, RateItem, StateBucket
from pyrate_limiter.testing import ManualClock
from tests.support.kinds import KINDS
from tests.support.state_waiters import START, depart, reserve

ONE_EACH_200_MS = Rate(5, 1000, burst=1)
# Redis keeps its reservations by rules of its own.
ON_A_RECORD = [kind for kind in KINDS if kind.endswith("gcra") and not kind.startswith("redis")]


@pytest.fixture(params=ON_A_RECORD)
def bucket(request, make):
    """A state from which a unit has just gone."""
    bucket = make(request.param, [ONE_EACH_200_MS])
    bucket._clock = ManualClock(START)
    assert bucket.put(RateItem("first", START))
    return bucket


def put_at(bucket, ms):
    bucket._clock.set(START + ms)
    return bucket.put(RateItem("other", bucket.now()))


def test_nobody_is_held_up_after_the_moment_of_one_that_does_not_come_back(bucket):
    bucket.detach(reserve(bucket))
    assert [put_at(bucket, ms) for ms in (0, 200, 399, 400, 599, 600)] == [
        False,
        False,
        False,
        True,
        False,
        True,
    ]


def test_who_may_come_back_is_waited_for(bucket):
    reserve(bucket)
    assert not put_at(bucket, 400)


def test_a_late_waiter_goes_after_one_that_did_not_come_back(bucket):
    late, _ = reserve(bucket, "late"), bucket.detach(reserve(bucket))
    bucket._clock.set(START + 450)
    assert depart(bucket, [late]) == [("late", 600)]


def test_it_can_be_cancelled_until_its_moment(bucket):
    detached = bucket.detach(reserve(bucket))
    assert (detached.wait_ms, detached.item.timestamp) == (200, START + 200)
    assert bucket.cancel(detached)
    assert not bucket.cancel(detached)
    assert reserve(bucket).wait_ms == 200


def test_it_cannot_be_cancelled_once_it_has_counted(bucket):
    detached = bucket.detach(reserve(bucket))
    assert put_at(bucket, 400)
    assert not bucket.cancel(detached)


def test_a_waiter_with_the_same_moment_keeps_its_own(bucket):
    bucket.rates = [Rate(5, 1000, burst=2)]
    bucket.flush()
    bucket.hold(RateItem("hold", START, 0), 1000)
    waiter, detached = reserve(bucket, "waiter"), bucket.detach(reserve(bucket))
    assert waiter.item.timestamp == detached.item.timestamp == START + 1000
    assert bucket.cancel(detached)
    bucket._clock.set(START + 1000)
    assert depart(bucket, [waiter]) == [("waiter", 1000)]
    assert [put_at(bucket, 1000) for _ in range(2)] == [True, False]


def test_what_went_at_once_or_was_forgotten_stays_as_it_is(bucket):
    bucket.flush()
    at_once = reserve(bucket)
    assert bucket.detach(at_once) is at_once
    later = reserve(bucket)
    bucket.flush()
    assert bucket.detach(later) == later
    assert not bucket.cancel(later)


def test_a_log_counts_from_when_it_has_stored():
    bucket = InMemoryBucket([ONE_EACH_200_MS])
    reservation = reserve(bucket)
    assert bucket.detach(reservation) is reservation


def test_async_clothes_hand_it_on():
    bucket = StateBucket([ONE_EACH_200_MS], clock=ManualClock(START))
    assert bucket.put(RateItem("first", START))
    detached = asyncio.run(BucketAsyncWrapper(bucket).detach(reserve(bucket)))
    assert put_at(bucket, 400)
    assert not bucket.cancel(detached)


def test_a_limiters_callers_are_not_held_up_by_what_a_scheduler_has_reserved(bucket):
    limiter = Limiter(bucket)
    moment = limiter.reserve("task")
    assert moment.wait == pytest.approx(0.2, abs=0.051)  # with its pad
    bucket._clock.advance(650)
    assert limiter.try_acquire("a", blocking=False)
    assert not moment.cancel()
