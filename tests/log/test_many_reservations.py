"""How far a log looks: no call takes longer the more is reserved, and no limit is passed."""

from pyrate_limiter import InMemoryBucket, Rate, RateItem, SlidingWindowLog
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.testing import ManualClock

NOW = 1_000_000
FOREVER = 1 << 40


def filled(rates, weights, algorithm=None):
    """A log in which such weights are reserved, one behind the other; and the reservations."""
    bucket = InMemoryBucket(rates, algorithm)
    bucket._clock = ManualClock(NOW)
    return bucket, [bucket.reserve(RateItem("a", NOW, weight), FOREVER, 0) for weight in weights]


def test_who_is_light_stands_behind_many_who_leave_no_room():
    bucket, made = filled([Rate(2, 10)], [2] * 140)
    assert [each.item.timestamp - NOW for each in made] == [11 * place for place in range(140)]
    assert bucket.reserve(RateItem("a", NOW), FOREVER, 0).wait_ms == 11 * 140


def test_room_in_front_of_very_many_may_stay_empty():
    rates = [Rate(1, 1), Rate(300, 100_000)]
    for behind, wait in ((100, 2 * 5), (200, 2 * 205)):
        bucket, made = filled(rates, [1] * (5 + behind))
        assert bucket.cancel(made[5])
        assert bucket.reserve(RateItem("a", NOW), FOREVER, 0).wait_ms == wait


class NeverAgrees(SlidingWindowLog):
    """A policy that refuses at the very moment that it has named."""

    asked = 0

    def decide(self, rates, counts, weight, now, peek_timestamp):
        self.asked += 1
        return Decision(rates[0], 7)


def test_a_policy_that_refuses_at_the_moments_that_it_names_is_not_asked_for_ever():
    policy = NeverAgrees()
    bucket = InMemoryBucket([Rate(1, 10)], policy)
    decision = bucket.reserve(RateItem("a", NOW), FOREVER, 0)
    assert not decision.allowed
    assert decision.retry_after_ms > 0
    assert bucket.count() == 0
    assert policy.asked < 200
