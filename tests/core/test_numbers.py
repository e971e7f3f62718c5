"""Numbers of all types, and of all sizes, at every place that takes one."""

import math
from datetime import timedelta
from decimal import Decimal

import pytest

from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate, RateItem
from pyrate_limiter.errors import (
    InvalidRate,
    InvalidTimeout,
    InvalidTimestamp,
    InvalidWeight,
    OutOfRange,
    WrongType,
)
from pyrate_limiter.testing import ManualClock
from tests.support.kinds import KINDS


class Whole:
    """A number as numpy has them: no int, but it can be an index."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Flag:
    """numpy's bool: neither an int nor an index, but a whole number by its value."""

    def __int__(self):
        return 1

    def __eq__(self, other):
        return other == 1

    __hash__ = None


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_takes_items_of_any_whole_numbers(make, kind):
    bucket = make(kind, [Rate(Whole(4), Whole(10_000), Whole(4))])
    bucket._clock = ManualClock(now := 1_000_000_000)
    assert bucket.put(RateItem("a", Whole(now), Whole(2)))
    assert bucket.put(RateItem("a", now, Flag()))
    assert not bucket.put(RateItem("a", Whole(now), Whole(2)))
    assert bucket.waiting(RateItem("a", now, 2)) > 0
    assert not bucket.check(RateItem("a", Whole(now), Whole(2)))
    assert bucket.reserve(RateItem("a", Whole(now), Whole(1))).allowed


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_takes_timestamps_with_fractions(make, kind):
    bucket = make(kind, [Rate(2, 10_000)])
    bucket._clock = ManualClock(now := 1_000_000_000)
    item = RateItem("a", now + 0.75, 2)
    assert bucket.put(item)
    refused = RateItem("a", now + 1.5)
    assert not bucket.put(refused)
    assert bucket.waiting(refused) > 0
    bucket.leak(now + 0.5)
    assert bucket.count() == 2


class FloatClock(ManualClock):
    def now(self):
        return super().now() + 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_may_read_fractions(make, kind):
    bucket = make(kind, [Rate(1, 10_000)])
    bucket._clock = clock = FloatClock(1_000_000_000)
    limiter = Limiter(bucket)
    assert limiter.try_acquire(blocking=False)
    assert not limiter.try_acquire(blocking=False)
    clock.advance(10_001)
    assert limiter.try_acquire(blocking=False)
    assert bucket.leak(clock.now()) in {0, 1}


@pytest.mark.parametrize(
    "stamp", [math.nan, math.inf, -math.inf, 1e30, 10**400, "1", None, 1 << 62]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_timestamp_that_is_no_moment_is_refused(make, kind, stamp):
    with pytest.raises(InvalidTimestamp):
        make(kind, [Rate(1, 1000)]).put(RateItem("a", stamp))


@pytest.mark.parametrize("weight", ["1", None, 1.5, math.nan, math.inf, Decimal("0.5"), [1]])
def test_a_weight_that_is_no_whole_number_is_refused(weight):
    with pytest.raises(WrongType, match="item's weight"):
        Limiter(Rate(1, 1000)).try_acquire(weight=weight)
    with pytest.raises(WrongType, match="item's weight"):
        InMemoryBucket([Rate(1, 1000)]).put(RateItem("a", 1, weight))


def test_a_negative_weight_of_another_type_is_refused():
    with pytest.raises(InvalidWeight):
        Limiter(Rate(1, 1000)).try_acquire(weight=Whole(-1))


@pytest.mark.parametrize("weight", [Whole(2), Flag(), 2.0, Decimal(2), True])
@pytest.mark.parametrize("method", ["try_acquire", "acquire", "check"])
def test_a_limiter_takes_any_whole_weight(method, weight):
    assert getattr(Limiter(Rate(5, 1000)), method)("a", weight)


@pytest.mark.parametrize("timeout", [Whole(0), 0.0, Decimal(0), False, Decimal("0.001")])
def test_a_timeout_may_be_any_number(timeout):
    limiter = Limiter(Rate(1, 60_000))
    assert limiter.try_acquire(timeout=timeout)
    assert not limiter.try_acquire(timeout=timeout)
    assert not limiter.acquire(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, -1, -1.0, Whole(-1), math.inf])
