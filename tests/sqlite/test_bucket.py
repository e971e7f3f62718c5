# Paths are text here, as programs give them.
# ruff: noqa: PTH105, PTH107, PTH110
"""SQLiteBucket: files, connections, clocks, and what can go wrong with a database."""

import asyncio
import gc
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing

import pytest

from pyrate_limiter import (
    GCRA,
    FixedWindow,
    Limiter,
    Rate,
    RateItem,
    SQLiteBucket,
    SQLiteClock,
    SQLiteQueries,
    SQLiteStateStore,
    StateBucket,
    dedicated_sqlite_clock_connection,
    limiter_factory,
)
from pyrate_limiter.buckets.sqlite.errors import (
    DatabaseLocked,
    DatabaseVanished,
    UnusableConnection,
)
from pyrate_limiter.buckets.sqlite.file_lock import SharedFileLock
from pyrate_limiter.buckets.state.rules import StateRules
from pyrate_limiter.clocks import WallClock
from pyrate_limiter.errors import BucketClosed, MissingDriver, PyrateError, ReentrantCall
from pyrate_limiter.testing import ManualAsyncClock, ManualClock

HOUR = 3_600_000
T = 10**12


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "limits.db")


def opened(path, *rates, now=T, **options):
    bucket = SQLiteBucket.init_from_file(list(rates) or [Rate(2, 1000)], db_path=path, **options)
    bucket._clock = ManualClock(now)
    return bucket


def rows(path, table="rate_bucket"):
    conn = sqlite3.connect(path)
    try:
        return conn.execute(f'SELECT rowid, name, item_timestamp FROM "{table}"').fetchall()
    finally:
        conn.close()


# Files ------------------------------------------------------------------------------------------


def test_the_table_is_the_one_that_451_makes(path):
    with opened(path) as bucket:
        assert bucket.put(RateItem('it\'s "x"', T, 2))
    assert rows(path) == [(1, 'it\'s "x"', T), (2, 'it\'s "x"', T)]
    conn = sqlite3.connect(path)
    columns = conn.execute("PRAGMA table_info(rate_bucket)").fetchall()
    conn.close()
    assert [(column[1], column[2]) for column in columns] == [
        ("name", "VARCHAR"),
        ("item_timestamp", "INTEGER"),
    ]


@pytest.mark.parametrize("table", ["plain", "it's; DROP TABLE x; --", 'a "b"', "ž 日 [x]"])
def test_any_characters_are_safe_in_a_table_name(path, table):
    with opened(path, table=table) as bucket:
        assert bucket.put(RateItem("a", T))
        item = RateItem("a", T, 2)
        reservation = bucket.reserve(item, HOUR)
        assert reservation
        assert bucket.count() == 3
    with opened(path, table="other") as other:
        assert other.count() == 0
    with opened(path, table=table) as bucket:
        assert bucket.cancel(reservation)
        assert bucket.count() == 1


def test_a_temporary_file_is_removed_on_close(tmp_path):
    bucket = SQLiteBucket.init_from_file([Rate(2, 1000)])
    path = bucket.conn.execute("PRAGMA database_list").fetchall()[0][2]
    bucket.put(RateItem("a", bucket.now()))
    assert os.path.exists(path)
    bucket.close()
    bucket.close()
    assert not [name for name in (path, path + "-wal", path + "-shm") if os.path.exists(name)]
    assert bucket.leak() == 0
    assert bucket.conn is None
    with pytest.raises(BucketClosed):
        bucket.count()


def test_a_temporary_file_is_removed_when_its_bucket_is_forgotten():
    bucket = SQLiteBucket.init_from_file([Rate(2, 1000)])
    path = bucket._db.path
    del bucket
    gc.collect()
    assert not os.path.exists(path)


def test_a_missing_table_is_an_error_unless_it_may_be_made(path):
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        SQLiteBucket.init_from_file([Rate(1, 1)], db_path=path, create_new_table=False)
    opened(path).close()
    opened(path, create_new_table=False).close()


def test_a_file_lock_without_a_path_is_refused():
    with pytest.raises(ValueError, match="db_path"):
        SQLiteBucket.init_from_file([Rate(1, 1)], use_file_lock=True)


