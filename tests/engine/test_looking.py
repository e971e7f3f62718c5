"""What `waiting` and `check` say for policies and buckets of one's own."""

import asyncio
import inspect

import pytest

from pyrate_limiter import (
    GCRA,
    AbstractBucket,
    Decision,
    FixedWindow,
    InMemoryBucket,
    PostgresBucket,
    Rate,
    RateItem,
    RedisStateStore,
    SlidingWindowLog,
    SQLiteBucket,
    SQLiteClock,
    StateBucket,
    WallClock,
)
from pyrate_limiter.utils import dedicated_sqlite_clock_connection
from tests.support import postgres_fixtures as postgres
from tests.support.redis_servers import fresh_key, shared_url, sync_client

RATE = Rate(3, 1000)


class SilentState(GCRA):
    """Refuses without naming a wait."""

    def step(self, rates, state, now, weight):
        return state, Decision(rates[0])


class SilentLog(SlidingWindowLog):
    def decide(self, rates, counts, weight, now, peek_timestamp):
        decision = super().decide(rates, counts, weight, now, peek_timestamp)
        return decision if decision.allowed else Decision(decision.failing_rate)


class SilentToTheEnd(SilentLog):
    def retry_after(self, rate, now, blocking_timestamp):
        return None


def refused(bucket):
    bucket.put(RateItem("a", 10, 3))
    assert not bucket.put(RateItem("a", 11, 2))
    return [bucket.waiting(RateItem("a", 11, weight)) for weight in (1, 3, 4)]


@pytest.fixture(scope="module")
def pool():
    pool = postgres.pool()
    yield pool
    pool.close()


def test_after_a_refusal_that_names_no_wait_another_weight_may_try_at_once(pool):
    assert refused(StateBucket([RATE], SilentState())) == [0, 0, -1]
    assert refused(InMemoryBucket([RATE], SilentToTheEnd())) == [0, 0, -1]
    with SQLiteBucket.init_from_file([RATE], algorithm=SilentToTheEnd()) as bucket:
        assert refused(bucket) == [0, 0, -1]
    assert refused(PostgresBucket(pool, postgres.table(), RATE, SilentLog())) == [0, 0, -1]


def test_a_log_policy_that_only_decides_without_a_wait_is_asked_for_it():
    assert refused(InMemoryBucket([RATE], SilentLog())) == [1000, 1000, -1]
    with SQLiteBucket.init_from_file([RATE], algorithm=SilentLog()) as bucket:
        assert refused(bucket) == [1000, 1000, -1]


def test_a_bucket_with_an_awaitable_peek_gives_an_awaitable_wait():
    class Own(InMemoryBucket):
        async def peek(self, index):
            return super().peek(index)

    async def main():
        bucket = Own([RATE])
        bucket.put(RateItem("a", 10, 3))
        assert not bucket.put(RateItem("a", 11, 2))
        waiting = bucket.waiting(RateItem("a", 11, 1))
        assert inspect.isawaitable(waiting)
        assert await waiting == 1000

    asyncio.run(main())


class OwnWindow(AbstractBucket):
    """A user's bucket that counts in fixed windows."""

    _algorithm = FixedWindow()

    def __init__(self, rates):
        self.rates = rates
        self.units = []

    def put(self, item):
        self.failing_rate = None
        for rate in self.rates:
            start = self._algorithm.window_start(rate, item.timestamp)
            if sum(unit.timestamp >= start for unit in self.units) + item.weight > rate.limit:
                self.failing_rate = rate
                return False
        self.units += [item] * item.weight
        return True

    def leak(self, current_timestamp=None):
        return 0

    def flush(self):
        self.units.clear()

    def count(self):
        return len(self.units)

    def peek(self, index):
        return self.units[-1 - index] if index < len(self.units) else None


@pytest.mark.parametrize("rates", [[RATE], [RATE, Rate(5, 10_000)]])
def test_check_of_a_bucket_of_ones_own_says_the_wait_of_its_policy(rates):
    bucket = OwnWindow(rates)
    bucket.put(RateItem("a", 950, 3))
    item = RateItem("a", 950)
    assert not bucket.put(item)
    assert bucket.check(item).retry_after_ms == bucket.waiting(item) == 50
    assert bucket.check(RateItem("a", 1000))
    assert not bucket.check(RateItem("a", 999))


def test_check_of_a_bucket_of_ones_own_names_the_first_rate_that_is_short():
    bucket = OwnWindow([Rate(3, 1000), Rate(4, 10_000)])
    for stamp in (100, 200, 300, 1000):
        assert bucket.put(RateItem("a", stamp))
    decision = bucket.check(RateItem("a", 2000))
    assert (decision.failing_rate, decision.retry_after_ms) == (Rate(4, 10_000), 8000)
    assert bucket.check(RateItem("a", 2000, 0))
    assert bucket.check(RateItem("a", 2000, 5)).retry_after_ms is None


def test_a_sqlite_clock_has_the_connection_that_it_was_given_or_one_of_its_own():
    conn = dedicated_sqlite_clock_connection()
    assert SQLiteClock(conn).conn is conn
    conn.close()
    clock = SQLiteClock.default()
    with clock.conn as own:
        assert own.execute(clock.time_query).fetchone()[0] > 1_600_000_000_000
    assert clock.conn is own
    own.close()


def test_the_clock_of_a_redis_store_is_a_wall_clock():
    with sync_client(shared_url()) as client:
        bucket = StateBucket([RATE], store=RedisStateStore(client, fresh_key()))
        assert isinstance(bucket._clock, WallClock)
        assert isinstance(bucket.store.default_clock, WallClock)
