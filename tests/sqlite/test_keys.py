"""Limiter.per_key over one table of a SQLite file, and states by key."""

import asyncio
import pickle
import sqlite3
from contextlib import closing

import pytest

from pyrate_limiter import (
    GCRA,
    Limiter,
    Rate,
    RateItem,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from pyrate_limiter.testing import ManualClock
from pyrate_limiter.testing.conformance import BucketConformance

T = 10**12


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "limits.db")


def keyed(path, *rates):
    limiter = Limiter.per_key(list(rates), bucket=SQLiteBucket.per_key(path))
    limiter.bucket_factory._logs.clock = ManualClock(T)
    return limiter, limiter.bucket_factory._logs.clock


def count(path, table):
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]


class TestOneKey(BucketConformance):
    reserves = True
    holds = True

    # A row's name is its key, whatever the item is called: names are tested further down.
    test_names_may_have_any_characters = None
    test_peek_counts_from_the_newest = None
    test_an_item_changed_after_put_changes_nothing = None

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.path, self.made, self.factories = str(tmp_path / "limits.db"), 0, []
        yield
        for factory in self.factories:
            factory.close()

    def make_bucket(self, rates):
        self.made += 1
        factory = SQLiteBucket.per_key(self.path, f"t{self.made}").keyed(rates)
        self.factories.append(factory)
        return factory.bucket('it\'s a "key"')


def test_each_name_is_limited_by_itself(path):
    limiter, clock = keyed(path, Rate(2, 1000), Rate(3, 10_000))
    with limiter:
        for name in ("ann", "bob", 'it\'s "x"; --'):
            answers = [limiter.try_acquire(name, blocking=False) for _ in range(3)]
            assert answers == [True, True, False]
        clock.advance(1001)
        assert limiter.try_acquire("ann", blocking=False)
        assert not limiter.try_acquire("ann", blocking=False)
        decision = limiter.check("ann")
        assert (decision.remaining, decision.retry_after_ms) == (0, 9000)
        assert limiter.check("carl").remaining == 2
        factory = limiter.bucket_factory
        for name in BucketConformance.names:
            assert limiter.try_acquire(name, blocking=False)
            assert factory.bucket(name).peek(0).name == name
            assert factory.bucket(name).count() >= 1


def test_another_process_sees_the_same_names(path):
    one, _ = keyed(path, Rate(2, 1000))
    two, _ = keyed(path, Rate(2, 1000))
    with one, two:
        assert one.try_acquire("ann", blocking=False)
        assert two.try_acquire("ann", blocking=False)
        assert not one.try_acquire("ann", blocking=False)
        assert not two.try_acquire("ann", blocking=False)
        assert two.try_acquire("bob", 2, blocking=False)
        assert not one.try_acquire("bob", blocking=False)


def test_a_pickled_limiter_opens_the_same_file(path):
    limiter = Limiter.per_key(Rate(2, 60_000), bucket=SQLiteBucket.per_key(path))
    with limiter, pickle.loads(pickle.dumps(limiter)) as copy:
        assert limiter.try_acquire("ann", 2, blocking=False)
        assert not copy.try_acquire("ann", blocking=False)
        assert copy.try_acquire("bob", blocking=False)


def test_names_cost_rows_and_no_objects(path):
    limiter, _ = keyed(path, Rate(2, 1000))
    with limiter:
        for number in range(2000):
            assert limiter.try_acquire(f"name {number}", blocking=False)
        assert count(path, "rate_buckets") == 2000
        assert len(limiter.bucket_factory._buckets) <= 300
        assert not limiter.try_acquire("name 0", 2, blocking=False)


def test_a_million_names_cost_no_objects_and_leave_nothing_behind(path):
    limiter, clock = keyed(path, Rate(2, 1000))
    limiter.bucket_factory.leak_interval = 3_600_000  # the sweeper must not come in between
    with limiter:
        limiter.bucket_factory.leak_interval = 3_600_000  # it is swept by hand
        assert limiter.try_acquire("first", blocking=False)
        with closing(sqlite3.connect(path)) as conn:
            conn.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "INSERT INTO rate_buckets SELECT 'name ' || i, 1, ? FROM n",
                (1_000_000, T),
            )
            conn.commit()
        for number in range(1, 1_000_001, 1000):
            answers = [limiter.try_acquire(f"name {number}", blocking=False) for _ in range(2)]
            assert answers == [True, False]
        assert len(limiter.bucket_factory._buckets) <= 300
        clock.advance(2000)
        assert limiter.bucket_factory._logs.leak() == 1_001_001
        assert count(path, "rate_buckets") == 0