def test_a_missing_filelock_names_the_extra(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ImportError, match=r"pyrate-limiter\[filelock\]") as caught:
        SQLiteBucket.init_from_file([Rate(1, 1)], db_path=path, use_file_lock=True)
    assert isinstance(caught.value, MissingDriver)


@pytest.mark.parametrize("flock", [True, False], ids=["with flock", "without"])
def test_the_file_lock_is_the_one_that_filelock_takes(path, monkeypatch, flock):
    from filelock import FileLock

    if not flock:  # as on Windows
        monkeypatch.setitem(sys.modules, "fcntl", None)
    with opened(path, use_file_lock=True) as bucket:
        assert bucket.limiter_lock().lock_file == path + ".lock"
        bucket.busy_seconds = 0.05
        other = FileLock(path + ".lock")
        with other, pytest.raises(DatabaseLocked):
            bucket.put(RateItem("a", T))
        with bucket.limiter_lock():
            assert bucket.put(RateItem("a", T))
            with pytest.raises(TimeoutError):
                other.acquire(timeout=0.01)
        other.acquire(timeout=1)
        other.release()
        os.remove(path + ".lock")
        assert bucket.put(RateItem("a", T))


def test_a_bucket_on_a_named_file_can_be_pickled(path):
    with opened(path, Rate(2, 1000), algorithm=FixedWindow()) as bucket:
        bucket._clock = SQLiteClock(bucket)
        bucket.put(RateItem("a", bucket.now()))
        with pickle.loads(pickle.dumps(bucket)) as copy:
            assert copy.count() == 1
            assert isinstance(copy._algorithm, FixedWindow)
            assert copy.rates == bucket.rates


class FastClock(WallClock):
    def now(self):
        return super().now() + 3_600_000


def test_a_pickled_bucket_keeps_the_clock_that_it_was_given(path):
    with opened(path, Rate(2, 1000)) as bucket:
        bucket._clock = FastClock()
        with pickle.loads(pickle.dumps(bucket)) as copy:
            assert isinstance(copy._clock, FastClock)


def test_a_wrong_argument_is_refused_before_a_file_is_made(path):
    with pytest.raises(TypeError, match="LogAlgorithm"):
        SQLiteBucket.init_from_file([Rate(1, 1)], db_path=path, algorithm=GCRA())
    with pytest.raises(ValueError, match="rates"):
        SQLiteBucket.init_from_file([], db_path=path)
    with pytest.raises(TypeError, match="table"):
        SQLiteBucket.init_from_file([Rate(1, 1)], table="", db_path=path)
    with pytest.raises(TypeError, match="Connection"):
        SQLiteBucket([Rate(1, 1)], path, "table")
    assert not os.path.exists(path)


# The log ----------------------------------------------------------------------------------------


def test_two_buckets_on_one_file_are_one_log(path):
    with opened(path) as one, opened(path) as two:
        assert one.put(RateItem("a", T))
        assert two.put(RateItem("b", T + 1))
        assert not one.put(RateItem("a", T + 2))
        assert one.waiting(RateItem("a", T + 2)) == 999
        assert not one.put(RateItem("a", T + 2))
        two.flush()
        assert one.put(RateItem("a", T + 2, 2))
        assert not two.put(RateItem("b", T + 3))


def test_a_remembered_refusal_is_forgotten_when_another_cancels(path):
    with opened(path) as one, opened(path) as two:
        assert one.put(RateItem("a", T, 2))
        reservation = two.reserve(RateItem("b", T, 2), HOUR, 0)
        assert reservation.wait_ms == 1001
        one._clock.set(T + 1500)
        assert not one.put(RateItem("a", T + 1500))
        assert not one.put(RateItem("a", T + 1500))
        assert two.cancel(reservation) is True
        assert one.put(RateItem("a", T + 1501))


def test_a_remembered_refusal_is_forgotten_when_its_units_are_leaked(path):
    with opened(path) as bucket:
        assert bucket.put(RateItem("a", T, 2))
        assert not bucket.put(RateItem("a", T + 1))
        assert bucket.leak(T + 1001) == 2
        assert bucket.put(RateItem("a", T + 1))


