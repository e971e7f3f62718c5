"""Lines of waiters over one Redis log: who leaves, is late, or gives units back breaks no limit."""

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from pyrate_limiter import FixedWindow, Rate, RateItem, RedisBucket, SlidingWindowLog
from pyrate_limiter.buckets.redis import reservations
from pyrate_limiter.testing import ManualClock
from tests.support.redis_servers import fresh_key, shared_url

START = 1_700_000_000_000
FOR_EVER = 1 << 50
RATES = [
    [Rate(1, 7)],
    [Rate(3, 10)],
    [Rate(2, 40)],
    [Rate(2, 5), Rate(3, 20)],
    [Rate(2, 4), Rate(4, 12), Rate(7, 36)],
]


class LineMachine(RuleBasedStateMachine):
    policy = SlidingWindowLog
    reserved = Bundle("reserved")

    @initialize(rates=st.sampled_from(RATES))
    def start(self, rates):
        self.rates, self.clock = rates, ManualClock(START)
        reservations._random.seed(0)  # units of one moment are in the order of their ids
        self.client = redis.Redis.from_url(shared_url())
        self.bucket = RedisBucket(rates, self.client, fresh_key(), self.policy())
        self.bucket._clock = self.clock
        self.bucket._server.limit = lambda _=0: None  # how long they wait is none of real time
        self.last = None  # the last moment of the line
        self.departed = []

    def teardown(self):
        self.client.close()

    def go(self, weight):
        self.departed += [self.clock.now()] * weight

    @rule(ms=st.integers(0, 12))
    def advance(self, ms):
        self.clock.advance(ms)

    @rule(weight=st.integers(1, 4))
    def put(self, weight):
        if self.bucket.put(RateItem("now", self.clock.now(), weight)):
            self.go(weight)

    @rule(
        target=reserved,
        weights=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        max_wait_ms=st.sampled_from([0, 5, 30, FOR_EVER]),
        pad=st.sampled_from([None, 0, 3]),
        in_line=st.booleans(),
    )
    def reserve(self, weights, max_wait_ms, pad, in_line):
        now = self.clock.now()
        items = [RateItem("a", now, weight) for weight in weights]
        before = self.last if in_line else None
        newest = self.client.zrange(self.bucket.bucket_key, -1, -1, withscores=True)
        decisions = self.bucket.reserve_several(items, max_wait_ms, pad, before)
        assert all(decision.allowed for decision in decisions[:-1])
        held, moments = [], []
        for item, decision in zip(items, decisions, strict=False):
            if decision.wait_ms:
                assert item.timestamp == now + decision.wait_ms
                assert decision.wait_ms <= max_wait_ms
                held.append(decision)
            elif decision.allowed:
                self.go(item.weight)
            if decision.allowed:
                moments.append(now + decision.wait_ms)
        assert moments == sorted(moments)
        if before is not None and newest and before <= newest[0][1]:
            assert moments[:1] >= [before][: len(moments)]
        if moments:
            self.last = moments[-1]
        return held

    @rule(held=consumes(reserved), late=st.sampled_from([0, 0, 0, 1, 3, 9, 60]), data=st.data())
    def depart(self, held, late, data):
        for reservation in held or ():
            item, stored = reservation.item, reservation.handle
            if stored.weight == 0:
                continue
            due = item.timestamp + late
            if late == 0 and item.timestamp >= self.clock.now() and not stored.ask:
                self.clock.set(int(due))  # it is on time, and asks nothing
                self.go(item.weight)
                continue
            self.clock.set(max(int(due), self.clock.now()))
            while True:
                max_wait_ms = data.draw(st.sampled_from([0, 20, FOR_EVER]))
                decision = self.bucket.confirm(reservation, self.clock.now(), max_wait_ms)
                if not decision.wait_ms:
                    break
                assert decision.wait_ms <= max_wait_ms
                self.clock.advance(decision.wait_ms)
            if decision.allowed:
                self.go(item.weight)

    @rule(held=consumes(reserved), target=reserved)
    def give_back_in_part(self, held):
        left = []
        for reservation in held or ():
            assert self.bucket.cancel(reservation.part(1))
            reservation.item.weight -= 1
            if reservation.item.weight:
                left.append(reservation)
        return left

    @rule(held=consumes(reserved))
    def give_back(self, held):
        for reservation in held or ():
            before = self.bucket.count()
            assert self.bucket.cancel(reservation)
            assert not self.bucket.cancel(reservation)
            assert self.bucket.count() == before - reservation.item.weight

    @invariant()
    def never_more_than_the_limit_in_any_window(self):
        for rate in getattr(self, "departed", ()) and self.rates:
            for end in set(self.departed[-20:]):
                start = self.policy().window_start(rate, end)
                assert sum(start <= moment <= end for moment in self.departed) <= rate.limit


class FixedWindowLineMachine(LineMachine):
    policy = FixedWindow


TestSlidingWindowLog = LineMachine.TestCase
TestSlidingWindowLog.settings = settings(stateful_step_count=30)
TestFixedWindow = FixedWindowLineMachine.TestCase
TestFixedWindow.settings = settings(stateful_step_count=30)