def test_no_timeout_waits_for_ever(timeout, monkeypatch):
    naps = []
    bucket = InMemoryBucket([Rate(1, 86_400_000)])
    bucket._clock = clock = ManualClock()
    monkeypatch.setattr(
        "pyrate_limiter.limiter.sleep", lambda s: (naps.append(s), clock.advance(int(s * 1000)))
    )
    limiter = Limiter(bucket)
    assert limiter.try_acquire()
    assert limiter.try_acquire(timeout=timeout)
    assert sum(naps) >= 86_400


def test_no_timeout_is_no_timeout_of_a_call_that_does_not_wait():
    assert Limiter(Rate(1, 1000)).try_acquire(blocking=False, timeout=None)


@pytest.mark.parametrize(
    "timeout", [-2, -0.5, math.nan, "1", "-1", 10**400, Decimal("NaN"), [1], timedelta(seconds=1)]
)
def test_a_timeout_that_is_none_is_refused(timeout):
    limiter = Limiter(Rate(1, 1000))
    for use in (limiter.try_acquire, limiter.acquire, limiter.limit):
        with pytest.raises(InvalidTimeout, match="timeout must be -1 or >= 0"):
            use(timeout=timeout)


@pytest.mark.parametrize(
    "interval", [timedelta(seconds=2), timedelta(milliseconds=2000), 2000.0, Decimal(2000)]
)
def test_an_interval_may_be_any_number_of_ms_and_a_timedelta(interval):
    assert Rate(1, interval) == Rate(1, Duration.SECOND * Whole(2))


def test_a_timedelta_is_exact_to_the_ms():
    assert Rate(1, timedelta(milliseconds=1001)).interval == 1001


@pytest.mark.parametrize("interval", ["x", None, math.nan, math.inf, [1], object()])
def test_an_interval_that_is_no_number_is_refused(interval):
    with pytest.raises(WrongType, match="Rate's interval"):
        Rate(1, interval)


@pytest.mark.parametrize("limit", [0, -1, Whole(0), timedelta(0)])
def test_a_limit_below_1_is_refused(limit):
    with pytest.raises((InvalidRate, WrongType)):
        Rate(limit, 1000)


def test_a_number_out_of_range_is_a_value_error_that_names_it():
    limiter = Limiter(Rate(1, 1000))
    with pytest.raises(OutOfRange, match=r"buffer_ms .* 0 or more, got -1"):
        Limiter(Rate(1, 1000), buffer_ms=-1)
    with pytest.raises(OutOfRange, match=r"max_keys .* 1 or more, got 0"):
        Limiter.per_key(Rate(1, 1000), max_keys=0)
    with pytest.raises(OutOfRange, match=r"leak_interval .* got -5"):
        limiter.bucket_factory.leak_interval = -5
    assert issubclass(OutOfRange, ValueError)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Limiter(Rate(1, 1000), buffer_ms="5"),
        lambda: Limiter.per_key(Rate(1, 1000), max_keys=1.5),
    ],
)
def test_an_argument_that_is_no_number_is_a_type_error(wrong):
    with pytest.raises(WrongType):
        wrong()


def test_options_may_be_any_whole_numbers():
    limiter = Limiter.per_key(Rate(1, 1000), max_keys=Whole(3), buffer_ms=Whole(7))
    assert limiter.buffer_ms == 7
    assert limiter.bucket_factory.max_keys == 3


def test_a_huge_value_does_not_flood_the_message():
    with pytest.raises(InvalidTimeout) as raised:
        Limiter(Rate(1, 1000)).try_acquire(timeout=10**4000)
    assert len(str(raised.value)) < 400
    with pytest.raises(InvalidTimeout):  # Python refuses to write it out
        Limiter(Rate(1, 1000)).try_acquire(timeout=10**9000)
