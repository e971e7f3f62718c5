"""GCRA in Lua and in Python give the same verdicts and states; so do the logs."""

from collections import Counter

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
    StateBucket,
)
from pyrate_limiter.testing import ManualClock
from tests.support.redis_servers import fresh_key, shared_url, sync_client

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

    @initialize(rates=st.sampled_from(RATES))
    def start(self, rates):
        self.rates = rates
        self.algorithm = GCRA()
        self.client = redis.Redis.from_url(shared_url())
        self.store = RedisStateStore(self.client, fresh_key(), ttl_ms=600_000)  # of real time
        self.state = self.algorithm.initial(rates)
        self.now, self.at = START, 0  # the clock, and what it read when a step was last stored

    def teardown(self):
        self.client.close()

    def moment(self):
        """What the script goes by, after putting right what a step of the clock has put wrong."""
        behind = self.at - self.now
        if 0 < behind <= self.rates[0].interval:
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

    @rule(weight=st.integers(0, 6))
    def reserve_now(self, weight):
        now = self.moment()
        item = RateItem("a", self.now, weight)
        decision = self.store.reserve(self.algorithm, self.rates, item, 0, 0)
        state, verdict = self.algorithm.step(self.rates, self.state, now, weight)
        if verdict.allowed and weight:
            self.keep(state, now)
        free, reset = self.algorithm.remaining_and_reset(self.rates, self.state, now)
        assert decision.failing_rate == verdict.failing_rate
        assert decision.retry_after_ms == verdict.retry_after_ms
        assert (decision.wait_ms, decision.remaining, decision.reset_after_ms) == (0, free, reset)

    @rule(weight=st.integers(1, 6))
    def look(self, weight):
        now = self.moment()
        verdict = self.algorithm.step(self.rates, self.state, now, weight)[1]
        free, reset = self.algorithm.remaining_and_reset(self.rates, self.state, now)
        expected = Decision(verdict.failing_rate, verdict.retry_after_ms, 0, free, reset)
        assert self.store.forecast(self.algorithm, self.rates, self.now, weight) == expected

    @invariant()
    def both_hold_the_same_state(self):
        if hasattr(self, "store"):
            assert self.store.read(self.algorithm, self.rates) == self.state


TestLuaAndPython = LuaAndPython.TestCase
TestLuaAndPython.settings = settings(stateful_step_count=30)


class WaitersMachine(RuleBasedStateMachine):
    """Who departs, late or not, conforms to `GCRA.step` at his true time, and in order."""

    reserved = Bundle("reserved")

    @initialize(rates=st.sampled_from(RATES))
    def start(self, rates):
        self.rates, self.algorithm = rates, GCRA()
        self.client = redis.Redis.from_url(shared_url())
        store = RedisStateStore(self.client, fresh_key(), ttl_ms=600_000)
        self.clock = ManualClock(START)
        self.bucket = StateBucket(rates, store=store, clock=self.clock)
        store._server.limit = lambda _=0: None  # how long they wait is none of real time
        self.true_state = self.algorithm.initial(rates)
        self.held = []
        self.room = Counter()  # units that were given back in front of others, by their moments

    def teardown(self):
        self.client.close()

    def go(self, weight, moment):
        self.true_state, verdict = self.algorithm.step(self.rates, self.true_state, moment, weight)
        assert verdict.allowed

    @rule(ms=st.integers(0, 300))
    def advance(self, ms):
        self.clock.advance(ms)

    @rule(weight=st.integers(1, 4))
    def put(self, weight):
        if self.bucket.put(RateItem("now", self.clock.now(), weight)):
            self.go(weight, self.clock.now())

    @rule(
        target=reserved,
        weight=st.integers(1, 4),
        max_wait_ms=st.sampled_from([0, 50, 500, 1 << 50]),
        pad=st.sampled_from([None, 0, 9]),
    )
    def reserve(self, weight, max_wait_ms, pad):
        now = self.clock.now()
        item = RateItem("a", now, weight)
        decision = self.bucket.reserve(item, max_wait_ms, pad)
        if not decision.allowed:
            return None
        assert item.timestamp == now + decision.wait_ms
        assert decision.wait_ms <= max_wait_ms
        if not decision.wait_ms:
            self.go(weight, now)
            return None
        if any(item.timestamp < other.item.timestamp for other in self.held):
            self.room[int(item.timestamp)] -= weight
            assert self.room[int(item.timestamp)] >= 0
        self.held.append(decision)
        return decision

    @rule(
        reservation=consumes(reserved),
        late=st.sampled_from([0, 0, 1, 20, 300, 5000]),
        data=st.data(),
    )
    def depart(self, reservation, late, data):
        if reservation is None:
            return
        self.held = [one for one in self.held if one is not reservation]
        self.clock.set(max(int(reservation.item.timestamp) + late, self.clock.now()))
        while True:
            max_wait_ms = data.draw(st.sampled_from([0, 300, 1 << 50]))
            decision = self.bucket.confirm(reservation, self.clock.now(), max_wait_ms)
            if not decision.wait_ms:
                break
            assert decision.wait_ms <= max_wait_ms
            self.clock.advance(decision.wait_ms)
        if decision.allowed:
            self.go(reservation.item.weight, self.clock.now())

    @rule(reservation=consumes(reserved))
    def give_back(self, reservation):
        if reservation is not None:
            item = reservation.item
            self.held = [one for one in self.held if one is not reservation]
            self.room[int(item.timestamp)] += item.weight
            stored = self.clock.now() - item.timestamp < 1000
            assert self.bucket.cancel(reservation) or not stored
            assert not self.bucket.cancel(reservation)

    @rule()
    def drained_when_all_have_gone(self):
        self.clock.advance(100_000)
        assert self.bucket.count() == 0
        assert self.bucket.put(RateItem("a", self.clock.now(), 1))
        self.go(1, self.clock.now())