def test_names_that_went_quiet_leave_nothing_behind(path):
    limiter, clock = keyed(path, Rate(2, 1000))
    with limiter:
        factory = limiter.bucket_factory
        for number in range(500):
            bucket = factory.bucket(f"name {number}")
            assert bucket.put(RateItem(f"name {number}", T, 2))
            assert bucket.reserve(RateItem(f"name {number}", T), 5000, 0)
        assert count(path, "pyrate_limiter_reservations") == 500
        clock.advance(2000)
        assert factory._logs.leak() == 1000
        clock.advance(10)
        assert factory._logs.leak() == 500
        for table in ("rate_buckets", "pyrate_limiter_reservations", "pyrate_limiter_clocks"):
            assert count(path, table) == 0


def test_the_table_stays_bounded_when_nobody_leaks_it(path):
    limiter, clock = keyed(path, Rate(2, 1000))
    with limiter:
        for number in range(1500):
            clock.advance(10)
            assert limiter.try_acquire(f"name {number}", blocking=False)
        assert count(path, "rate_buckets") < 300


def test_a_name_that_waits_does_not_delay_another(path):
    limiter = Limiter.per_key(Rate(1, 300), bucket=SQLiteBucket.per_key(path))

    async def main():
        assert await limiter.try_acquire_async("ann")
        waiter = asyncio.ensure_future(limiter.try_acquire_async("ann"))
        await asyncio.sleep(0.02)
        assert await limiter.try_acquire_async("bob")
        assert not waiter.done()
        assert await waiter

    with limiter:
        asyncio.run(main())


def test_wrong_arguments_are_refused(path):
    with pytest.raises(TypeError, match="source"):
        SQLiteBucket.per_key(7)
    with pytest.raises(TypeError, match="table"):
        SQLiteBucket.per_key(path, "")
    with pytest.raises(TypeError, match="key"):
        SQLiteStateStore(path, 7)
    with pytest.raises(TypeError, match="source"):
        SQLiteStateStore(7, "key")


# States -----------------------------------------------------------------------------------------


def state_bucket(source, key, *rates):
    return StateBucket(list(rates), GCRA(), SQLiteStateStore(source, key), ManualClock(T))


def test_a_state_outlives_its_store(path):
    bucket = state_bucket(path, "ann", Rate(10, 1000))
    assert bucket.put(RateItem("a", T, 7))
    bucket.close()
    again = state_bucket(path, "ann", Rate(10, 1000))
    assert again.count() == 7
    assert not again.put(RateItem("a", T, 4))
    other = state_bucket(path, "bob", Rate(10, 1000))
    assert other.put(RateItem("a", T, 10))
    again.flush()
    assert again.put(RateItem("a", T, 10))
    assert not other.put(RateItem("a", T))
    again.close()
    other.close()


def test_reservations_on_a_state_are_seen_by_other_stores(path):
    one = state_bucket(path, "ann", Rate(1, 1000))
    two = state_bucket(path, "ann", Rate(1, 1000))
    assert one.put(RateItem("a", T))
    reservation = one.reserve(RateItem("b", T), 5000, 0)
    assert reservation.wait_ms == 1000
    assert two.reserve(RateItem("c", T), 5000, 0).wait_ms == 2000
    assert two.cancel(reservation)
    assert one.check(RateItem("d", T)).retry_after_ms is not None
    one.close()
    two.close()


@pytest.mark.parametrize("method", ["put", "reserve", "check"])
def test_a_clock_that_steps_back_does_not_refuse_until_it_has_caught_up(path, method):
    bucket = state_bucket(path, "ann", Rate(1, 1000))
    clock = bucket._clock = ManualClock(T)
    assert bucket.put(RateItem("a", T))
    ask = getattr(bucket, method)
    earlier = T - 3_600_000
    for later, free in ((0, False), (900, False), (1001, True)):
        clock.set(earlier + later)
        assert bool(ask(RateItem("a", earlier + later))) is free
    bucket.close()


def test_idle_keys_are_removed(path):
    conn = sqlite3.connect(path, check_same_thread=False)
    for number in range(300):
        bucket = state_bucket(conn, f"key {number}", Rate(10, 1000))
        bucket._clock = ManualClock(T)
        assert bucket.put(RateItem("a", T, 10))
    assert count(path, "pyrate_limiter_states") == 300
    bucket = state_bucket(conn, "late", Rate(10, 1000))
    bucket._clock = ManualClock(T + 3_600_000)
    assert bucket.put(RateItem("a", T + 3_600_000))
    assert count(path, "pyrate_limiter_states") == 1
    conn.close()
