"""What programs' own test suites rely on: the patched sleep, and frozen time."""

import asyncio
import datetime as dt

import pytest
import time_machine
from freezegun import freeze_time

import pyrate_limiter.limiter
from pyrate_limiter import (
    BucketAsyncWrapper,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    StateBucket,
    WallClock,
)
from tests.support.doubles import ListBucket, one

MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
KINDS = [InMemoryBucket, StateBucket, ListBucket]


@pytest.fixture
def sleeps(monkeypatch):
    """The way that programs do it: a no-op in the place of the module's ``sleep``."""
    calls = []
    monkeypatch.setattr("pyrate_limiter.limiter.sleep", calls.append)
    return calls


def test_sleep_is_an_attribute_of_the_module():
    assert callable(pyrate_limiter.limiter.sleep)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", [None, WallClock()])
def test_patched_sleep_is_called_once_per_wait_with_seconds(sleeps, kind, clock):
    bucket = kind(one(2, 1000))
    if clock is not None:
        bucket._clock = clock
    limiter = Limiter(bucket, buffer_ms=0)
    assert [limiter.try_acquire() for _ in range(3)] == [True] * 3
    assert len(sleeps) == 1
    assert 0.4 <= sleeps[0] <= 1.1
    limiter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_patched_sleep_is_looked_up_at_each_wait(monkeypatch, kind):
    limiter = Limiter(kind(one()))
    limiter.try_acquire()
    for _ in range(3):
        calls = []
        monkeypatch.setattr("pyrate_limiter.limiter.sleep", calls.append)
        assert limiter.try_acquire() is True
        assert len(calls) == 1
    limiter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wake_up_earlier_than_planned_is_not_waited_for_again(sleeps, kind):
    limiter = Limiter(kind(one(1, 60_000)))
    assert all(limiter.try_acquire() for _ in range(5))
    assert len(sleeps) == 4
    limiter.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", [None, WallClock()])
def test_waits_under_freezegun_do_not_hang(sleeps, kind, clock):
    with freeze_time(MOMENT):
        bucket = kind(one(2, 60_000))
        if clock is not None:
            bucket._clock = clock
        limiter = Limiter(bucket)
        assert all(limiter.try_acquire() for _ in range(5))
        assert 1 <= len(sleeps) <= 3
        limiter.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", [None, WallClock()])
def test_waits_under_time_machine_do_not_hang(sleeps, kind, clock):
    with time_machine.travel(MOMENT, tick=False):
        bucket = kind(one(2, 60_000))
        if clock is not None:
            bucket._clock = clock
        limiter = Limiter(bucket)
        assert all(limiter.try_acquire() for _ in range(5))
        assert 1 <= len(sleeps) <= 3
        limiter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_window_wait_under_frozen_time_does_not_hang(sleeps, kind):
    with freeze_time(MOMENT):
        limiter = Limiter(InMemoryBucket(one(1, 60_000), FixedWindow()))
        assert all(limiter.try_acquire() for _ in range(3))
        limiter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout_under_frozen_time_is_over_after_one_sleep(sleeps, kind):
    with freeze_time(MOMENT):
        limiter = Limiter(kind(one(1, 60_000)))
        assert limiter.try_acquire(timeout=5) is True
        assert limiter.try_acquire(timeout=5) is False
        assert sleeps == [pytest.approx(5, abs=0.01)]
        limiter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_moving_frozen_time_on_frees_the_bucket(kind):
    with freeze_time(MOMENT) as frozen:
        limiter = Limiter(kind(one(1, 60_000)))
        assert limiter.try_acquire(blocking=False) is True
        assert limiter.try_acquire(blocking=False) is False
        frozen.tick(60.001)
        assert limiter.try_acquire(blocking=False) is True
        limiter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sleep_that_moves_frozen_time_is_a_wait_like_any_other(monkeypatch, kind):
    with freeze_time(MOMENT) as frozen:
        monkeypatch.setattr("pyrate_limiter.limiter.sleep", frozen.tick)
        limiter = Limiter(kind(one(1, 1000)))
        start = dt.datetime.now(tz=dt.timezone.utc)
        assert all(limiter.try_acquire() for _ in range(4))
        passed = dt.datetime.now(tz=dt.timezone.utc) - start
        assert 3 <= passed.total_seconds() <= 3.3
        limiter.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", [False, True])
def test_async_waits_under_frozen_time_do_not_hang(kind, wrap):
    async def scenario():
        bucket = kind(one(1, 30))
        limiter = Limiter(BucketAsyncWrapper(bucket) if wrap else bucket)
        got = [await limiter.try_acquire_async() for _ in range(3)]
        limiter.close()
        return got

    with freeze_time(MOMENT, real_asyncio=True):
        assert asyncio.run(scenario()) == [True] * 3


def test_a_sleep_that_raises_ends_the_call_and_leaves_nothing_behind(world, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    bucket = world.on(InMemoryBucket([Rate(1, 1000)]))
    limiter = Limiter(bucket)
    limiter.try_acquire()
    monkeypatch.setattr("pyrate_limiter.limiter.sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        limiter.try_acquire()
    assert bucket.count() == 1
