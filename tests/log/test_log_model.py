"""`InMemoryBucket` against an obvious model, one step at a time, on a manual clock."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from pyrate_limiter import FixedWindow, InMemoryBucket, Rate, RateItem, SlidingWindowLog
from pyrate_limiter.testing import ManualClock

RATES = [
    [Rate(1, 7)],
    [Rate(3, 10)],
    [Rate(2, 5), Rate(3, 20)],
    [Rate(2, 4), Rate(4, 12), Rate(7, 36)],
    [Rate(5, 9), Rate(6, 30)],
]
NAMES = st.sampled_from(["a", "b", "", "\0'"])
WEIGHTS = st.integers(0, 8)
FOR_EVER = 1 << 50


@dataclass(eq=False)
class Unit:
    stamp: int
    name: str
    open: bool = False


class Model:
    """A list of units, oldest first. Nothing is clever here."""

    def __init__(self, rates, policy):
        self.rates, self.starts, self.units = rates, policy.window_start, []
        self.looks_ahead = isinstance(policy, SlidingWindowLog)

    def short(self, units, weight, moment):
        """The rates under which the weight does not fit beside these units."""
        return [rate for rate in self.rates if self.load(units, rate, moment) + weight > rate.limit]

    def load(self, units, rate, moment):
        start = self.starts(rate, moment)
        return sum(unit.stamp >= start for unit in units)

    def earliest(self, weight, moment, counted=None):
        """The first moment at which the weight fits, and the rate that is first in the way."""
        if weight > self.rates[0].limit:
            return None, self.rates[0]
        if weight == 0:
            return moment, None
        if counted is None and self.looks_ahead:
            for m in range(moment, max([moment, *(u.stamp for u in self.units)])):
                if self.harms_nobody(weight, m):
                    return m, None if m == moment else self.rates[0]
        behind = max([moment, *(u.stamp for u in self.units)]) if counted is None else moment
        first = None if behind == moment else self.rates[0]
        units = self.units if counted is None else counted
        if short := self.short(units, weight, behind):
            first = short[0]
        while self.short(units, weight, behind):
            behind += 1
        return behind, first

    def harms_nobody(self, weight, moment):
        """Whether no window has more than its limit if the weight is added at that moment."""
        if not all(u.open for u in self.units if u.stamp > moment):
            return False
        for rate in self.rates:
            for end in {moment, *(u.stamp for u in self.units)}:
                start = self.starts(rate, end)
                if start <= moment <= end:
                    inside = sum(start <= u.stamp <= end for u in self.units)
                    if inside + weight > rate.limit:
                        return False
        return True

    def reserved(self, weight, now, max_wait_ms, pad, not_before=None):
        """Where a reservation goes, and what is in the way; in a tuple with what it was asked."""
        start = now if not_before is None else max(now, not_before)
        moment, failing = self.earliest(weight, start)
        if moment is None or moment - now > max_wait_ms:
            return None, moment, failing
        newest = max([now, *(u.stamp for u in self.units)])
        padded = max(moment, min(moment + pad, now + max_wait_ms))
        if now < moment and (
            moment > newest or (moment < newest and self.earliest(weight, padded)[0] == padded)
        ):
            moment = padded
        return moment, moment, failing

    def add(self, units):
        """Behind all that are as old."""
        place = sum(u.stamp <= units[0].stamp for u in self.units) if units else 0
        self.units[place:place] = units

    def take_out(self, units):
        """The newest of that time and name: units that are alike cannot be told apart."""
        for unit in units:
            if unit in self.units:
                here = self.units.index(unit)
                alike = [
                    place
                    for place, other in enumerate(self.units)
                    if (other.stamp, other.name) == (unit.stamp, unit.name)
                ]
                self.units[here] = self.units[alike[-1]]
                del self.units[alike[-1]]


class LogMachine(RuleBasedStateMachine):
    policy = SlidingWindowLog
    reserved = Bundle("reserved")

    @initialize(rates=st.sampled_from(RATES), start=st.integers(-50, 50))
    def start(self, rates, start):
        self.clock = ManualClock(start)
        self.bucket = InMemoryBucket(rates, self.policy())
        self.bucket._clock = self.clock
        self.model = Model(rates, self.policy())
        self.departed = []  # the true times

    @property
    def now(self):
        return self.clock.now()

    def go(self, weight):
        self.departed += [self.now] * weight

    @rule(ms=st.integers(0, 12))
    def advance(self, ms):
        self.clock.advance(ms)

    @rule(name=NAMES, weight=WEIGHTS)
    def put(self, name, weight):
        moment, failing = self.model.earliest(weight, self.now)
        item = RateItem(name, self.now, weight)
        admitted = self.bucket.put(item)
        assert admitted is (moment == self.now)
        assert self.bucket.failing_rate == failing
        if admitted:
            assert self.bucket.waiting(item) == 0
            self.model.add([Unit(self.now, name) for _ in range(weight)])
            self.go(weight)
        else:
            assert self.bucket.waiting(item) == (-1 if moment is None else moment - self.now)

    @rule(name=NAMES, weight=WEIGHTS)
    def take(self, name, weight):
        if weight and (straight := self.bucket.straight()):
            moment, failing = self.model.earliest(weight, self.now)
            assert straight(name, weight) is (moment == self.now)
            assert self.bucket.failing_rate == failing
            if moment == self.now:
                self.model.add([Unit(self.now, name) for _ in range(weight)])
                self.go(weight)

    @rule(weight=WEIGHTS)
    def check(self, weight):
        moment, failing = self.model.earliest(weight, self.now)
        decision = self.bucket.check(RateItem("c", self.now, weight))
        assert decision.failing_rate == failing
        if failing is not None:
            assert decision.retry_after_ms == (None if moment is None else moment - self.now)

    @rule(weight=st.integers(1, 8), other=WEIGHTS)
    def waiting_for_another_weight(self, weight, other):
        if self.model.earliest(weight, self.now)[0] != self.now:
            self.bucket.put(RateItem("w", self.now, weight))
            moment, _ = self.model.earliest(other, self.now)
            expected = -1 if moment is None else moment - self.now
            assert self.bucket.waiting(RateItem("w", self.now, other)) == expected

    @rule(name=NAMES, weight=WEIGHTS)
    def a_refusal_is_right_to_the_millisecond(self, name, weight):
        decision = self.bucket.put_decision(RateItem(name, self.now, weight))
        if decision.allowed:
            self.model.add([Unit(self.now, name) for _ in range(weight)])
            self.go(weight)
        elif decision.retry_after_ms is not None:
            self.clock.advance(decision.retry_after_ms - 1)
            assert not self.bucket.put(RateItem(name, self.now, weight))
            self.clock.advance(1)
            self.put(name, weight)
            assert self.bucket.failing_rate is None

    @rule(
        target=reserved,
        name=NAMES,
        weight=WEIGHTS,
        max_wait_ms=st.sampled_from([0, 3, 20, 100, FOR_EVER]),
        pad=st.integers(0, 4),
    )
    def reserve(self, name, weight, max_wait_ms, pad):
        placed, moment, failing = self.model.reserved(weight, self.now, max_wait_ms, pad)
        item = RateItem(name, self.now, weight)
        decision = self.bucket.reserve(item, max_wait_ms, pad)
        return self.told(item, decision, placed, moment, failing)

    def told(self, item, decision, placed, moment, failing):
        """Check the answer, and store in the model what was reserved."""
        if placed is None:
            assert decision.failing_rate == self.bucket.failing_rate
            assert self.bucket.failing_rate == failing or moment != self.now
            assert decision.retry_after_ms == (None if moment is None else moment - self.now)
            return None
        assert decision.allowed
        assert decision.wait_ms == placed - self.now
        assert item.timestamp == placed
        units = [Unit(placed, item.name, open=placed > self.now) for _ in range(item.weight)]
        self.model.add(units)
        if placed > self.now:
            return decision, units
        self.go(item.weight)
        return None

    @rule(
        target=reserved,
        names=st.lists(NAMES, min_size=1, max_size=4),
        weights=st.lists(st.integers(0, 4), min_size=4, max_size=4),
        max_wait_ms=st.sampled_from([0, 3, 20, 100, FOR_EVER]),
        pad=st.integers(0, 4),
        bound=st.none() | st.integers(-3, 12),
    )
    def a_line_reserves_for_its_first(self, names, weights, max_wait_ms, pad, bound):
        items = [RateItem(n, self.now, w) for n, w in zip(names, weights, strict=False)]
        weights = [item.weight for item in items]
        not_before = None if bound is None else self.now + bound
        decisions = self.bucket.reserve_several(items, max_wait_ms, pad, not_before)
        told = []
        for item, decision in zip(items, decisions, strict=False):
            placed, moment, failing = self.model.reserved(
                item.weight, self.now, max_wait_ms, pad, not_before if item.weight else None
            )
            if not_before is not None and item.weight and placed is not None:
                assert placed >= not_before
            told.append(self.told(item, decision, placed, moment, failing))
            if placed is None:
                assert decision is decisions[-1]
            elif placed > self.now:
                not_before = placed
        assert len(decisions) == len(items) or not decisions[-1].allowed
        return multiple(*told)

    @rule(made=consumes(reserved), late=st.sampled_from([0, 0, 1, 2, 5, 40, 200]), data=st.data())
    def confirm(self, made, late, data):
        if made is None:
            return
        reservation, units = made
        item = reservation.item
        if not all(u in self.model.units for u in units) and any(
            u.stamp == item.timestamp and u.open for u in self.model.units
        ):
            return  # flushed, and others are there now: it cannot be told from theirs
        if self.now < item.timestamp + late:
            self.clock.set(item.timestamp + late)
        max_wait_ms = data.draw(st.sampled_from([0, 2, 15, FOR_EVER]))
        while True:
            gone = [u for u in self.model.units if not u.open]
            vanished = not all(u in self.model.units for u in units)
            if vanished:
                moment, _ = self.model.earliest(item.weight, self.now)
            else:
                moment, _ = self.model.earliest(item.weight, self.now, gone)
            decision = self.bucket.confirm(reservation, self.now, max_wait_ms)
            if moment - self.now > max_wait_ms:
                assert decision.retry_after_ms == moment - self.now
                self.model.take_out(units)
                return
            assert decision.allowed
            assert decision.wait_ms == moment - self.now
            if vanished or moment != units[0].stamp:
                self.model.take_out(units)
                for unit in units:
                    unit.stamp = moment
                self.model.add(units)
            if not decision.wait_ms:
                break
            for unit in units:
                unit.open = True
            reservation = decision
            self.clock.advance(decision.wait_ms)
        for unit in units:
            unit.open = False
        self.go(item.weight)

    @rule(made=consumes(reserved))
    def cancel(self, made):
        if made is not None:
            reservation, units = made
            item = reservation.item
            stored = all(u in self.model.units for u in units)
            if not stored and any(u.stamp == item.timestamp for u in self.model.units):
                return  # flushed, and others are there now: it cannot be told from theirs
            assert self.bucket.cancel(reservation) is stored
            self.model.take_out(units)

    @rule(target=reserved, made=consumes(reserved), part=st.integers(1, 7))
    def cancel_a_part(self, made, part):
        if made is None or part >= made[0].item.weight:
            return made
        reservation, units = made
        if all(u in self.model.units for u in units):
            assert self.bucket.cancel(reservation.part(part))
            reservation.item.weight -= part
            self.model.take_out(units[:part])
            del units[:part]
        return made

    @rule()
    def leak(self):
        bound = min(self.model.starts(rate, self.now) for rate in self.model.rates)
        old = [u for u in self.model.units if u.stamp < bound]
        assert self.bucket.leak(self.now) == len(old)
        self.model.take_out(old)

    @precondition(lambda self: len(self.model.units) > 6)
    @rule()
    def flush(self):
        self.bucket.flush()
        self.model.units.clear()
        self.departed.clear()

    @invariant()
    def stores_what_the_model_stores(self):
        if not hasattr(self, "model"):
            return
        stored = [(u.name, u.timestamp) for u in self.bucket.items]
        assert stored == [(u.name, u.stamp) for u in self.model.units]
        assert self.bucket.count() == len(stored)
        assert [(u.name, u.timestamp) for u in map(self.bucket.peek, range(len(stored)))] == stored[
            ::-1
        ]
        assert self.bucket.peek(len(stored)) is None

    @invariant()
    def never_more_than_the_limit_in_any_window(self):
        for rate in getattr(self, "departed", ()) and self.model.rates:
            for end in set(self.departed[-20:]):
                start = self.model.starts(rate, end)
                assert sum(start <= t <= end for t in self.departed) <= rate.limit


class FixedWindowMachine(LogMachine):
    policy = FixedWindow


TestSlidingWindowLog = LogMachine.TestCase
TestSlidingWindowLog.settings = settings(stateful_step_count=30)
TestFixedWindow = FixedWindowMachine.TestCase
TestFixedWindow.settings = settings(stateful_step_count=30)
