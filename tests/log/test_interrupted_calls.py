"""A signal handler may run when any call returns, and use the very log that it interrupts."""

import sys
from itertools import chain, cycle

import pytest

from pyrate_limiter import FixedWindow, InMemoryBucket, Rate, RateItem
from pyrate_limiter.buckets.log import array_log, run_length
from pyrate_limiter.errors import ReentrantCall
from pyrate_limiter.testing import ManualClock

DAY = 24 * 3_600_000
RATES = [[Rate(10**5, DAY)], [Rate(10**5, DAY), Rate(2 * 10**5, 7 * DAY)]]
AT = {"call", "return", "c_return"}


def interrupted(call, step, visitor):
    """Make a call, and another one where a handler may run in it: as functions begin and return."""
    seen, before = 0, sys.getprofile()

    def profile(frame, event, _):
        nonlocal seen
        if event in AT and "/buckets/log/" in frame.f_code.co_filename.replace("\\", "/"):
            seen += 1
            if seen == step:
                sys.setprofile(None)
                visitor()

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return seen >= step


class Log:
    """A bucket, and how many units it was given."""

    def __init__(self, rates, algorithm=None):
        self.bucket = InMemoryBucket(rates, algorithm)
        self.bucket._clock = self.clock = ManualClock(10**12)
        self.names, self.given, self.gone, self.refused = cycle("aab"), 0, 0, 0

    def put(self, ms=1):
        self.clock.advance(ms)
        assert self.bucket.put(RateItem(next(self.names), self.clock.ms))
        self.given += 1

    def put_unless_refused(self, ms):
        """In the middle of what takes several steps, which only some do, a call is an error."""
        try:
            self.put(ms)
        except ReentrantCall:
            self.refused += 1

    def leak(self):
        self.gone += self.bucket.leak(self.clock.ms)

    def check(self):
        units = list(self.bucket.items)
        stamps = [unit.timestamp for unit in units]
        assert stamps == sorted(stamps)
        assert self.bucket.count() == len(units) == self.given - self.gone
        for place in range(min(9, len(units))):
            assert self.bucket.peek(place).timestamp == stamps[-1 - place]


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("algorithm", [None, FixedWindow()], ids=["sliding", "fixed"])
@pytest.mark.parametrize("ms", [0, 1])
def test_a_unit_that_is_stored_while_another_one_is(rates, algorithm, ms):
    log, interruptions = Log(rates, algorithm), 0
    for step in chain(*[range(1, 25)] * 8):
        interruptions += interrupted(log.put, step, lambda: log.put_unless_refused(ms))
        log.check()
    assert interruptions > 40
    assert log.refused == 0 or algorithm is not None


@pytest.mark.parametrize("rates", RATES)
def test_a_unit_that_is_stored_while_expired_ones_are_dropped(rates):
    log, interruptions = Log(rates), 0
    for step in chain(*[range(1, 17)] * 5):
        for _ in range(5):
            log.put()
        log.clock.advance(8 * DAY - 3)
        interruptions += interrupted(log.leak, step, log.put)
        log.check()
    assert interruptions > 10
    assert log.gone


@pytest.mark.parametrize("rates", RATES)
def test_expired_units_that_are_dropped_while_one_is_stored(rates):
    log, interruptions = Log(rates), 0
    for step in chain(*[range(1, 17)] * 5):
        log.put()
        log.clock.advance(8 * DAY)
        interruptions += interrupted(log.put, step, log.leak)
        log.check()
    assert interruptions > 10
    assert log.gone


@pytest.mark.parametrize("rates", RATES)
def test_a_unit_that_is_stored_while_all_are_flushed(rates):
    interruptions = 0
    for step in range(1, 25):
        log = Log(rates)
        for _ in range(4):
            log.put()
        if interrupted(log.put, step, log.bucket.flush):
            interruptions += 1
            units = list(log.bucket.items)
            assert log.bucket.count() == len(units) <= 1
            log.put()
            assert log.bucket.count() == len(units) + 1
    assert interruptions > 3


@pytest.mark.parametrize("rates", RATES)
def test_a_unit_that_is_stored_while_they_are_numbered_anew(rates, monkeypatch):
    for module in (array_log, run_length):
        monkeypatch.setattr(module, "MANY", 3)
    log, interruptions = Log(rates), 0
    for step in chain(*[range(1, 25)] * 4):
        interruptions += interrupted(lambda: log.put(DAY), step, log.put)
        live = [unit.timestamp for unit in log.bucket.items]
        assert live == sorted(live)
        assert live[-1] == log.clock.ms
    assert interruptions > 20


def test_the_last_unit_is_given_once():
    for algorithm in (None, FixedWindow()):
        for step in range(1, 25):
            log, answers = Log([Rate(5, DAY), Rate(9, 7 * DAY)], algorithm), []
            for _ in range(4):
                log.put(0)

            def put(bucket=log.bucket, answers=answers, ms=log.clock.ms):
                answers.append(bucket.put(RateItem("a", ms)))

            interrupted(put, step, put)
            assert sum(answers) == 1
            assert log.bucket.count() == 5
