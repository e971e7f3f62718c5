"""GCRA in Lua and in Python give the same verdicts and states; so do the logs."""

import math

import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from pyrate_limiter import (
    GCRA,
    Decision,
    InMemoryBucket,
    Rate,
    RateItem,
    RedisBucket,
    RedisStateStore,
)
from pyrate_limiter.testing import ManualClock
from tests.redis_servers import fresh_key, shared_url, sync_client

START = 1_700_000_000_000
RATES = [
    [Rate(5, 1000)],
    [Rate(7, 1000, burst=2)],
    [Rate(3, 100), Rate(10, 1000, burst=4)],
    [Rate(1, 7), Rate(2, 20), Rate(5, 77, burst=9)],
]
STEPS = st.sampled_from([-3_600_000, -2000, -300, -20, -1, 20, 2000, 3_600_000])
calls = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 6)), max_size=30)


class LuaAndPython(RuleBasedStateMachine):
    """Each step of the script leaves the state, and gives the verdict, that `GCRA.step` gives."""

    claims = Bundle("claims")

    @initialize(rates=st.sampled_from(RATES))
    def start(self, rates):
        self.rates = rates
        self.algorithm = GCRA()
        self.client = redis.Redis.from_url(shared_url())
        self.store = RedisStateStore(self.client, fresh_key(), ttl_ms=600_000)  # of real time
        self.state = self.algorithm.initial(rates)
        self.now, self.at = START, 0  # the clock, and what it read when a step was last stored
        self.spacing = [rate.emission_us for rate in rates]
        self.shortest = min(rate.burst * rate.emission_us for rate in rates) / 1000

    def teardown(self):
        self.client.close()

    def moment(self):
        """What the script goes by, after putting right what a step of the clock has put wrong."""
        behind = self.at - self.now
        if 0 < behind <= self.shortest:
            return self.at
        if behind > 0:
            self.keep([max(0, tat - behind * 1000) for tat in self.state], self.now)
        return self.now

    def keep(self, state, at):
        self.state, self.at = tuple(state), at

    @rule(ms=st.integers(0, 300))
    def advance(self, ms):
        self.now += ms

    @rule(ms=STEPS)
    def step(self, ms):
        self.now += ms

    @rule(weight=st.integers(1, 6))
    def put(self, weight):
        now = self.moment()
        state, expected = self.algorithm.step(self.rates, self.state, now, weight)
        assert self.store.check(self.algorithm, self.rates, self.now, weight) == expected
        if expected.allowed:
            self.keep(state, now)

    @rule(
        target=claims,
        weight=st.integers(0, 6),
        patience=st.sampled_from([0, 5, 50, 500, 1 << 50]),
        pad=st.integers(0, 9),
    )
    def claim(self, weight, patience, pad):
        now = self.moment()
        item = RateItem("a", self.now, weight)
        decision = self.store.claim(self.algorithm, self.rates, item, patience, pad)
        state, first = self.algorithm.step(self.rates, self.state, now, weight)
        moment = now
        if not first.allowed and (first.retry_after_ms or math.inf) <= patience:
            moment += first.retry_after_ms + min(pad, patience - first.retry_after_ms)
            state, first = self.algorithm.step(self.rates, self.state, moment, weight)
            assert first.allowed
        before, after = self.state, state if first.allowed else self.state
        free, reset = self.algorithm.outlook(self.rates, after, now)
        wait = moment - now
        assert decision == Decision(first.failing_rate, first.retry_after_ms, wait, free, reset)
        if not decision.allowed:
            return None
        assert item.timestamp == moment
        if weight:
            self.keep(after, now)
        return item, before, after

    @rule(weight=st.integers(1, 6))
    def look(self, weight):
        now = self.moment()
        verdict = self.algorithm.step(self.rates, self.state, now, weight)[1]
        free, reset = self.algorithm.outlook(self.rates, self.state, now)
        expected = Decision(verdict.failing_rate, verdict.retry_after_ms, 0, free, reset)
        assert self.store.forecast(self.algorithm, self.rates, self.now, weight) == expected

    @rule(claim=consumes(claims))
    def settle(self, claim):
        if claim is None:
            return
        item, now = claim[0], self.moment()
        assert self.store.settle(self.algorithm, self.rates, item, self.now, 0).allowed
        at_once = [now * 1000 + item.weight * spacing for spacing in self.spacing]
        self.keep(map(max, self.state, at_once), now)

    @rule(claim=consumes(claims))
    def release(self, claim):
        if claim is None:
            return
        item, before, after = claim
        assert self.store.release(self.algorithm, self.rates, item)
        self.state = tuple(
            earlier if tat == later else max(0, tat - item.weight * spacing)
            for tat, earlier, later, spacing in zip(self.state, before, after, self.spacing)
        )

    @invariant()
    def both_hold_the_same_state(self):
        if hasattr(self, "store"):
            assert self.store.read(self.algorithm, self.rates) == self.state


TestLuaAndPython = LuaAndPython.TestCase
TestLuaAndPython.settings = settings(stateful_step_count=30)


@given(st.sampled_from([r for r in RATES if len(r) < 3]), calls, st.booleans())
def test_the_log_in_redis_and_in_memory_agree(rates, steps, patient):
    with sync_client(shared_url()) as client:
        ours, clock = RedisBucket(rates, client, fresh_key()), ManualClock(START)
        memory = InMemoryBucket(rates)
        ours._clock = memory._clock = clock
        for later, weight in steps:
            clock.advance(later)
            patience = 500 if patient else 0
            first, second = (RateItem("a", clock.now(), weight) for _ in range(2))
            expected = memory.claim(first, patience, 0)
            assert ours.claim(second, patience, 0) == expected
            assert second.timestamp == first.timestamp
