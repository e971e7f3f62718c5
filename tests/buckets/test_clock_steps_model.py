"""Clocks that step back and jump ahead, stamps that arrive in the wrong order.

The promise: a step may cost one interval of strictness. It neither refuses everybody until the
clock has caught up, nor lets more than one further limit through.
"""

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyrate_limiter import (
    FixedWindow,
    InMemoryBucket,
    MultiprocessBucket,
    MultiprocessStateStore,
    Rate,
    RateItem,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from pyrate_limiter.testing import ManualClock
from tests.support.kinds import KINDS, ends

YEAR = 365 * 24 * 3600 * 1000
STEPS = st.sampled_from([1, 3, 9, 10, 11, 30, 45, 1000, YEAR])
RATES = [[Rate(3, 10)], [Rate(2, 10), Rate(4, 40)]]


class SteppingClockMachine(RuleBasedStateMachine):
    @initialize(rates=st.sampled_from(RATES), start=st.sampled_from([10**12, 10**12 + 7]))
    def start(self, rates, start):
        self.clock = ManualClock(start)
        self.bucket = self.make(rates)
        self.bucket._clock = self.clock
        self.rates = rates
        self.true = 0  # time that nobody can step
        self.went = []  # (true time, steps so far)
        self.steps = 0
        self.back = 0

    def make(self, rates):
        return InMemoryBucket(rates)

    @property
    def longest_wait(self):
        """An interval, one more for each step back, and what may pass before it is seen as one."""
        return (1 + self.back) * (self.rates[-1].interval + 1) + self.rates[0].interval

    def pass_ms(self, ms):
        self.true += ms
        self.clock.advance(ms)

    @rule(ms=st.integers(1, 15))
    def advance(self, ms):
        self.pass_ms(ms)

    @rule(ms=STEPS)
    def step_back(self, ms):
        self.steps += 1
        self.back += 1
        self.clock.set(self.clock.ms - ms)
        self.put(1)  # a step that nobody sees before the clock has caught up never happened

    @rule(ms=STEPS)
    def jump_ahead(self, ms):
        self.steps += 1
        self.clock.set(self.clock.ms + ms)

    @rule(weight=st.integers(1, 2))
    def put(self, weight):
        item = RateItem("a", self.clock.ms, weight)
        if self.bucket.put(item):
            self.went += [(self.true, self.steps)] * weight
        else:
            assert 0 < self.bucket.waiting(item) <= self.longest_wait

    @rule(weight=st.integers(1, 2))
    def nobody_is_refused_until_the_clock_has_caught_up(self, weight):
        self.pass_ms(self.longest_wait)
        assert self.bucket.put(RateItem("a", self.clock.ms, weight))
        self.went += [(self.true, self.steps)] * weight

    @rule(weight=st.integers(1, 2))
    def reserve_and_leave_on_time(self, weight):
        item = RateItem("a", self.clock.ms, weight)
        decision = self.bucket.reserve(item, 1 << 50, 0)
        while decision.wait_ms:
            assert decision.wait_ms <= self.longest_wait
            self.pass_ms(decision.wait_ms)
            decision = self.bucket.confirm(decision, self.clock.ms, 1 << 50)
        self.went += [(self.true, self.steps)] * weight

    @rule(weight=st.integers(1, 2), ms=STEPS, ahead=st.booleans())
    def the_clock_steps_while_somebody_waits(self, weight, ms, ahead):
        item = RateItem("a", self.clock.ms, weight)
        decision = self.bucket.reserve(item, 1 << 50, 0)
        rounds = 0
        while decision.wait_ms:
            self.pass_ms(decision.wait_ms)
            if not rounds:
                self.steps += 1
                self.back += not ahead
                self.clock.set(self.clock.ms + (ms if ahead else -ms))
            decision = self.bucket.confirm(decision, self.clock.ms, 1 << 50)
            assert decision.wait_ms <= self.longest_wait
            rounds += 1
            assert rounds < 5
        self.went += [(self.true, self.steps)] * weight

    @rule(ms=STEPS, ahead=st.booleans())
    def the_clock_steps_while_a_line_waits(self, ms, ahead):
        held = [RateItem("a", self.clock.ms, 1) for _ in range(2)]
        decisions = self.bucket.reserve_several(held, 1 << 50, 0)
        held = held[: len(decisions)]
        self.went += [(self.true, self.steps) for decision in decisions if not decision.wait_ms]
        self.steps += 1
        self.back += not ahead
        self.clock.set(self.clock.ms + (ms if ahead else -ms))
        more = RateItem("a", self.clock.ms, 1)
        (decision,) = self.bucket.reserve_several([more], 1 << 50, 0, held[-1].timestamp)
        assert decision.wait_ms <= len([*held, more]) * self.longest_wait
        if not decision.wait_ms:
            self.went.append((self.true, self.steps))
        for reservation in (decision, *decisions[::-1]):
            if reservation.wait_ms:
                self.bucket.cancel(reservation)

    @invariant()
    def each_step_lets_one_further_limit_through_at_the_most(self):
        for rate in getattr(self, "went", ()) and self.rates:
            limit = self.allowance(rate)
            for last, (end, steps) in enumerate(self.went):
                for first, (begin, steps_before) in enumerate(self.went[: last + 1]):
                    if end - begin <= rate.interval:
                        assert last - first < limit * (1 + steps - steps_before)

    def allowance(self, rate):
        return rate.limit


class SteppingStateMachine(SteppingClockMachine):
    def make(self, rates):
        return StateBucket(rates, clock=self.clock)

    def allowance(self, rate):
        return 2 * rate.limit  # a burst, and what comes in again in an interval


class SteppingWindowMachine(SteppingClockMachine):
    def make(self, rates):
        return InMemoryBucket(rates, FixedWindow())

    def allowance(self, rate):
        return 2 * rate.limit  # at the end of a window, and at the beginning of the next


class SteppingTableMachine(SteppingClockMachine):
    def make(self, rates):
        return SQLiteBucket.init_from_file(rates)

    def teardown(self):
        if hasattr(self, "bucket"):
            self.bucket.close()


class SteppingTableStateMachine(SteppingStateMachine):
    def make(self, rates):
        self.folder = tempfile.TemporaryDirectory()
        store = SQLiteStateStore(Path(self.folder.name) / "states.db", "a")
        return StateBucket(rates, store=store, clock=self.clock)

    def teardown(self):
        if hasattr(self, "bucket"):
            self.bucket.close()
            self.folder.cleanup()


class SteppingSharedMachine(SteppingClockMachine):
    def make(self, rates):
        return MultiprocessBucket.init(rates)

    def teardown(self):
        if hasattr(self, "bucket"):
            self.bucket.close()


class SteppingSharedStateMachine(SteppingStateMachine):
    def make(self, rates):
        return StateBucket(rates, store=MultiprocessStateStore.init(), clock=self.clock)

    def teardown(self):
        if hasattr(self, "bucket"):
            self.bucket.close()


TestSlidingWindowLog = SteppingClockMachine.TestCase
TestSlidingWindowLog.settings = settings(stateful_step_count=30)
TestGCRA = SteppingStateMachine.TestCase
TestGCRA.settings = settings(stateful_step_count=30)
TestFixedWindow = SteppingWindowMachine.TestCase
TestFixedWindow.settings = settings(stateful_step_count=30)
SLOWER = settings(max_examples=settings.default.max_examples // 5, stateful_step_count=20)
TestSQLite = SteppingTableMachine.TestCase
TestSQLite.settings = SLOWER
TestSQLiteGCRA = SteppingTableStateMachine.TestCase
TestSQLiteGCRA.settings = SLOWER
TestShared = SteppingSharedMachine.TestCase
TestShared.settings = SLOWER
TestSharedGCRA = SteppingSharedStateMachine.TestCase
TestSharedGCRA.settings = SLOWER


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
@given(stamps=st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_stamps_in_any_order_within_an_interval_never_pass_the_limit(make, stamps):
    bucket = make([Rate(5, 100)])
    admitted = [stamp for stamp in stamps if bucket.put(RateItem("a", stamp))]
    assert len(admitted) == min(5, len(stamps))


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_an_older_stamp_that_arrives_second_is_not_refused_for_being_late(make):
    bucket = make([Rate(5, 100)])
    assert bucket.put(RateItem("a", 1000))
    assert bucket.put(RateItem("b", 990))
    assert bucket.put(RateItem("c", 901))


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_a_jump_of_a_year_and_back_refuses_nobody_for_longer_than_an_interval(make):
    bucket = make([Rate(2, 1000)])
    clock = bucket._clock = ManualClock(0)
    for now in (0, YEAR, 1, YEAR, 2):
        clock.set(now)
        item = RateItem("a", now)
        assert bucket.put(item) or bucket.waiting(item) <= 1000


@pytest.mark.parametrize("kind", ["memory", "sqlite", "shared"])
@pytest.mark.parametrize("step", [3, 3_600_000])
def test_what_was_admitted_under_another_stamp_can_be_given_back(kind, step):
    make = {
        "memory": InMemoryBucket,
        "sqlite": SQLiteBucket.init_from_file,
        "shared": MultiprocessBucket.init,
    }
    with make[kind]([Rate(2, 1000)]) as bucket:
        clock = bucket._clock = ManualClock(10**12)
        assert bucket.put(RateItem("a", clock.ms))
        if step > 1000:
            clock.set(clock.ms - step)
        item = RateItem("b", 10**12 - step)
        reservation = bucket.reserve(item)
        assert reservation
        assert bucket.cancel(reservation)
        assert bucket.count() == 1


def frees_at(kind, moment):
    """When the one unit of that moment counts no more: of 1 a second, or of 2 with a burst of 1."""
    if "gcra" in kind:
        return moment + 500
    return moment - moment % 1000 + 1000 if kind == "fixed window" else moment + 1001


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [10**12, None], ids=["a time of its own", "the servers' time"])
def test_all_kinds_take_a_clock_for_stepped_when_it_is_an_interval_behind(kind, start, tmp_path):
    rate = Rate(2, 1000, burst=1) if "gcra" in kind else Rate(1, 1000)
    first = (start or int(time.time() * 1000)) // 1000 * 1000
    with ends(tmp_path) as places:
        for behind in (1, 499, 501, 1000, 1001, 5000, 90_000):
            bucket = places.make(kind, [rate])
            clock = bucket._clock = ManualClock(first)
            assert bucket.put(RateItem("a", first))
            # Time stands still meanwhile, or goes on from where the clock is now.
            free = frees_at(kind, first if behind <= rate.interval else first - behind)
            admitted = []
            for moment in (first - behind, free - 1, free):
                clock.set(moment)
                admitted.append(bucket.put(RateItem("a", moment)))
            assert (behind, admitted) == (behind, [False, False, True])