def test_the_log_stays_bounded_when_nobody_leaks_it(path):
    with opened(path, Rate(100, 1000)) as bucket:
        for step in range(600):
            assert bucket.put(RateItem("a", T + step * 1100, 10))
        assert bucket.count() < 100 + 1024 + 512
        assert rows(path)[-1][2] == T + 599 * 1100


def test_expired_units_are_counted_until_they_are_leaked(path):
    with opened(path, Rate(100, 3000)) as bucket:
        assert bucket.put(RateItem("a", T, 100))
        assert bucket.put(RateItem("a", T + 3001, 100))
        assert bucket.count() == 200
        assert bucket.leak(T + 3001) == 100
        assert bucket.count() == 100
        assert bucket.leak(T + 7000) == 100
        assert bucket.count() == 0
        assert bucket.put(RateItem("a", T + 7000, 100))


def test_a_unit_that_another_bucket_leaked_is_not_there_to_peek_at(path):
    with opened(path) as one, opened(path) as two:
        for stamp in (T, T + 500, T + 1600):
            assert one.put(RateItem("a", stamp))
        assert one.count() == 3
        assert two.leak(T + 2000) == 2
        assert [one.peek(index) is None for index in range(4)] == [False, True, True, True]


def test_stamps_that_451_stored_out_of_order_are_put_in_order(path):
    with opened(path, Rate(3, 1000), Rate(4, 5000)) as bucket:
        assert bucket.put(RateItem("a", T))
        conn = sqlite3.connect(path)
        conn.execute("INSERT INTO rate_bucket VALUES ('new', ?)", (T + 300,))
        conn.execute("INSERT INTO rate_bucket VALUES ('late', ?)", (T + 200,))
        conn.commit()
        conn.close()
        assert not bucket.put(RateItem("a", T + 1000))
        assert [row[1:] for row in rows(path)] == [("a", T), ("new", T + 300), ("late", T + 300)]
        assert bucket.put(RateItem("a", T + 1001))
        assert not bucket.put(RateItem("a", T + 1300))


def test_a_gap_that_451_left_is_closed(path):
    with opened(path, Rate(4, 1000)) as bucket:
        assert bucket.put(RateItem("a", T, 4))
        conn = sqlite3.connect(path)
        conn.execute("DELETE FROM rate_bucket WHERE rowid IN (2, 3)")
        conn.commit()
        conn.close()
        with opened(path, Rate(4, 1000)) as other:
            assert other.count() == 2
            assert other.put(RateItem("b", T, 2))
            assert not other.put(RateItem("b", T))
    assert [row[0] for row in rows(path)] == [1, 2, 3, 4]


def test_a_unit_of_451_goes_before_what_is_reserved(path):
    with opened(path, Rate(2, 1000)) as bucket:
        assert bucket.put(RateItem("a", T, 2))
        reservation = bucket.reserve(RateItem("c", T, 1), HOUR, 0)
        assert reservation.wait_ms == 1001
        conn = sqlite3.connect(path)
        conn.execute("INSERT INTO rate_bucket VALUES ('old', ?)", (T + 10,))
        conn.commit()
        conn.close()
        assert not bucket.put(RateItem("a", T + 20))
        assert [row[1] for row in rows(path)] == ["a", "a", "old", "c"]
        assert bucket.cancel(reservation)
        assert [row[:2] for row in rows(path)] == [(1, "a"), (2, "a"), (3, "old")]


@pytest.mark.parametrize("weight", [1, 7])
def test_a_cancelled_reservation_in_the_middle_leaves_no_gap(path, weight):
    with opened(path, Rate(10, 1000)) as bucket:
        assert bucket.put(RateItem("a", T, 10))
        made = [bucket.reserve(RateItem(name, T, weight), HOUR, 0) for name in "xyz"]
        assert bucket.cancel(made[1])
        found = rows(path)
        assert [row[0] for row in found] == list(range(1, len(found) + 1))
        assert {row[1] for row in found} == {"a", "x", "z"}
        assert bucket.count() == 10 + 2 * weight


@pytest.mark.parametrize("live", [1_000, 100_000])
def test_many_live_rows_are_judged_exactly(path, live):
    with opened(path, Rate(live + 5, HOUR)) as bucket:
        assert bucket.put(RateItem("a", T, live))
        assert bucket.put(RateItem("a", T + 5, 5))
        refused = RateItem("a", T + 10)
        assert not bucket.put(refused)
        assert bucket.waiting(refused) == HOUR + 1 - 10
        decision = bucket.check(RateItem("a", T + 10))
        assert (decision.remaining, decision.retry_after_ms) == (0, HOUR - 9)
        assert bucket.check(RateItem("a", T + HOUR + 1)).remaining == live


