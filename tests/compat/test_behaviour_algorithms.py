"""The policies, asked by hand."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import (
    GCRA,
    Algorithm,
    Decision,
    FixedWindow,
    LogAlgorithm,
    Rate,
    SlidingWindowLog,
    StateAlgorithm,
    TokenBucket,
)
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.algorithms.sliding_window_log import frees_at

RATES = [Rate(2, 1000), Rate(3, 5000)]


def never(offset):
    raise AssertionError(offset)


@pytest.mark.parametrize("policy", [SlidingWindowLog(), FixedWindow()])
class TestEveryLogPolicy:
    def test_admits_where_every_rate_has_room(self, policy):
        assert policy.admit(RATES, [1, 2], 1) is ADMITTED

    def test_names_the_first_rate_that_is_short(self, policy):
        assert policy.admit(RATES, [2, 3], 1).failing_rate == RATES[0]
        assert policy.admit(RATES, [1, 3], 1).failing_rate == RATES[1]

    def test_looks_nothing_up_when_it_admits(self, policy):
        assert policy.decide(RATES, [1, 2], 1, 0, never).allowed

    def test_looks_nothing_up_when_the_weight_can_never_fit(self, policy):
        decision = policy.decide(RATES, [0, 0], 3, 0, never)
        assert decision == Decision(RATES[0], None)

    def test_max_weight_is_the_limit(self, policy):
        assert policy.max_weight(Rate(7, 1000, burst=2)) == 7

    def test_survives_pickle(self, policy):
        assert type(pickle.loads(pickle.dumps(policy))) is type(policy)


def test_sliding_window_has_an_inclusive_lower_edge():
    assert SlidingWindowLog().window_start(Rate(1, 1000), 5000) == 4000


def test_sliding_window_frees_a_unit_one_ms_after_its_interval():
    policy, rate = SlidingWindowLog(), Rate(1, 1000)
    assert frees_at(4000, 1000) == 5001
    assert policy.retry_after(rate, 4000, 4000) == 1001
    assert policy.retry_after(rate, 5000, 4000) == 1
    assert policy.retry_after(rate, 5001, 4000) == 0
    assert policy.retry_after(rate, 9000, 4000) == 0


def test_sliding_window_has_nothing_to_wait_for_where_nothing_is_stored():
    assert SlidingWindowLog().retry_after(Rate(1, 1000), 5000, None) == 0


@pytest.mark.parametrize(("weight", "place"), [(1, 9), (4, 6), (10, 0)])
def test_sliding_window_waits_for_the_unit_limit_minus_weight_from_the_newest(weight, place):
    assert SlidingWindowLog().blocking_offset(Rate(10, 1000), weight) == place


def test_sliding_window_decides_with_one_look():
    asked = []

    def peek(offset):
        asked.append(offset)
        return 4500

    decision = SlidingWindowLog().decide([Rate(2, 1000)], [2], 1, 5000, peek)
    assert (decision.retry_after_ms, asked) == (501, [1])


def test_sliding_window_leaks_what_the_longest_window_does_not_see():
    assert SlidingWindowLog().leak_bound(RATES, 10_000) == 5_000


@pytest.mark.parametrize("now", [5000, 5001, 5999])
def test_fixed_window_starts_at_a_multiple_of_the_interval(now):
    assert FixedWindow().window_start(Rate(1, 1000), now) == 5000


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**9))
def test_fixed_window_retries_at_the_next_boundary_and_never_at_once(now, interval):
    wait = FixedWindow().retry_after(Rate(1, interval), now, None)
    assert 0 < wait <= interval
    assert (now + wait) % interval == 0


def test_fixed_window_has_no_unit_that_decides():
    policy = FixedWindow()
    assert policy.blocking_offset(Rate(5, 1000), 1) is None
    assert policy.decide([Rate(1, 1000)], [1], 1, 5300, never) == Decision(Rate(1, 1000), 700)


def test_fixed_window_leaks_what_is_before_every_window():
    assert FixedWindow().leak_bound(RATES, 12_345) == 10_000


@pytest.mark.parametrize("policy", [GCRA(), TokenBucket()])
class TestEveryStatePolicy:
    def test_a_fresh_key_owes_nothing(self, policy):
        assert policy.initial(RATES) == (0, 0)
        assert policy.consumed(RATES, policy.initial(RATES), 10**12) == 0

    def test_a_plain_admit_is_the_shared_decision(self, policy):
        _, decision = policy.step(RATES, (0, 0), 10**9, 1)
        assert decision is ADMITTED

    def test_state_is_the_arrival_time_in_microseconds(self, policy):
        state, _ = policy.step([Rate(4, 1000)], (0,), 5_000, 1)
        assert state == (5_000_000 + 250_000,)
        assert type(state[0]) is int

    def test_emission_is_rounded_up_and_at_least_one_microsecond(self, policy):
        assert policy.step([Rate(3, 1000)], (0,), 0, 1)[0] == (333_334,)
        assert policy.step([Rate(10**9, 1000)], (0,), 0, 1)[0] == (1,)

    def test_a_burst_passes_at_once_and_then_one_per_emission(self, policy):
        rates, state = [Rate(10, 1000, burst=3)], (0,)
        for _ in range(3):
            state, decision = policy.step(rates, state, 0, 1)
            assert decision.allowed
        refused, decision = policy.step(rates, state, 0, 1)
        assert (refused, decision.retry_after_ms) == (state, 100)
        assert policy.step(rates, state, 100, 1)[1].allowed

    def test_a_denial_returns_the_state_as_it_was(self, policy):
        state = (9_000_000, 9_000_000)
        after, decision = policy.step(RATES, state, 0, 1)
        assert after == state
        assert decision.failing_rate == RATES[0]

    def test_all_rates_are_judged_before_any_is_charged(self, policy):
        state = (0, 10_000_000)
        after, decision = policy.step(RATES, state, 0, 1)
        assert (after, decision.failing_rate) == (state, RATES[1])

    def test_heavier_than_the_burst_never_fits(self, policy):
        rate = Rate(10, 1000, burst=3)
        assert policy.max_weight(rate) == 3
        assert policy.step([rate], (0,), 0, 4) == ((0,), Decision(rate, None))

    def test_retry_is_rounded_up_to_whole_milliseconds(self, policy):
        rates = [Rate(3, 10)]  # 3333.3 us each
        state, _ = policy.step(rates, (0,), 0, 3)
        assert policy.step(rates, state, 0, 1)[1].retry_after_ms == 4

    def test_retry_is_exactly_when_it_fits(self, policy):
        rates = [Rate(7, 1000, burst=2), Rate(30, 60_000, burst=4)]
        state = policy.initial(rates)
        for _ in range(4):
            state, decision = policy.step(rates, state, 1000, 1)
        wait = decision.retry_after_ms
        assert not policy.step(rates, state, 1000 + wait - 1, 1)[1].allowed
        assert policy.step(rates, state, 1000 + wait, 1)[1].allowed

    def test_consumed_is_the_most_units_owed_rounded_up(self, policy):
        rates = [Rate(10, 1000), Rate(20, 10_000)]
        state, _ = policy.step(rates, (0, 0), 0, 3)
        assert policy.consumed(rates, state, 0) == 3
        assert policy.consumed(rates, state, 1) == 3
        assert policy.consumed(rates, state, 501) == 2
        assert policy.consumed(rates, state, 10_000) == 0

    def test_redis_arguments_are_emission_and_burst_per_rate(self, policy):
        assert policy.redis_args([Rate(3, 1000, burst=2), Rate(4, 8000)]) == [
            333_334,
            2,
            2_000_000,
            4,
        ]

    def test_decode_reads_whole_numbers_back(self, policy):
        assert policy.decode([b"12", "34", 56]) == (12, 34, 56)

    def test_it_says_what_is_free_and_until_when_something_is_owed(self, policy):
        rates = [Rate(10, 1000)]
        state, _ = policy.step(rates, (0,), 0, 4)
        assert policy.remaining_and_reset(rates, state, 0) == (6, 400)
        assert policy.remaining_and_reset(rates, state, 400) == (10, 0)

    @given(
        weights=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 400)), max_size=30),
        limit=st.integers(1, 20),
        burst=st.integers(1, 20),
    )
    def test_what_is_admitted_conforms_to_a_bucket_of_tokens(self, policy, weights, limit, burst):
        rate, emission = Rate(limit, 1000, burst), -(-1_000_000 // limit)
        state, now, owed = policy.initial([rate]), 10_000, 0
        for weight, pause in weights:
            now += pause
            owed = max(0, owed - pause * 1000)
            fits = owed + weight * emission <= burst * emission
            state, decision = policy.step([rate], state, now, weight)
            assert decision.allowed == fits
            if fits:
                owed += weight * emission


class Bare(StateAlgorithm):
    def initial(self, rates):
        return (0,)

    def step(self, rates, state, now, weight):
        return state, ADMITTED


def test_a_state_policy_of_ones_own_has_defaults():
    policy = Bare()
    assert policy.consumed(RATES, (5,), 0) == 0
    assert policy.decode([b"1.5", "2", 3]) == (1.5, 2.0, 3.0)
    assert policy.redis_script() is None
    assert policy.redis_args(RATES) == []
    assert policy.max_weight(Rate(4, 1000, burst=9)) == 4
    assert policy.remaining_and_reset(RATES, (5,), 0) == (None, None)


@pytest.mark.parametrize("kind", [Algorithm, LogAlgorithm, StateAlgorithm])
def test_family_of_the_policies(kind):
    stock = (SlidingWindowLog, FixedWindow) if kind is LogAlgorithm else (GCRA, TokenBucket)
    assert all(issubclass(policy, kind) for policy in stock)


def test_token_bucket_is_gcra_by_another_name():
    assert issubclass(TokenBucket, GCRA)


@pytest.mark.parametrize("policy", [GCRA(), TokenBucket(), FixedWindow()])
def test_enormous_limits_are_no_special_case(policy):
    rates = [Rate(10**15, 1000)]
    if isinstance(policy, GCRA):
        state, decision = policy.step(rates, (0,), 0, 10**15)
        assert decision.allowed
        assert not policy.step(rates, state, 0, 1)[1].allowed
    else:
        assert policy.admit(rates, [0], 10**15).allowed
        assert not policy.admit(rates, [1], 10**15).allowed