TestWaiters = WaitersMachine.TestCase
TestWaiters.settings = settings(stateful_step_count=30)


@given(st.sampled_from([r for r in RATES if len(r) < 3]), calls, st.booleans())
def test_the_log_in_redis_and_in_memory_agree(rates, steps, patient):
    with sync_client(shared_url()) as client:
        ours, clock = RedisBucket(rates, client, fresh_key()), ManualClock(START)
        memory = InMemoryBucket(rates)
        ours._clock = memory._clock = clock
        for later, weight in steps:
            clock.advance(later)
            max_wait_ms = 500 if patient else 0
            if patient:
                weight = steps[0][1]  # noqa: PLW2901 - lighter ones may find room before others
            first, second = (RateItem("a", clock.now(), weight) for _ in range(2))
            expected = memory.reserve(first, max_wait_ms, 0)
            assert ours.reserve(second, max_wait_ms, 0) == expected
            assert second.timestamp == first.timestamp


def test_a_reservation_that_is_taken_for_used_cannot_be_given_back_for_another():
    clock = ManualClock(START)
    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, fresh_key(), ttl_ms=600_000)
        bucket = StateBucket([Rate(5, 1000)], store=store, clock=clock)
        made = []
        for later in (0, 100_000):
            clock.advance(later)
            assert bucket.put(RateItem("a", clock.now(), 5))
            made.append(bucket.reserve(RateItem("a", clock.now(), 2), 1 << 40, 0))
            assert made[-1].wait_ms == 400
        assert bucket.cancel(made[0]) is False
        assert bucket.cancel(made[1]) is True


def reserved_now(bucket, weights):
    """What is reserved now, one after the other."""
    most = bucket.rates[0].burst
    items = [RateItem("a", START, min(weight, most)) for weight in weights]
    return [bucket.reserve(item, 1 << 40, 0) for item in items]


@given(
    rates=st.sampled_from(RATES),
    first=st.lists(st.integers(1, 2), min_size=3, max_size=12),
    gone=st.sets(st.integers(0, 11), min_size=1, max_size=4),
    after=st.lists(st.integers(1, 2), max_size=6),
)
def test_room_that_is_given_back_in_front_of_others_is_used_as_in_memory(rates, first, gone, after):
    found = []
    with sync_client(shared_url()) as client:
        for store in (None, RedisStateStore(client, fresh_key(), ttl_ms=600_000)):
            clock = ManualClock(START)
            bucket = StateBucket(rates, store=store, clock=clock)
            made = reserved_now(bucket, first)
            moments = [one.item.timestamp for one in made]
            leave = [n for n in gone if n < len(made) and START < moments[n] < moments[-1]]
            assert all(bucket.cancel(made[number]) for number in leave)
            later = reserved_now(bucket, after)
            found.append([int(one.item.timestamp) for one in later])
            stay = [one for number, one in enumerate(made) if number not in leave]
            for one in sorted(stay + later, key=lambda one: one.item.timestamp):
                if one.item.timestamp > START:  # else it has gone
                    clock.set(int(one.item.timestamp))
                    decision = bucket.confirm(one, clock.now(), 1 << 40)
                    assert (decision.allowed, decision.wait_ms) == (True, 0)
    assert found[0] == found[1]