# The clock --------------------------------------------------------------------------------------


def test_the_connection_of_a_clock_is_the_one_that_it_was_given(path):
    with closing(sqlite3.connect(path)) as conn:
        assert SQLiteClock(conn).conn is conn
    with SQLiteBucket.init_from_file([Rate(1, 1000)], db_path=path) as bucket:
        assert SQLiteClock(bucket).conn is bucket.conn
    with closing(SQLiteClock.default().conn) as own:
        assert own.execute("SELECT 1").fetchone() == (1,)


def test_a_path_may_be_a_uri(tmp_path):
    path = tmp_path / "calls.db"
    with pytest.raises(sqlite3.OperationalError):
        SQLiteBucket.init_from_file([Rate(1, 1000)], db_path=f"file:{path}?mode=rw")
    assert not path.exists()
    with SQLiteBucket.init_from_file([Rate(1, 1000)], db_path=f"file:{path}?mode=rwc") as bucket:
        assert bucket.put(RateItem("a", bucket.now()))
        with SQLiteBucket.init_from_file([Rate(1, 1000)], db_path=str(path)) as other:
            assert not other.put(RateItem("a", other.now()))


def test_the_clock_is_the_epoch_and_follows_frozen_time(path):
    from freezegun import freeze_time

    for clock in (SQLiteClock.default(), SQLiteClock(dedicated_sqlite_clock_connection())):
        assert abs(clock.now() - time.time() * 1000) < 1000
        if clock.conn is not None:
            asked = clock.conn.execute(clock.time_query).fetchone()[0]
            assert abs(asked - clock.now()) < 1000
            clock.conn.close()
    bucket = SQLiteBucket.init_from_file([Rate(1, 1000)], db_path=path)
    with bucket, freeze_time("2030-01-01"):
        assert bucket.now() == SQLiteClock(bucket).now() == 1_893_456_000_000


@pytest.mark.parametrize("reopen", [False, True])
def test_a_clock_that_steps_back_costs_an_interval_at_most(path, reopen):
    bucket = opened(path, Rate(3, 1000))
    assert bucket.put(RateItem("a", T, 3))
    if reopen:
        bucket.close()
        bucket = opened(path, Rate(3, 1000))
    back = T - HOUR
    bucket._clock = ManualClock(back)
    assert not bucket.put(RateItem("a", back))
    assert bucket.waiting(RateItem("a", back)) <= 1001
    assert bucket.put(RateItem("a", back + 1001, 3))
    assert not bucket.put(RateItem("a", back + 1002))
    bucket.close()


def test_a_clock_that_steps_forward_and_back_lets_one_limit_through(path):
    with opened(path, Rate(3, 1000)) as bucket:
        admitted = 0
        for now in (T, T + 1, T + HOUR, T + HOUR + 1, T + 2, T + 3, T + 4):
            bucket._clock = ManualClock(now)
            while bucket.put(RateItem("a", now)):
                admitted += 1
        assert admitted == 6


def test_a_reservation_outlives_a_step_back_of_the_clock(path):
    with opened(path, Rate(2, 1000)) as bucket:
        assert bucket.put(RateItem("a", T, 2))
        item = RateItem("b", T, 2)
        reservation = bucket.reserve(item, HOUR, 0)
        assert reservation.wait_ms == 1001
        back = T - HOUR
        bucket._clock = ManualClock(back)
        assert not bucket.put(RateItem("a", back))
        with opened(path, Rate(2, 1000), now=back) as other:
            assert other.confirm(reservation, back + 1001, HOUR).wait_ms == 0
            assert other.count() == 4
            assert not other.put(RateItem("a", back + 2000))
            assert other.put(RateItem("a", back + 2003))


def test_time_spent_waiting_for_the_file_does_not_date_a_unit_back(path):
    with opened(path, Rate(2, 1000)) as bucket:
        item = RateItem("a", T)
        bucket._clock.advance(700)
        assert bucket.reserve(item).wait_ms == 0
        assert item.timestamp == T + 700
        assert rows(path)[0][2] == T + 700


