"""How far a log looks: no call takes longer the more claims there are, and no limit is passed."""

from pyrate_limiter import InMemoryBucket, Rate, RateItem, SlidingWindowLog
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.testing import ManualClock

NOW = 1_000_000
FOREVER = 1 << 40


def claims(rates, weights, algorithm=None):
    """A log with these claims, and the items that have them."""
    bucket = InMemoryBucket(rates, algorithm)
    bucket._clock = ManualClock(NOW)
    items = [RateItem("a", NOW, weight) for weight in weights]
    assert all(bucket.claim(item, FOREVER, 0).allowed for item in items)
    return bucket, items


def test_who_is_light_stands_behind_many_who_leave_no_room():
    bucket, items = claims([Rate(2, 10)], [2] * 140)
    assert [item.timestamp - NOW for item in items] == [11 * place for place in range(140)]
    assert bucket.claim(RateItem("a", NOW), FOREVER, 0).wait_ms == 11 * 140


def test_room_in_front_of_very_many_may_stay_empty():
    rates = [Rate(1, 1), Rate(300, 100_000)]
    for behind, wait in ((100, 2 * 5), (200, 2 * 205)):
        bucket, items = claims(rates, [1] * (5 + behind))
        assert bucket.release(items[5])
        assert bucket.claim(RateItem("a", NOW), FOREVER, 0).wait_ms == wait


class NeverAgrees(SlidingWindowLog):
    """A policy that refuses at the very moment that it has named."""

    asked = 0

    def decide(self, rates, counts, weight, now, peek_timestamp):
        self.asked += 1
        return Decision(rates[0], 7)


def test_a_policy_that_refuses_at_the_moments_that_it_names_is_not_asked_for_ever():
    policy = NeverAgrees()
    bucket = InMemoryBucket([Rate(1, 10)], policy)
    decision = bucket.claim(RateItem("a", NOW), FOREVER, 0)
    assert not decision.allowed
    assert decision.retry_after_ms > 0
    assert bucket.count() == 0
    assert policy.asked < 200
