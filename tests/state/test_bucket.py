"""`StateBucket`: what it is made of, and what it does where its store or policy has less."""

import pytest

from pyrate_limiter import GCRA, InMemoryStateStore, Rate, RateItem, StateBucket, TokenBucket
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.errors import WrongType
from pyrate_limiter.testing import ManualClock

NOW = 1_000_000
FOREVER = 1 << 40
RATES = [Rate(1, 100), Rate(10, 4000)]


class Plain(StateStore):
    """A user's store: it has what it needs to have."""

    is_async = False

    def __init__(self):
        self.state = None

    def check(self, algorithm, rates, now, weight):
        state = self.read(algorithm, rates)
        self.state, decision = algorithm.step(rates, state, now, weight)
        return decision

    def read(self, algorithm, rates):
        return algorithm.initial(rates) if self.state is None else self.state

    def reset(self):
        self.state = None


class NeverAgrees(GCRA):
    """A policy that refuses at the very moment that it has named."""

    asked = 0

    def step(self, rates, state, now, weight):
        self.asked += 1
        return state, Decision(rates[0], 7)


def item(weight=1):
    return RateItem("a", NOW, weight)


def test_what_is_no_store_is_refused_by_name():
    with pytest.raises(WrongType, match="store"):
        StateBucket(RATES, store=object())


def test_the_policy_in_use_can_be_read():
    policy = TokenBucket()
    assert StateBucket(RATES, policy).algorithm is policy


def test_the_pad_is_that_of_the_rate_whose_units_come_in_soonest():
    bucket = StateBucket(RATES, clock=ManualClock(NOW))
    assert bucket.put(item())
    assert bucket.reserve(item(), FOREVER).wait_ms == 100 + 5


def test_a_store_that_holds_nothing_ahead_is_tried_again():
    bucket = StateBucket(RATES, store=Plain(), clock=ManualClock(NOW))
    assert bucket.reserve(item(), FOREVER).allowed
    decision = bucket.reserve(item(), FOREVER)
    assert (decision.allowed, decision.retry_after_ms) == (False, 100)
    nothing = Reservation(item(), 100)
    assert bucket.confirm(nothing, NOW).wait_ms == 0
    assert bucket.cancel(nothing) is False
    assert [decision.allowed for decision in bucket.reserve_several([item(), item()])] == [False]


def test_a_bucket_at_which_somebody_waits_does_not_retire():
    bucket = StateBucket(RATES, clock=ManualClock(NOW))
    waited_for[id(bucket)] = object()
    try:
        assert bucket.retire(NOW) is False
    finally:
        del waited_for[id(bucket)]
    assert bucket.retire(NOW) is True
    assert bucket.retire(NOW) is True


def test_units_that_a_signal_handler_takes_in_the_middle_of_a_call_count_too():
    class Interrupted(GCRA):
        interruptions = 0

        def step(self, rates, state, now, weight):
            if not self.interruptions:
                self.interruptions += 1
                assert store.take_now(self, rates, clock, 1) is None
            return super().step(rates, state, now, weight)

    store, clock, policy = InMemoryStateStore(), ManualClock(NOW), Interrupted()
    rates = [Rate(2, 100)]
    assert store.take_now(policy, rates, clock, 1) is None
    assert store.take_now(policy, rates, clock, 1) == rates[0]


def test_a_policy_that_refuses_at_the_moments_that_it_names_is_not_asked_for_ever():
    policy = NeverAgrees()
    bucket = StateBucket(RATES, policy, clock=ManualClock(NOW))
    decision = bucket.reserve(item(), FOREVER)
    assert not decision.allowed
    assert decision.retry_after_ms > 0
    assert policy.asked < 200


def test_what_was_given_back_is_no_room_too_soon_behind_somebody_who_went_late():
    clock = ManualClock(NOW)
    bucket = StateBucket([Rate(1, 100)], clock=clock)
    made = bucket.reserve_several([item() for _ in range(4)], FOREVER, 0)
    assert [reservation.wait_ms for reservation in made] == [0, 100, 200, 300]
    assert bucket.cancel(made[2])
    clock.set(NOW + 150)
    assert bucket.confirm(made[1], clock.ms, FOREVER).wait_ms == 0
    newcomer = RateItem("a", clock.ms)
    assert 250 <= bucket.reserve(newcomer, FOREVER, 0).wait_ms <= 300  # behind the last of the line