def test_a_clock_that_has_to_be_awaited_leaves_nothing_unawaited(path):
    with opened(path, Rate(1, HOUR)) as bucket:
        bucket._clock = ManualAsyncClock(T)
        limiter = Limiter(bucket)
        assert asyncio.run(limiter.try_acquire_async("a", blocking=False))
        assert not asyncio.run(limiter.try_acquire_async("a", blocking=False))
        gc.collect()  # a coroutine that was never awaited would warn


def test_a_call_that_another_process_overtakes_is_not_refused_for_being_late(path):
    class Overtaken(ManualClock):
        def now(self):
            now = super().now()
            if now == moment - 1:  # read, and then the file is somebody else's first
                self.set(moment)
                assert two.confirm(reservation, moment)
            return now

    with opened(path, Rate(2, 1000)) as one, opened(path, Rate(2, 1000)) as two:
        assert one.put(RateItem("a", T, 2))
        reservation = two.reserve(RateItem("b", T), 5000, 0)
        moment = T + reservation.wait_ms
        one._clock = Overtaken(moment - 1)
        assert one.take("c", 1) is True


@pytest.mark.parametrize("reopen", [False, True])
def test_an_older_stamp_is_not_refused_for_being_late_after_a_reservation(path, reopen):
    with opened(path, Rate(2, 1000)) as one, opened(path, Rate(2, 1000)) as two:
        assert one.put(RateItem("a", T, 2))
        reservation = one.reserve(RateItem("b", T), 5000, 0)
        moment = T + reservation.wait_ms
        assert one.confirm(reservation, moment)
        bucket = two if reopen else one
        bucket._clock.set(moment)
        assert bucket.put(RateItem("c", moment - 1))


# Connections ------------------------------------------------------------------------------------


def test_a_handed_in_connection_stays_open_and_as_it_is(path):
    conn = sqlite3.connect(path)
    conn.row_factory = sqlite3.Row
    bucket = SQLiteBucket([Rate(1, 1000)], conn, "limits")
    assert bucket.put(RateItem("a", bucket.now()))
    bucket.close()
    assert conn.execute("SELECT COUNT(*) AS n FROM limits").fetchone()["n"] == 1
    assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert not conn.in_transaction
    conn.close()


def test_a_connection_of_one_thread_works_from_any(path):
    conn = sqlite3.connect(path)
    bucket = SQLiteBucket([Rate(3, 60_000)], conn, "limits")
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", blocking=False)
    assert asyncio.run(limiter.try_acquire_async("a", blocking=False))
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(limiter.try_acquire("a", blocking=False))
    )
    thread.start()
    thread.join()
    assert answers == [True]
    assert limiter.try_acquire("a", blocking=False) is False
    assert conn.execute("SELECT COUNT(*) FROM limits").fetchone()[0] == 3
    limiter.close()
    conn.close()


def test_a_connection_may_be_used_in_another_thread_first(path):
    conn = sqlite3.connect(path)
    bucket = SQLiteBucket([Rate(1, 60_000)], conn, "limits")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(bucket.put(RateItem("a", T))))
    thread.start()
    thread.join()
    assert answers == [True]
    assert not bucket.put(RateItem("a", T))
    bucket.close()
    conn.close()


def test_a_transaction_of_the_callers_is_joined_after_a_sweep_in_another_thread(path):
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE orders (id)")
    bucket = SQLiteBucket([Rate(1, 60_000)], conn, "limits")
    bucket.busy_seconds = 1
    assert bucket.count() == 0
    thread = threading.Thread(target=bucket.leak)
    thread.start()
    thread.join()
    conn.execute("INSERT INTO orders VALUES (1)")
    assert bucket.put(RateItem("a", T))
    conn.rollback()
    assert bucket.count() == 0
    bucket.close()
    conn.close()


def test_a_transaction_of_the_callers_is_joined_while_a_sweep_waits_for_its_end(path):
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE orders (id)")
    bucket = SQLiteBucket([Rate(1, 60_000)], conn, "limits")
    assert bucket.count() == 0
    conn.execute("INSERT INTO orders VALUES (1)")
    with ThreadPoolExecutor(1) as pool:
        leaked = pool.submit(bucket.leak, T)
        with pytest.raises(FutureTimeout):
            leaked.result(timeout=0.05)
        assert bucket.put(RateItem("a", T))
        conn.commit()
        assert leaked.result(timeout=10) == 0
    assert bucket.count() == 1
    bucket.close()
    conn.close()


