"""GCRA in Lua and in Python give the same verdicts and states."""

import itertools
import os

from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import GCRA, InMemoryBucket, Rate, RateItem, RedisBucket, RedisStateStore
from pyrate_limiter.testing import ManualClock
from tests.redis_servers import shared_url, sync_client

START = 1_700_000_000_000
RATES = [
    [Rate(5, 1000)],
    [Rate(7, 1000, burst=2)],
    [Rate(3, 100), Rate(10, 1000, burst=4)],
    [Rate(1, 7), Rate(2, 20), Rate(5, 77, burst=9)],
]
_number = itertools.count()
calls = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 6)), max_size=30)


def fresh_key():
    return f"property:{os.getpid()}:{next(_number)}"


@given(st.sampled_from(RATES), calls)
def test_lua_and_python_agree(rates, steps):
    algorithm = GCRA()
    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, fresh_key())
        state, now = algorithm.initial(rates), START
        for later, weight in steps:
            now += later
            state, expected = algorithm.step(rates, state, now, weight)
            assert store.check(algorithm, rates, now, weight) == expected
            if expected.allowed:
                assert store.read(algorithm, rates) == state


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
