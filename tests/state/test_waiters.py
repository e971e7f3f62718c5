"""Waiters on a GCRA state, in every store, that are late, leave, or never come back."""

import pytest

from pyrate_limiter import Rate, RateItem
from pyrate_limiter.testing import ManualClock
from tests.support.kinds import KINDS
from tests.support.state_waiters import FOR_EVER, START, depart, reserve

ONE_EACH_200_MS = Rate(5, 1000, burst=1)


@pytest.fixture(params=[kind for kind in KINDS if kind.endswith("gcra")])
def bucket(request, make):
    """A state from which a unit has just gone."""
    bucket = make(request.param, [ONE_EACH_200_MS])
    bucket._clock = ManualClock(START)
    assert bucket.put(RateItem("first", START))
    return bucket


def test_waiters_of_a_loop_that_was_stalled_go_one_after_the_other(bucket):
    waiters = [reserve(bucket, name) for name in "ABCDE"]
    assert [each.item.timestamp - START for each in waiters] == [200, 400, 600, 800, 1000]
    bucket._clock.advance(1300)
    assert depart(bucket, waiters) == [
        ("A", 1300),
        ("B", 1500),
        ("C", 1700),
        ("D", 1900),
        ("E", 2100),
    ]


def test_who_comes_while_late_waiters_have_yet_to_go_goes_after_them(bucket):
    waiters = [reserve(bucket, name) for name in "ABCD"]
    bucket._clock.advance(1100)
    assert not bucket.put(RateItem("E", bucket.now()))
    last = reserve(bucket, "E")
    assert depart(bucket, [*waiters, last])[-1] == ("E", 1900)


def test_who_comes_after_a_waiter_that_left_does_not_go_together_with_another(bucket):
    first, second = reserve(bucket, "A"), reserve(bucket, "B")
    assert bucket.cancel(first)
    assert depart(bucket, [second, reserve(bucket, "C")]) == [("C", 200), ("B", 400)]


def test_a_late_waiter_counts_also_where_somebody_came_in_between(bucket):
    late = reserve(bucket, "A")
    bucket._clock.advance(250)
    assert not bucket.put(RateItem("B", bucket.now()))
    assert depart(bucket, [late]) == [("A", 250)]
    bucket._clock.advance(199)
    assert not bucket.put(RateItem("B", bucket.now()))
    bucket._clock.advance(1)
    assert bucket.put(RateItem("B", bucket.now()))


def test_waiters_of_a_process_that_was_killed_hold_nobody_up_for_long(bucket):
    for _ in range(5):
        reserve(bucket, "killed")
    bucket._clock.advance(1000 + 2001)
    assert bucket.put(RateItem("a", bucket.now()))
    bucket._clock.advance(200)
    assert bucket.put(RateItem("a", bucket.now()))


def test_a_waiter_that_comes_back_after_it_was_given_up_waits_its_turn_anew(bucket):
    stalled = reserve(bucket, "A")
    bucket._clock.advance(10_000)
    assert bucket.put(RateItem("B", bucket.now()))
    assert depart(bucket, [stalled]) == [("A", 10_200)]


def test_a_waiter_gives_back_a_part_of_its_reserve(bucket):
    bucket.rates = [Rate(5, 1000, burst=3)]
    bucket.flush()
    assert bucket.put(RateItem("a", START, 3))
    heavy = bucket.reserve(RateItem("a", START, 3), FOR_EVER, 0)
    assert heavy.wait_ms == 600
    assert bucket.cancel(heavy.part(2))
    assert bucket.count() == 4
    assert bucket.cancel(heavy.part(1))
    assert not bucket.cancel(heavy)
    assert bucket.count() == 3
