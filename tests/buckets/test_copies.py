"""Copies of what is in memory: they have what was used, and nobody waits at them."""

import copy
import multiprocessing
import os
import pickle

import pytest

from pyrate_limiter import InMemoryBucket, Rate, RateItem, StateBucket

INTERVAL = 600_000  # ms, in which nothing is given back however busy the machine is
KINDS = pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
COPIES = {
    "pickle": lambda bucket: pickle.loads(pickle.dumps(bucket)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


def with_waiters(make):
    """Two units used, and two units reserved twice behind them."""
    bucket = make([Rate(2, INTERVAL)])
    now = bucket.now()
    assert bucket.put(RateItem("used", now, 2))
    made = [bucket.reserve(RateItem(name, now, 2), 1 << 40, 0) for name in ("one", "two")]
    assert all(reservation.wait_ms for reservation in made)
    return bucket, now, made


def has_what_was_used_alone(bucket, since):
    assert bucket.count() == 2
    assert not bucket.put(RateItem("a", since + 1, 2))
    assert bucket.put(RateItem("a", since + INTERVAL + 1, 2))
    assert not bucket.put(RateItem("a", since + INTERVAL + 2, 1))


@KINDS
@pytest.mark.parametrize("way", [name for name in COPIES if name != "copy"])
def test_a_copy_has_what_was_used_and_no_reservation_of_others(make, way):
    bucket, now, made = with_waiters(make)
    has_what_was_used_alone(COPIES[way](bucket), now)
    for reservation in made:  # the original has not changed
        assert bucket.confirm(reservation, reservation.item.timestamp).wait_ms == 0


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_a_log_shares_nothing_with_the_original(way):
    bucket, now, made = with_waiters(InMemoryBucket)
    other = COPIES[way](bucket)
    has_what_was_used_alone(other, now)
    assert [unit.name for unit in other.items] == ["used"] * 2 + ["a"] * 2
    assert [unit.name for unit in bucket.items] == ["used"] * 2 + ["one"] * 2 + ["two"] * 2
    for reservation in made:
        assert bucket.cancel(reservation)


def test_a_copy_keeps_who_has_gone_at_a_moment_that_others_reserve():
    bucket = InMemoryBucket([Rate(4, INTERVAL)])
    now = bucket.now()
    assert bucket.put(RateItem("used", now, 4))
    items = RateItem("gone", now, 2), RateItem("waits", now, 2)
    gone, waits = [bucket.reserve(item, 1 << 40, 0) for item in items]
    assert gone.wait_ms == waits.wait_ms > 0
    assert bucket.confirm(gone, gone.item.timestamp).wait_ms == 0
    assert copy.deepcopy(bucket).count() == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@KINDS
def test_a_forked_child_does_not_stand_behind_the_reservations_of_its_parent(make):
    bucket, now, made = with_waiters(make)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=has_what_was_used_alone, args=(bucket, now))
    child.start()
    child.join()
    assert child.exitcode == 0
    for reservation in made:
        assert bucket.confirm(reservation, reservation.item.timestamp).wait_ms == 0