def test_a_connection_in_memory_says_why_another_thread_cannot_use_it():
    conn = sqlite3.connect(":memory:")
    bucket = SQLiteBucket([Rate(3, 60_000)], conn, "limits")
    assert bucket.put(RateItem("a", bucket.now()))
    with pytest.raises(UnusableConnection, match="check_same_thread=False") as caught:
        asyncio.run(Limiter(bucket).try_acquire_async("a", blocking=False))
    assert isinstance(caught.value, (PyrateError, sqlite3.ProgrammingError))
    conn.close()


def test_a_transaction_of_the_callers_is_neither_committed_nor_lost(path):
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE orders (id)")
    bucket = SQLiteBucket([Rate(1, 60_000)], conn, "limits")
    assert bucket.count() == 0
    conn.execute("INSERT INTO orders VALUES (1)")
    assert bucket.put(RateItem("a", bucket.now()))
    assert not bucket.put(RateItem("a", bucket.now()))
    assert conn.in_transaction
    conn.rollback()
    assert bucket.count() == 0
    assert bucket.put(RateItem("a", bucket.now()))
    conn.close()


def test_a_transaction_that_is_rolled_back_takes_no_table_with_it(path):
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE orders (id)")
    bucket = SQLiteBucket([Rate(1, 60_000)], conn, "limits")
    conn.execute("INSERT INTO orders VALUES (1)")
    assert bucket.put(RateItem("a", bucket.now()))
    conn.rollback()
    assert bucket.put(RateItem("a", bucket.now()))
    conn.close()


def test_a_policy_that_fails_at_the_first_use_takes_no_table_with_it(path):
    class Policy(FixedWindow):
        fails = True

        def window_start(self, rate, now):
            if self.fails:
                raise KeyError(rate)
            return super().window_start(rate, now)

    conn = sqlite3.connect(path)
    policy = Policy()
    bucket = SQLiteBucket([Rate(1, 60_000)], conn, "limits", algorithm=policy)
    with pytest.raises(KeyError):
        bucket.put(RateItem("a", bucket.now()))
    policy.fails = False
    assert bucket.put(RateItem("a", bucket.now()))
    conn.close()


# What can go wrong ------------------------------------------------------------------------------


def test_a_locked_database_is_waited_for(path):
    with opened(path) as bucket:
        other = sqlite3.connect(path, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        begun = time.monotonic()
        assert bucket.put(RateItem("a", T))
        assert time.monotonic() - begun > 0.2
        timer.join()
        other.close()


def test_a_database_that_stays_locked_is_an_error_and_no_verdict(path):
    with opened(path) as bucket:
        bucket.busy_seconds = 0.05
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseLocked, match="locked") as caught:
            bucket.put(RateItem("a", T))
        assert isinstance(caught.value, sqlite3.OperationalError)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        other.rollback()
        other.close()
        assert bucket.put(RateItem("a", T, 2))


def test_the_event_loop_goes_on_while_another_process_holds_the_file(path):
    program = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(1.0); c.rollback()"
    )
    bucket = SQLiteBucket.init_from_file([Rate(2, 60_000)], db_path=path)
    limiter = Limiter(bucket)
    holder = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)

    async def main():
        waiter = asyncio.ensure_future(limiter.try_acquire_async("a"))
        ticks = 0
        while not waiter.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks, await waiter

    assert holder.stdout.readline() == b"held\n"
    ticks, admitted = asyncio.run(main())
    holder.communicate(timeout=30)
    limiter.close()
    assert admitted is True
    assert ticks > 20


@pytest.fixture
def locked(path):
    """The file, with a bucket on it and one reservation, while somebody else keeps writing."""
    other = sqlite3.connect(path, isolation_level=None)

    def lock():
        other.execute("BEGIN IMMEDIATE")

    yield lock
    other.close()


