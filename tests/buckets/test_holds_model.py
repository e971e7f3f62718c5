"""Holds on every kind of bucket: what leaves is what an obvious model lets leave, and when."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from pyrate_limiter import Rate, RateItem
from pyrate_limiter.testing import ManualClock
from tests.state.test_gcra_model import Model as States
from tests.support.kinds import KINDS, Ends

START = 1_000_000_000
RATES = [[Rate(1, 7)], [Rate(3, 10)], [Rate(2, 5), Rate(3, 20)]]
FOR_EVER = 1 << 40
SERVERS = ["redis", "redis gcra", "postgres", "postgres gcra"]


class Windows:
    """The textbook: the times of all that left, and what a window of each rate may have."""

    def __init__(self, rates, fixed):
        self.rates, self.fixed, self.times = rates, fixed, []

    def short(self, now, weight):
        starts = [
            now - now % rate.interval if self.fixed else now - rate.interval for rate in self.rates
        ]
        return [
            rate
            for rate, start in zip(self.rates, starts, strict=True)
            if sum(start <= time <= now for time in self.times) + weight > rate.limit
        ]

    def earliest(self, now, weight):
        if any(weight > rate.limit for rate in self.rates):
            return None
        while self.short(now, weight):
            now += 1
        return now

    def go(self, now, weight):
        assert not self.short(now, weight), "this departure is over the limit"
        self.times += [now] * weight


class HoldMachine(RuleBasedStateMachine):
    kind = "memory"
    ends = None
    reserved = Bundle("reserved")

    @initialize(rates=st.sampled_from(RATES))
    def start(self, rates):
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.bucket = Ends(folder, self.stack).make(self.kind, rates)
        if self.kind == "redis gcra":
            self.bucket.store.ttl_ms = 3_600_000  # the server's own clock goes on
        self.clock = self.bucket._clock = ManualClock(START)
        self.rates, self.held, self.waiting = rates, START, 0
        self.model = self.empty()

    def teardown(self):
        if hasattr(self, "stack"):
            self.stack.close()

    def empty(self):
        if "gcra" in self.kind:
            return States(self.rates)
        return Windows(self.rates, self.kind == "fixed window")

    @property
    def now(self):
        return self.clock.now()

    def fits(self, weight):
        return self.model.earliest(max(self.now, self.held), weight)

    @rule(ms=st.integers(0, 12))
    def advance(self, ms):
        self.clock.advance(ms)

    @rule(ms=st.integers(0, 40))
    def hold(self, ms):
        left = self.bucket.hold(RateItem("a", self.now, 0), ms)
        self.held = max(self.held, self.now + ms)
        assert left == max(0, self.held - self.now)

    @rule()
    def release(self):
        stood = self.bucket.release_hold(RateItem("a", self.now, 0))
        assert stood is (self.held > self.now)
        self.held = START

    @rule()
    def flush(self):
        self.bucket.flush()
        self.held, self.model = START, self.empty()

    @rule()
    def leak(self):
        self.bucket.leak(self.now)

    @rule(weight=st.integers(1, 4))
    def put(self, weight):
        item = RateItem("a", self.now, weight)
        if self.bucket.put(item):
            assert self.now >= self.held
            self.model.go(self.now, weight)
        elif (fits := self.fits(weight)) is None:
            assert self.bucket.waiting(item) == -1
        elif not self.waiting:
            assert self.bucket.waiting(item) == fits - self.now > 0

    @rule(weight=st.integers(1, 4))
    def check(self, weight):
        decision = self.bucket.check(RateItem("a", self.now, weight))
        fits = self.fits(weight)
        if fits is None:
            assert decision.retry_after_ms is None
        elif not self.waiting:
            assert decision.allowed is (fits == self.now)
            assert (decision.retry_after_ms or 0) == fits - self.now
        if fits is not None and self.held > self.now:
            assert decision.remaining == 0
            assert decision.reset_after_ms >= self.held - self.now

    @rule(target=reserved, weight=st.integers(1, 3))
    def reserve(self, weight):
        item = RateItem("a", self.now, weight)
        decision = self.bucket.reserve(item, FOR_EVER, 0)
        if not decision.allowed:
            assert self.fits(weight) is None
            return multiple()
        if decision.wait_ms:
            assert self.now + decision.wait_ms >= self.held
            self.waiting += 1
            return (decision, self.now + decision.wait_ms)
        assert self.now >= self.held
        self.model.go(self.now, weight)
        return multiple()

    @rule(target=reserved, reserved=consumes(reserved))
    def confirm(self, reserved):
        reservation, due = reserved
        self.clock.set(max(self.now, due))
        decision = self.bucket.confirm(reservation, self.now, FOR_EVER)
        if decision.wait_ms:
            return (decision, self.now + decision.wait_ms)
        assert decision.allowed
        assert self.now >= self.held
        self.model.go(self.now, reservation.item.weight)
        self.waiting -= 1
        return multiple()

    @rule(reserved=consumes(reserved))
    def give_back(self, reserved):
        self.bucket.cancel(reserved[0])
        self.waiting -= 1


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaves_during_a_hold_and_all_else_is_as_without(kind):
    machine = type("Machine", (HoldMachine,), {"kind": kind})
    few = {"max_examples": 10, "stateful_step_count": 20} if kind in SERVERS else {}
    run_state_machine_as_test(machine, settings=settings(deadline=None, **few))
