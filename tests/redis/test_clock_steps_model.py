"""Clocks that step, with the log and the state in Redis, on stamps of a clock that we own."""

import redis
from hypothesis import settings

from pyrate_limiter import FixedWindow, Rate, RateItem, RedisBucket, RedisStateStore, StateBucket
from pyrate_limiter.testing import ManualClock
from tests.buckets.test_clock_steps_model import (
    SteppingClockMachine,
    SteppingStateMachine,
    SteppingWindowMachine,
)
from tests.support.redis_servers import fresh_key, shared_url, sync_client


class _InRedis:
    def make(self, rates):
        self.client = redis.Redis.from_url(shared_url())
        return self.make_on(rates, fresh_key())

    def teardown(self):
        self.client.close()


class LogMachine(_InRedis, SteppingClockMachine):
    def make_on(self, rates, key):
        return RedisBucket(rates, self.client, key)


class WindowMachine(_InRedis, SteppingWindowMachine):
    def make_on(self, rates, key):
        return RedisBucket(rates, self.client, key, algorithm=FixedWindow())


class StateMachine(_InRedis, SteppingStateMachine):
    def make_on(self, rates, key):
        store = RedisStateStore(
            self.client, key, ttl_ms=3_600_000
        )  # the server's own clock goes on
        return StateBucket(rates, store=store, clock=self.clock)


TestSlidingWindowLog = LogMachine.TestCase
TestSlidingWindowLog.settings = settings(stateful_step_count=30)
TestFixedWindow = WindowMachine.TestCase
TestFixedWindow.settings = settings(stateful_step_count=30)
TestGCRA = StateMachine.TestCase
TestGCRA.settings = settings(stateful_step_count=30)


def test_who_is_refused_after_a_step_back_is_not_refused_until_the_clock_has_caught_up():
    with sync_client(shared_url()) as client:
        store = RedisStateStore(client, fresh_key(), ttl_ms=3_600_000)
        clock = ManualClock(10**12)
        bucket = StateBucket([Rate(1, 100)], store=store, clock=clock)
        assert bucket.put(RateItem("a", clock.now()))
        for later in (0, 50, 99):
            clock.set(10**12 - 3_600_000 + later)
            assert not bucket.put(RateItem("a", clock.now()))
            assert bucket.waiting(RateItem("a", clock.now())) == 100 - later
        clock.advance(1)
        assert bucket.put(RateItem("a", clock.now()))
