"""`StateBucket` with GCRA: what really leaves conforms, however the waiters behave."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)

from pyrate_limiter import GCRA, Rate, RateItem, StateBucket
from pyrate_limiter.testing import ManualClock

RATES = [
    [Rate(1, 7)],
    [Rate(3, 10)],
    [Rate(3, 10, burst=1)],
    [Rate(2, 5, burst=6)],
    [Rate(2, 5), Rate(3, 20)],
    [Rate(2, 4, burst=1), Rate(4, 12, burst=3), Rate(7, 36, burst=9)],
]
FOR_EVER = 1 << 50


class Model:
    """The textbook: one theoretical arrival time per rate, in microseconds."""

    def __init__(self, rates):
        self.rates = rates
        self.spacing = [-(-rate.interval * 1000 // rate.limit) for rate in rates]
        self.arrival = [-(1 << 62)] * len(rates)

    def after(self, now, weight):
        return [
            max(tat, now * 1000) + weight * spacing
            for tat, spacing in zip(self.arrival, self.spacing, strict=True)
        ]

    def short(self, now, weight):
        return [
            rate
            for rate, tat, spacing in zip(
                self.rates, self.after(now, weight), self.spacing, strict=True
            )
            if tat - now * 1000 > rate.burst * spacing
        ]

    def earliest(self, now, weight):
        if any(weight > rate.burst for rate in self.rates):
            return None
        while self.short(now, weight):
            now += 1
        return now

    def go(self, now, weight):
        assert not self.short(now, weight), "this departure does not conform"
        if weight:
            self.arrival = self.after(now, weight)


class GCRAMachine(RuleBasedStateMachine):
    reserved = Bundle("reserved")

    @initialize(rates=st.sampled_from(RATES), start=st.integers(0, 50))
    def start(self, rates, start):
        self.clock = ManualClock(start)
        self.bucket = StateBucket(rates, GCRA(), clock=self.clock)
        self.model = Model(rates)  # what has really left
        self.waiting = 0

    @property
    def now(self):
        return self.clock.now()

    @rule(ms=st.integers(0, 12))
    def advance(self, ms):
        self.clock.advance(ms)

    @rule(weight=st.integers(0, 7), straight=st.booleans())
    def put(self, weight, straight):
        item = RateItem("a", self.now, weight)
        take = straight and weight and self.bucket.straight()
        admitted = take("a", weight) if take else self.bucket.put(item)
        assert admitted is (self.bucket.failing_rate is None)
        moment = self.model.earliest(self.now, weight)
        if admitted:
            self.model.go(self.now, weight)
        elif moment is None:
            assert take or self.bucket.waiting(item) == -1
        elif not self.waiting:
            assert moment > self.now, "refused with room to spare"
            assert self.bucket.failing_rate in self.model.short(self.now, weight)
            assert take or self.bucket.waiting(item) == moment - self.now

    @rule(weight=st.integers(1, 7))
    def a_refusal_is_right_to_the_millisecond(self, weight):
        decision = self.bucket.put_decision(RateItem("a", self.now, weight))
        if decision.allowed:
            self.model.go(self.now, weight)
        elif decision.retry_after_ms is not None:
            assert decision == self.bucket.put_decision(RateItem("a", self.now, weight))
            self.clock.advance(decision.retry_after_ms - 1)
            assert not self.bucket.put(RateItem("a", self.now, weight))
            if self.waiting:
                return  # and who waits may be late, and nobody passes him
            assert self.bucket.waiting(RateItem("a", self.now, weight)) == 1
            self.clock.advance(1)
            assert self.bucket.put(RateItem("a", self.now, weight))
            self.model.go(self.now, weight)

    @rule(weight=st.integers(0, 7), other=st.integers(1, 7))
    def check_and_waiting_store_nothing(self, weight, other):
        self.bucket.check(RateItem("a", self.now))  # forgets reservations that are long overdue
        before = self.bucket.count()
        decision = self.bucket.check(RateItem("a", self.now, weight))
        if not self.waiting:
            moment = self.model.earliest(self.now, weight)
            assert decision.allowed is (moment == self.now)
            if moment is None:
                assert decision.retry_after_ms is None
            elif not decision.allowed:
                assert decision.retry_after_ms == moment - self.now
        if not decision.allowed:
            assert not self.bucket.put(RateItem("a", self.now, weight))
            refused = self.bucket.waiting(RateItem("a", self.now, other))
            outlook = self.bucket.check(RateItem("a", self.now, other))
            if outlook.allowed:
                assert refused == 0
            else:
                assert refused == (outlook.retry_after_ms or -1)
        assert self.bucket.count() == before

    @rule(
        target=reserved,
        weight=st.integers(0, 7),
        max_wait_ms=st.sampled_from([0, 3, 20, 100, FOR_EVER]),
        pad=st.integers(0, 4),
    )
    def reserve(self, weight, max_wait_ms, pad):
        item = RateItem("a", self.now, weight)
        outlook = self.bucket.check(RateItem("a", self.now, weight))
        decision = self.bucket.reserve(item, max_wait_ms, pad)
        if not decision.allowed:
            assert decision.retry_after_ms == outlook.retry_after_ms
            assert decision.retry_after_ms is None or decision.retry_after_ms > max_wait_ms
            return None
        if decision.wait_ms == 0:
            self.model.go(self.now, weight)
            return None
        assert outlook.retry_after_ms <= decision.wait_ms <= outlook.retry_after_ms + pad
        assert decision.wait_ms <= max_wait_ms
        assert item.timestamp == self.now + decision.wait_ms
        self.waiting += 1
        return decision

    @rule(
        reservation=consumes(reserved),
        late=st.sampled_from([0, 0, 0, 1, 2, 5, 40, 70_000]),
        max_wait_ms=st.sampled_from([0, 2, 15, FOR_EVER]),
    )
    def confirm(self, reservation, late, max_wait_ms):
        if reservation is None:
            return
        item = reservation.item
        if self.now < item.timestamp + late:
            self.clock.set(item.timestamp + late)
        decision = self.bucket.confirm(reservation, self.now, max_wait_ms)
        rounds = 0
        while decision.allowed and decision.wait_ms:
            assert decision.wait_ms <= max_wait_ms
            self.clock.advance(decision.wait_ms)
            decision = self.bucket.confirm(decision, self.now, max_wait_ms)
            rounds += 1
            assert rounds < 50, "pushed back for ever"
        self.waiting -= 1
        if decision.allowed:
            self.model.go(self.now, item.weight)
        else:
            assert decision.retry_after_ms > max_wait_ms

    @rule(
        target=reserved,
        weights=st.lists(st.integers(1, 7), min_size=1, max_size=4),
        max_wait_ms=st.sampled_from([0, 3, 20, 100, FOR_EVER]),
        pad=st.integers(0, 4),
        bound=st.none() | st.integers(-3, 12),
    )
    def a_line_reserves_for_its_first(self, weights, max_wait_ms, pad, bound):
        items = [RateItem("a", self.now, weight) for weight in weights]
        not_before = self.now if bound is None else self.now + bound
        moment = not_before
        decisions = self.bucket.reserve_several(items, max_wait_ms, pad, not_before)
        assert len(decisions) == len(items) or not decisions[-1].allowed
        waiting = []
        for item, decision in zip(items, decisions, strict=False):
            if not decision.allowed:
                assert decision is decisions[-1]
                assert decision.retry_after_ms is None or decision.retry_after_ms > max_wait_ms
            elif not decision.wait_ms:
                assert moment <= self.now
                self.model.go(self.now, item.weight)
            else:
                assert moment <= item.timestamp <= self.now + max_wait_ms
                moment = item.timestamp
                waiting.append(decision)
        self.waiting += len(waiting)
        return multiple(*waiting)

    @rule(target=reserved, reservation=consumes(reserved), part=st.integers(1, 6))
    def cancel_a_part(self, reservation, part):
        if (
            reservation is not None
            and part < reservation.item.weight
            and self.bucket.cancel(reservation.part(part))
        ):
            reservation.item.weight -= part
        return reservation

    @rule(reservation=consumes(reserved))
    def cancel(self, reservation):
        if reservation is not None:
            self.bucket.cancel(reservation)
            self.waiting -= 1

    @rule()
    def nothing_is_owed_once_it_has_had_the_time(self):
        if not self.waiting:
            decision = self.bucket.check(RateItem("a", self.now, 0))
            self.clock.advance(decision.reset_after_ms)
            assert self.bucket.count() == 0
            for rate in self.model.rates[:1]:
                weight = min(rate.burst for rate in self.model.rates)
                assert self.bucket.put(RateItem("a", self.now, weight))
                self.model.go(self.now, weight)


TestGCRA = GCRAMachine.TestCase
TestGCRA.settings = settings(stateful_step_count=30)