def both_kinds(path):
    yield SQLiteBucket.init_from_file([Rate(5, 1000)], db_path=path)
    yield StateBucket([Rate(5, 1000)], store=SQLiteStateStore(path, "a"))


@pytest.mark.parametrize("kind", range(2))
def test_a_file_that_stays_locked_costs_no_more_time_than_the_caller_said(path, locked, kind):
    bucket = list(both_kinds(path))[kind]
    held = RateItem("a", bucket.now())
    reserved = bucket.reserve(held, 1000)
    assert reserved.allowed
    locked()
    begun = time.monotonic()
    item = RateItem("a", bucket.now())
    refusal = bucket.reserve(item, 100)
    assert (refusal.allowed, refusal.failing_rate, refusal.wait_ms) == (False, bucket.rates[0], 0)
    assert bucket.reserve(item, 0, None, 100).allowed is False
    assert bucket.confirm(reserved, bucket.now(), 100).allowed is False
    assert bucket.confirm(reserved, bucket.now(), 0).allowed is False
    assert bucket.cancel(reserved) is False
    for call in (bucket.reserve, bucket.put):
        with pytest.raises(DatabaseLocked, match=re.escape(path)):
            call(item)
    assert time.monotonic() - begun < 25  # each of them waited for half a minute
    assert Limiter(bucket).try_acquire("a", timeout=0.1) is False
    bucket.close()


def test_a_file_that_another_tool_has_locked_is_named_in_the_error(path, monkeypatch):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    with pytest.raises(DatabaseLocked, match=re.escape(path)):
        SQLiteBucket.init_from_file([Rate(5, 1000)], db_path=path)
    assert time.monotonic() - begun < 20
    other.close()


@pytest.mark.parametrize("kind", range(2))
def test_an_operation_that_a_signal_handler_calls_in_a_transaction_is_refused_at_once(path, kind):
    bucket = list(both_kinds(path))[kind]
    assert bucket.put(RateItem("a", bucket.now()))

    def handler(_=None):
        with pytest.raises(ReentrantCall, match="signal handler"):
            bucket.put(RateItem("a", bucket.now()))

    if kind:
        bucket.store.transact(StateRules(GCRA(), bucket.rates, bucket._clock), handler)
    else:
        with bucket._lock:
            handler()
    assert bucket.put(RateItem("a", bucket.now(), 4))
    assert not bucket.put(RateItem("a", bucket.now()))
    bucket.close()


@pytest.mark.parametrize("use_file_lock", [False, True])
def test_a_transaction_that_an_interrupted_call_has_left_is_cleared_away_by_the_next(
    path, use_file_lock
):
    with opened(path, use_file_lock=use_file_lock) as bucket, opened(path) as other:

        def interrupted():
            bucket._lock.__enter__()
            bucket._db.run("DELETE FROM rate_bucket")
            raise KeyboardInterrupt  # before anything can leave

        assert bucket.put(RateItem("a", T))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                interrupted()
            assert bucket.count() == 1
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(bucket.put, RateItem("a", T)).result(timeout=30)
        assert other.count() == 2


class InterruptedCursor:
    """Ctrl-C arrives as soon as the transaction has begun."""

    def __init__(self, cursor):
        self.connection = cursor.connection
        self.run, self.execute = cursor.execute, self.interrupted

    def interrupted(self, statement, *values):
        self.run(statement, *values)
        if statement == "BEGIN IMMEDIATE":
            self.execute = self.run
            raise KeyboardInterrupt


@pytest.mark.parametrize("use_file_lock", [False, True])
@pytest.mark.parametrize("method", ["take", "put"])
def test_an_interruption_leaves_no_transaction_open(path, method, use_file_lock):
    with opened(path, use_file_lock=use_file_lock) as bucket, opened(path) as other:
        other.busy_seconds = 0
        bucket._db._cursor = InterruptedCursor(bucket._db._cursor)
        arguments = ("a", 1) if method == "take" else (RateItem("a", T),)
        with pytest.raises(KeyboardInterrupt):
            getattr(bucket, method)(*arguments)
        assert other.put(RateItem("a", T))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(bucket.put, RateItem("a", T)).result(timeout=10)
        assert bucket.lock is None or not bucket.lock.is_locked
        assert other.count() == 2


