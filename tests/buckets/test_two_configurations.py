"""Programs with different rates on the same data, as during a deploy: neither hurts the other."""

import contextlib
import multiprocessing
import subprocess
import sys
import time

import psycopg
import pytest
from psycopg import conninfo

from pyrate_limiter import (
    FixedWindow,
    InMemoryStateStore,
    Limiter,
    MultiprocessBucket,
    MultiprocessStateStore,
    PgQueries,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    RedisStateStore,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.testing import ManualClock
from tests.support import postgres_fixtures as postgres
from tests.support.postgres_fixtures import HOUR, Own
from tests.support.redis_servers import fresh_key, shared_url, sync_client

MANY = 4_000
LONG = [Rate(MANY, HOUR)]
SHORT = [Rate(200, 50)]

pool = postgres.shared_pool


def fill(bucket, moment):
    """Use all that the long rates allow, by the short ones, so that these clean up many times."""
    for _ in range(MANY // 200):
        assert bucket.put(RateItem("a", moment, 200))
        moment += 60
        if isinstance(bucket._clock, ManualClock):
            bucket._clock.advance(60)
    return moment


def assert_counted(long, short, moment):
    """What the short rates have admitted counts for the long ones, whoever sweeps."""
    end = fill(short, moment)
    assert not long.put(RateItem("a", end))
    assert short.leak(end + HOUR // 2) == 0
    assert not long.put(RateItem("a", end + HOUR // 2))
    assert long.count() == MANY
    assert long.leak(end + HOUR + 1) == MANY


@contextlib.contextmanager
def on_any_table(pool):
    yield pool, postgres.table()


@contextlib.contextmanager
def without_functions(pool):
    """A role that may use the table and not the functions."""
    table = postgres.table()
    made = PostgresBucket(pool, table, LONG)
    for function in made._steps._layout.functions.values():
        postgres.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    with role(f"SELECT, INSERT, UPDATE, DELETE ON ratelimit___{table}") as theirs:
        yield theirs, table


@contextlib.contextmanager
def without_update(pool):
    table = postgres.table()
    PostgresBucket(pool, table, LONG)
    with role(f"SELECT, INSERT, DELETE ON ratelimit___{table}") as theirs:
        yield theirs, table


@contextlib.contextmanager
def of_4_5_1(pool):
    """A table with the columns of 4.5.1, and a role that may not alter it."""
    del pool
    table = postgres.table()
    postgres.execute(
        f"CREATE TABLE ratelimit___{table} "
        "(name VARCHAR, weight SMALLINT, item_timestamp TIMESTAMP)"
    )
    with role(f"SELECT, INSERT, DELETE ON ratelimit___{table}") as theirs:
        yield theirs, table


@contextlib.contextmanager
def role(rights):
    name = f"role_{postgres.table()}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'; GRANT {rights} TO {name}")
    theirs = conninfo.make_conninfo(postgres.dsn(), user=name, password=name)
    with postgres.pool(theirs, size=2) as theirs:
        yield theirs


def on_server(pool, table, rates):
    return PostgresBucket(pool, table, rates)


def by_windows(pool, table, rates):
    return PostgresBucket(pool, table, rates, FixedWindow())


def by_own_policy(pool, table, rates):
    return PostgresBucket(pool, table, rates, Own())


def by_name(pool, table, rates):
    return PostgresKeys(pool, table).keyed(rates)


@pytest.mark.parametrize("make", [on_server, by_windows, by_own_policy, by_name])
@pytest.mark.parametrize(
    "where", [on_any_table, without_functions, without_update, of_4_5_1], ids=lambda it: it.__name__
)
def test_in_postgres_the_shorter_rates_keep_what_the_longer_count(pool, where, make):
    with where(pool) as (theirs, table):
        long, short = make(theirs, table, LONG), make(theirs, table, SHORT)
        assert_counted(long, short, long.now() // HOUR * HOUR + HOUR)


def notes(table):
    """How far back programs look, of those whose notes are in the table."""
    return sorted(
        int(name.split()[3])
        for (name,) in postgres.execute(f"SELECT name FROM ratelimit___{table} WHERE weight = 0")
    )


def let_notes_run_out(table):
    postgres.execute(
        f"UPDATE ratelimit___{table} SET name = regexp_replace(name, '[0-9]+$', '1') "
        "WHERE weight = 0"
    )


def test_who_is_gone_for_longer_than_it_looked_back_is_forgotten(pool):
    table = postgres.table()
    long = on_server(pool, table, LONG)
    end = fill(on_server(pool, table, SHORT), long.now())
    let_notes_run_out(table)
    short = on_server(pool, table, SHORT)
    assert notes(table) == [50]
    assert short.leak(end + 60) == MANY
    assert short.count() == 0


def test_one_note_stands_for_all_that_look_back_as_far_and_outlives_a_flush(pool):
    table = postgres.table()
    for _ in range(3):
        on_server(pool, table, LONG)
        by_windows(pool, table, LONG)
        by_own_policy(pool, table, SHORT).flush()
    assert notes(table) == [50, HOUR - 1, HOUR]


def test_calls_that_are_refused_and_the_sweep_renew_the_note(pool, monkeypatch):
    table = postgres.table()
    bucket = on_server(pool, table, [Rate(1, HOUR)])
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", blocking=False)
    monkeypatch.setattr("pyrate_limiter.buckets.postgres.lookback.AGAIN_MS", 0)
    bucket.rates = [Rate(1, 2 * HOUR)]
    for use in (lambda: limiter.try_acquire("a", blocking=False), bucket.leak):
        let_notes_run_out(table)
        assert not use()
        assert notes(table) == [2 * HOUR]


def test_who_cannot_note_it_in_time_goes_on_and_does_so_later(pool, monkeypatch):
    table = postgres.table()
    bucket = on_server(pool, table, LONG)
    let_notes_run_out(table)
    monkeypatch.setattr("pyrate_limiter.buckets.postgres.lookback._SOON_SECONDS", 0)
    bucket.rates = LONG
    with psycopg.connect(postgres.dsn()) as holder:
        holder.execute(f"LOCK TABLE ratelimit___{table} IN EXCLUSIVE MODE")
        assert not Limiter(bucket).try_acquire("a", timeout=0.01)
    assert notes(table) == [HOUR]  # that which has run out
    assert bucket.put(RateItem("a", bucket.now()))
    assert postgres.execute(
        f"SELECT count(*) FROM ratelimit___{table} WHERE weight = 0 AND name !~ ' 1$'"
    ) == [(1,)]


def test_a_role_that_may_not_delete_goes_on(pool):
    table = postgres.table()
    on_server(pool, table, [Rate(2, HOUR)])
    with role(f"SELECT, INSERT, UPDATE ON ratelimit___{table}") as theirs:
        assert postgres.admitted(on_server(theirs, table, [Rate(2, HOUR)]), 3) == 2


def test_what_4_5_1_looks_at_is_as_without_a_note(pool):
    table = postgres.table()
    bucket = on_server(pool, table, [Rate(2, HOUR)])
    assert postgres.admitted(bucket, 3) == 2
    peek, window = PgQueries.PEEK, PgQueries.COUNT_WINDOW
    name = f'"{bucket.table}"'
    (newest,) = postgres.execute(peek.format(table=name, offset=0))
    assert newest[0] == "a"
    assert postgres.execute(window.format(table=name, timestamp=0)) == [(2,)]
    assert len(postgres.execute(peek.format(table=name, offset=2))) == 1  # the note, the oldest


PROGRAM = """
import contextlib
import sys
from psycopg_pool import ConnectionPool
from pyrate_limiter import Limiter, PostgresBucket, Rate, SQLiteBucket

kind, where, table, limit, interval, weight, calls = sys.argv[1:]
rate = Rate(int(limit), int(interval))
with contextlib.ExitStack() as stack:
    if kind == "postgres":
        pool = stack.enter_context(ConnectionPool(where, min_size=1, open=True))
        bucket = PostgresBucket(pool, table, rate)
    else:
        bucket = stack.enter_context(SQLiteBucket.init_from_file(rate, table, where))
    limiter = Limiter(bucket)
    if len(sys.stdin.readline()) > 1:
        limiter.try_acquire("first")
    print("ready", flush=True)
    blocking = sys.stdin.readline() == "wait\\n"
    got = [limiter.try_acquire("a", int(weight), blocking) for _ in range(int(calls))]
    print(sum(got), bucket.leak(), flush=True)
"""


def program(*arguments):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_in_a_deploy_the_old_processes_count_what_the_new_have_used(tmp_path, kind):
    table = postgres.table()
    where = postgres.dsn() if kind == "postgres" else tmp_path / "limits.db"
    with (
        program(kind, where, table, 2001, HOUR, 1, 1) as old,
        program(kind, where, table, 200, 30, 200, 10) as new,
    ):
        old.stdin.write("first\n")
        old.stdin.flush()
        assert old.stdout.readline() == "ready\n"
        assert new.communicate("\nwait\n")[0] == "ready\n10 0\n"
        assert old.communicate("at once\n")[0] == "0 0\n"


def in_a_file(path, rates):
    return SQLiteBucket.init_from_file(rates, db_path=str(path))


def by_windows_in_a_file(path, rates):
    return SQLiteBucket.init_from_file(rates, db_path=str(path), algorithm=FixedWindow())


def by_own_policy_in_a_file(path, rates):
    return SQLiteBucket.init_from_file(rates, db_path=str(path), algorithm=Own())


def by_name_in_a_file(path, rates):
    return SQLiteBucket.per_key(path).keyed(rates).bucket("a")


@pytest.mark.parametrize(
    "make", [in_a_file, by_windows_in_a_file, by_own_policy_in_a_file, by_name_in_a_file]
)
def test_in_sqlite_the_shorter_rates_keep_what_the_longer_count(tmp_path, make):
    long, short = make(tmp_path / "limits.db", LONG), make(tmp_path / "limits.db", SHORT)
    start = long.now() // HOUR * HOUR + HOUR
    assert long.check(RateItem("a", start)).allowed
    assert long.put(RateItem("a", start, 1))
    assert long.cancel(Reservation(RateItem("a", start, 1)))
    assert_counted(long, short, start)


def test_in_sqlite_the_sweep_of_one_name_or_all_heeds_the_longer(tmp_path):
    path = tmp_path / "limits.db"
    long, short = (SQLiteBucket.per_key(path).keyed(rates) for rates in (LONG, SHORT))
    now = long.bucket("a").now()
    assert long.bucket("a").put(RateItem("a", now - 1000, 20))
    assert short.bucket("a").put(RateItem("a", now, 20))
    assert short._logs.leak() == 0
    assert short.bucket("a").leak(now + 100) == 0
    assert long.bucket("a").count() == 40
    short.close()
    long.close()


def test_in_sqlite_who_is_gone_for_longer_than_it_looked_back_is_forgotten(tmp_path):
    path = tmp_path / "limits.db"
    long, short = in_a_file(path, [Rate(5, 1000)]), in_a_file(path, [Rate(5, 50)])
    now = long.now()
    assert long.put(RateItem("a", now))
    assert short.put(RateItem("a", now + 500))
    assert short.leak(now + 1001) == 1
    assert short.put(RateItem("a", now + 181_001))  # it was looked back as far as that no more
    assert short.leak(now + 181_100) == 1 + 1
    rows = short.conn.execute("SELECT back FROM pyrate_limiter_lookbacks").fetchall()
    assert rows == [(50,)]


def test_rates_that_are_changed_are_noted(tmp_path):
    path = tmp_path / "limits.db"
    changed, short = in_a_file(path, SHORT), in_a_file(path, SHORT)
    now = changed.now()
    assert changed.put(RateItem("a", now))
    changed.rates = LONG
    assert changed.put(RateItem("a", now + 1))
    assert short.leak(now + 1000) == 0


def in_shared_memory(rates, other=None):
    if other is None:
        return MultiprocessBucket.init(rates)
    return MultiprocessBucket(rates, other.items, other.mp_lock)


def by_windows_in_shared_memory(rates, other=None):
    if other is None:
        return MultiprocessBucket.init(rates, FixedWindow())
    return MultiprocessBucket(rates, other.items, other.mp_lock, FixedWindow())


@pytest.mark.parametrize("make", [in_shared_memory, by_windows_in_shared_memory])
def test_in_shared_memory_the_shorter_rates_keep_what_the_longer_count(make):
    with make(LONG) as long:
        short = make(SHORT, long)
        start = HOUR
        long._clock = short._clock = ManualClock(start)
        assert long.put(RateItem("a", start))
        assert long.cancel(Reservation(RateItem("a", start)))
        assert_counted(long, short, start)


def test_in_a_managers_list_the_shorter_rates_keep_what_the_longer_count():
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        items, lock = manager.list(), context.RLock()
        long, short = (
            MultiprocessBucket([Rate(9, interval)], items, lock) for interval in (HOUR, 50)
        )
        now = long.now()
        assert long.put(RateItem("a", now, 4))
        assert short.put(RateItem("a", now + 1000, 5))
        assert short.leak(now + 2000) == 0
        fresh = MultiprocessBucket([Rate(9, 50)], items, lock)
        assert fresh.leak(now + 2000) == 0
        assert not long.put(RateItem("a", now + 2000))


def test_in_shared_memory_a_note_outlives_snapshots_flushes_and_failed_steps():
    with in_shared_memory([Rate(9_000, HOUR)]) as long:
        short = in_shared_memory([Rate(9_000, 50)], long)
        now = long.now()
        assert long.put(RateItem("a", now))
        long.flush()
        for step in range(8000):  # more than the records between two snapshots
            assert short.put(RateItem("a", now + 60 * step))
        generation, *_ = short._items.file.header()
        assert generation > 2
        assert in_shared_memory([Rate(1, 50)], long).leak(now + 60 * 8000) == 0
        assert long.count() == 8000


def use_by_short_rates(bucket):
    bucket.rates = [Rate(200, 30)]
    limiter = Limiter(bucket)
    for _ in range(10):
        limiter.try_acquire("a", 200)
    time.sleep(0.05)
    bucket.leak()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_shared_memory_a_child_with_shorter_rates_keeps_what_its_parent_counts(method):
    with MultiprocessBucket.init([Rate(2001, HOUR)]) as bucket:
        limiter = Limiter(bucket)
        assert limiter.try_acquire("first")
        context = multiprocessing.get_context(method)
        child = context.Process(target=use_by_short_rates, args=(bucket,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert bucket.count() == 2001
        assert not limiter.try_acquire("a", blocking=False)


def test_in_shared_memory_who_is_gone_is_forgotten_and_changed_rates_are_noted():
    with in_shared_memory([Rate(5, 1000)]) as long:
        short = in_shared_memory([Rate(5, 50)], long)
        now = long.now()
        assert long.put(RateItem("a", now))
        assert short.put(RateItem("a", now + 500))
        assert short.leak(now + 1001) == 1
        assert short.put(RateItem("a", now + 181_001))
        assert short.leak(now + 181_100) == 1 + 1
        short.rates = [Rate(5, HOUR)]
        assert short.put(RateItem("a", now + 182_000))
        assert in_shared_memory([Rate(5, 50)], long).leak(now + 183_000) == 0


@contextlib.contextmanager
def in_one_store(_):
    store = InMemoryStateStore()
    yield lambda: store


@contextlib.contextmanager
def in_shared_numbers(_):
    store = MultiprocessStateStore.init()
    yield lambda: MultiprocessStateStore(store._values, store.lock)
    store.close()


@contextlib.contextmanager
def in_a_row_of_a_file(path):
    yield lambda: SQLiteStateStore(path / "limits.db", "k")


@contextlib.contextmanager
def in_a_row_of_postgres(_):
    table = postgres.table()
    with postgres.pool(size=1) as pool:
        yield lambda: PostgresStateStore(pool, table)


@contextlib.contextmanager
def in_redis(_):
    key = fresh_key()
    with sync_client(shared_url()) as client:
        yield lambda: RedisStateStore(client, key)


@pytest.mark.parametrize(
    "where", [in_one_store, in_shared_numbers, in_a_row_of_a_file, in_a_row_of_postgres, in_redis]
)
def test_a_rate_that_a_deploy_adds_to_a_state_holds_and_is_not_lost(tmp_path, where):
    with where(tmp_path) as store:
        clock = ManualClock(HOUR)
        old = StateBucket([Rate(5, 1000)], store=store(), clock=clock)
        new = StateBucket([Rate(5, 1000), Rate(10, HOUR)], store=store(), clock=clock)
        assert old.put(RateItem("a", clock.now()))
        admitted = 0
        for _ in range(30):
            clock.advance(1000)
            admitted += new.put(RateItem("a", clock.now()))
            assert old.put(RateItem("a", clock.now()))
        assert admitted == 10
        decision = new.check(RateItem("a", clock.now()))
        assert decision.failing_rate == Rate(10, HOUR)
        item = RateItem("a", clock.now())
        assert old.reserve(item, 1000, 0).allowed
        assert not new.put(RateItem("a", clock.now()))
        assert new.count() == 10
