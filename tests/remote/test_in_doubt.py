"""Writes in doubt, and what is remembered of denials."""

import pytest

from pyrate_limiter import Rate, RateItem
from pyrate_limiter.buckets.remote.denials import Denial, LastDenial
from pyrate_limiter.buckets.remote.in_doubt import AT_ONCE, MOST_IN_DOUBT, InDoubt


def test_they_are_taken_from_the_oldest_on_so_many_at_once():
    writes = InDoubt()
    assert not writes
    writes.extend(range(AT_ONCE + 2))
    assert len(writes) == AT_ONCE + 2
    assert writes.take() == [*range(AT_ONCE)]
    assert writes.take(most=1) == [AT_ONCE]
    assert writes
    assert writes.take() == [AT_ONCE + 1]
    assert not writes
    assert writes.take() == []


def test_what_does_not_fit_stays_with_all_behind_it():
    writes = InDoubt()
    writes.extend([3, 4, 9, 1])
    assert writes.take(lambda taken, write: sum(taken) + write <= 8) == [3, 4]
    assert writes.take() == [9, 1]


def test_where_there_are_too_many_the_oldest_are_forgotten():
    writes = InDoubt()
    writes.extend(range(MOST_IN_DOUBT + 5))
    assert len(writes) == MOST_IN_DOUBT
    assert writes.take(most=1) == [5]


def test_a_denial_is_repeated_with_what_is_left_of_its_wait():
    rate = Rate(5, 1000)
    denial = Denial(101.0, 102.0, 3, [rate], rate, 2, 700)
    decision = denial.again(100.5)
    assert (decision.failing_rate, decision.retry_after_ms) == (rate, 1501)
    assert (decision.remaining, decision.reset_after_ms) == (2, 700)


@pytest.mark.parametrize(("moment", "wait"), [(None, -1), (1500, 500), (900, 0)])
def test_a_last_denial_says_how_long_an_item_has_to_wait(moment, wait):
    assert LastDenial(1, moment).waiting(RateItem("a", 1000)) == wait