def test_an_interruption_leaves_the_file_lock_free(path, monkeypatch):
    import fcntl

    flock = fcntl.flock

    def interrupted(fd, operation):
        flock(fd, operation)
        monkeypatch.undo()
        raise KeyboardInterrupt

    one, two = SharedFileLock(path + ".lock"), SharedFileLock(path + ".lock")
    monkeypatch.setattr(fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.acquire()
    assert two.acquire(blocking=False)
    two.release()


def test_a_read_only_database_is_an_error_and_recovers(path):
    with opened(path) as bucket:
        bucket.conn.execute("PRAGMA query_only = 1")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            bucket.put(RateItem("a", T))
        assert bucket.put(RateItem("a", T, 2))
        assert bucket.count() == 2
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    bucket = SQLiteBucket([Rate(3, 1000)], conn, "rate_bucket")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        bucket.put(RateItem("a", T))
    conn.close()


def test_a_full_database_is_an_error_and_recovers(path):
    conn = sqlite3.connect(path)
    bucket = SQLiteBucket([Rate(100_000, HOUR)], conn, "limits")
    assert bucket.put(RateItem("a", T))
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    conn.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        bucket.put(RateItem("a", T, 5000))
    assert not conn.in_transaction
    assert bucket.count() == 1
    conn.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert bucket.put(RateItem("a", T, 5000))
    assert bucket.count() == 5001
    conn.close()


def test_a_corrupt_database_is_an_error_and_recovers(path, tmp_path):
    opened(path).close()
    good = (tmp_path / "limits.db").read_bytes()
    (tmp_path / "limits.db").write_bytes(b"no database at all" * 500)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        opened(path)
    (tmp_path / "limits.db").write_bytes(good)
    with opened(path) as bucket:
        assert bucket.put(RateItem("a", T))
        other = tmp_path / "other.db"
        other.write_bytes(b"no database at all" * 500)
        saved = tmp_path / "saved.db"
        os.replace(path, saved)
        os.replace(other, path)
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError, match="not a database"):
                bucket.put(RateItem("a", T))
        os.replace(saved, path)
        assert bucket.put(RateItem("a", T))


def test_a_vanished_database_is_an_error_and_recovers(path, tmp_path):
    with opened(path) as bucket:
        assert bucket.put(RateItem("a", T))
        bucket.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.replace(path, path + ".away")
        for _ in range(2):
            with pytest.raises(DatabaseVanished, match="gone"):
                bucket.put(RateItem("a", T))
        assert not os.path.exists(path)
        os.replace(path + ".away", path)
        assert bucket.count() == 1
        os.remove(path)
        with pytest.raises(DatabaseVanished):
            bucket.count()
        bucket.flush()
        assert bucket.count() == 0
        assert bucket.put(RateItem("a", T, 2))
        assert not bucket.put(RateItem("a", T))


def test_a_file_without_a_place_is_an_error(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        SQLiteBucket.init_from_file([Rate(1, 1)], db_path=str(tmp_path / "no" / "such.db"))


# Ready made -------------------------------------------------------------------------------------


def test_ready_made_sqlite_limiters(path):
    with limiter_factory.create_sqlite_limiter(2, 60_000, db_path=path) as limiter:
        assert [limiter.try_acquire("a", blocking=False) for _ in range(3)] == [True, True, False]
    assert len(rows(path)) == 2
    with limiter_factory.create_sqlite_bucket([Rate(1, 1000)], path) as bucket:
        assert isinstance(bucket, limiter_factory.SQLiteBucket)
        assert bucket.table == "pyrate_limiter"
    with limiter_factory.create_sqlite_limiter() as limiter:
        assert limiter.try_acquire("a")


def test_the_queries_read_what_the_bucket_stores(path):
    with opened(path) as bucket:
        assert bucket.put(RateItem("a", T, 2))
        run = bucket.conn.execute
        assert run(SQLiteQueries.COUNT_ALL.format(table="rate_bucket")).fetchone() == (2,)
        assert run(SQLiteQueries.GET_FIRST_ITEM.format(table="rate_bucket")).fetchone() == ("a", T)
        assert run(SQLiteQueries.PEEK.format(table="rate_bucket", count=1)).fetchone() == ("a", T)
        assert run(SQLiteQueries.GET_LAG.format(table="rate_bucket")).fetchone()[0] > 0
