"""Limits and weights as large as anybody may write them."""

import sys

import pytest

from pyrate_limiter import FixedWindow, InMemoryBucket, Limiter, MultiprocessBucket, Rate, RateItem
from pyrate_limiter.testing import ManualClock

HUGE = [1 << 60, sys.maxsize, 1 << 70]


@pytest.mark.parametrize("limit", HUGE)
@pytest.mark.parametrize("make", [InMemoryBucket, MultiprocessBucket.init])
def test_a_log_counts_on_however_much_it_has_counted(make, limit):
    with make([Rate(limit, 100)]) as bucket:
        clock = bucket._clock = ManualClock(1_000_000)
        limiter = Limiter(bucket)
        for name in "abc" * 20:
            assert limiter.try_acquire(name, 1 << 60, blocking=False)
            assert not limiter.try_acquire("more", 1 << 60, blocking=False)
            clock.advance(40)
            assert not bucket.put(RateItem("more", clock.ms, 1 << 60))
            clock.advance(61)
        assert bucket.peek(0).name == "c"
        assert bucket.put(RateItem("a", clock.ms, 5))
        clock.advance(1)
        assert bucket.put(RateItem("b", clock.ms, 5))
        assert [bucket.peek(place).name for place in (0, 4, 5, 9)] == ["b", "b", "a", "a"]


@pytest.mark.parametrize("limit", HUGE)
def test_what_is_heavier_than_a_log_can_count_never_fits(limit):
    bucket = InMemoryBucket([Rate(limit, 100)])
    item = RateItem("a", bucket.now(), (1 << 60) + 1)
    assert not bucket.put(item)
    assert bucket.waiting(item) == -1
    assert bucket.reserve(item, 1 << 50).retry_after_ms is None
    assert bucket.put(RateItem("a", bucket.now()))


def test_reservations_of_huge_weights_leave_the_log_whole():
    bucket = InMemoryBucket([Rate(sys.maxsize, 100)])
    clock = bucket._clock = ManualClock(1_000_000)
    for _ in range(30):
        item = RateItem("a", clock.ms, 1 << 60)
        decision = bucket.reserve(item, 10_000, 0)
        clock.advance(decision.wait_ms)
        assert bucket.confirm(decision, clock.ms).wait_ms == 0
    assert not bucket.put(RateItem("b", clock.ms))
    assert bucket.cancel(decision)
    assert bucket.put(RateItem("b", clock.ms))


def test_a_users_policy_counts_huge_weights_too():
    bucket = InMemoryBucket([Rate(1 << 60, 100)], FixedWindow())
    clock = bucket._clock = ManualClock(1_000_000)
    for _ in range(30):
        assert bucket.put(RateItem("a", clock.ms, 1 << 60))
        clock.advance(100)
