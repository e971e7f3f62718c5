"""The table, the functions, and every kind of session that they have to work in."""

import asyncio
import multiprocessing
import shutil
import sys
import tempfile
import threading

import psycopg
import pytest
from psycopg import conninfo

from pyrate_limiter import (
    FixedWindow,
    Limiter,
    PgQueries,
    PostgresBucket,
    PostgresClock,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    SlidingWindowLog,
    StateBucket,
)
from pyrate_limiter.buckets.postgres import ADMITTED, Decision, advisory_lock_id
from pyrate_limiter.errors import AlgorithmMismatch, MissingDriver, WrongType
from tests.support import postgres_fixtures as postgres
from tests.support.postgres_fixtures import HOUR, Own, admitted
from tests.support.postgres_pooler import Pooler

pool = postgres.shared_pool


def dsn(**settings):
    """The server's address, with settings of the session."""
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return conninfo.make_conninfo(postgres.dsn(), options=options)


def make_buckets(where, table, barrier, answers):
    try:
        with postgres.pool(where, size=1) as pool:
            barrier.wait()
            bucket = PostgresBucket(pool, table, [Rate(5, HOUR)])
            store = PostgresStateStore(pool, "k", table=f"ratelimit___{table}_states")
            state = StateBucket([Rate(5, HOUR)], store=store)
            answers.put((admitted(bucket, 1), admitted(state, 1)))
    except BaseException as error:  # noqa: BLE001 - the test wants to see it
        answers.put(repr(error))


def in_twenty_processes(where, table):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(20), context.Queue()
    arguments = (where, table, barrier, answers)
    processes = [context.Process(target=make_buckets, args=arguments) for _ in range(20)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=50) for _ in processes]
    for process in processes:
        process.join(20)
    assert all(isinstance(answer, tuple) for answer in got), got
    return [sum(admitted) for admitted in zip(*got)]


def test_twenty_processes_make_one_table_at_once():
    assert in_twenty_processes(postgres.dsn(), postgres.table()) == [5, 5]


def test_twenty_processes_that_may_not_make_tables_use_those_that_are_there(guest):
    role, theirs = guest
    table = table_of_4_5_1(role)
    with postgres.pool(size=1) as pool:
        PostgresStateStore(pool, "k", table=f"ratelimit___{table}_states")
    grant(f"{table}_states", role)
    assert in_twenty_processes(theirs.conninfo, table) == [5, 5]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        PostgresStateStore(theirs, "k", table=postgres.table())


def test_the_stored_format_is_that_of_4_5_1(pool):
    table = "Mixed_" + postgres.table()
    bucket = PostgresBucket(pool, table, [Rate(5, HOUR)])
    now = bucket.now()
    assert bucket.put(RateItem("a", now, 3))
    rows = postgres.execute(
        "SELECT name, weight, item_timestamp = to_timestamp("
        f"{now} / 1000.0)::timestamp FROM ratelimit___{table.lower()} WHERE weight > 0"
    )
    assert rows == [("a", 3, True)] * 3
    indexes = postgres.execute(
        f"SELECT indexname FROM pg_indexes WHERE tablename = 'ratelimit___{table.lower()}'"
    )
    assert (f"timestampindex_{table.lower()}",) in indexes
    assert advisory_lock_id("ratelimit___bbtest") == 1124555721


@pytest.mark.parametrize(
    "name", ['we ird-Na"me', "a.b", "x'; DROP TABLE y; --", "ě" * 40, "z" * 90, "%s {0} $1 $$"]
)
def test_a_table_may_have_any_name(pool, name):
    bucket = PostgresBucket(pool, name, [Rate(2, HOUR)])
    bucket.flush()
    assert admitted(bucket, 3) == 2
    assert bucket.count() == 2
    assert bucket.leak(bucket.now() + 2 * HOUR) == 2


def test_sessions_of_different_time_zones_share_the_limit():
    table, rates = postgres.table(), [Rate(4, HOUR)]
    zones = ("UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati")
    for zone in zones:
        with postgres.pool(dsn(timezone=zone), size=1) as there:
            bucket = PostgresBucket(there, table, rates)
            assert admitted(bucket, 1) == 1
            assert abs(bucket.peek(0).timestamp - bucket.now()) < 20_000
            assert bucket.leak() == 0
    with postgres.pool(size=1) as here:
        bucket = PostgresBucket(here, table, rates)
        assert admitted(bucket, 1) == 0
        assert bucket.count() == 4


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_rows_of_4_5_1_are_read_in_the_sessions_time_zone(zone):
    table = f"ratelimit___{postgres.table()}"
    with postgres.pool(dsn(timezone=zone), size=1) as there:
        with there.connection() as connection:
            connection.execute(
                f"CREATE TABLE {table} (name VARCHAR, weight SMALLINT, item_timestamp TIMESTAMP)"
            )
            connection.execute(
                f"INSERT INTO {table} SELECT 'old', 1, to_timestamp(extract(epoch FROM now()) - s)"
                " FROM generate_series(10, 30, 10) s"
            )
        bucket = PostgresBucket(there, table.removeprefix("ratelimit___"), [Rate(4, 60_000)])
        assert bucket.peek(0).name == "old"
        assert admitted(bucket, 2) == 1
        assert 25_000 < bucket.waiting(RateItem("a", bucket.now())) <= 31_000
        assert bucket.peek(0).name == "a"


def test_the_search_path_may_change_between_calls(pool):
    table, schema = postgres.table(), f"s_{postgres.table()}"
    postgres.execute(f"CREATE SCHEMA {schema}")
    with postgres.pool(dsn(search_path=schema), size=1) as there:
        bucket = PostgresBucket(there, table, [Rate(2, HOUR)])
        assert admitted(bucket, 1) == 1
        with there.connection() as connection:
            connection.execute("SET search_path TO pg_catalog")
        assert admitted(bucket, 2) == 1
    assert postgres.execute(
        f"SELECT count(*) FROM {schema}.ratelimit___{table} WHERE weight > 0"
    ) == [(2,)]
    assert admitted(PostgresBucket(pool, table, [Rate(2, HOUR)]), 3) == 2  # another table


@pytest.mark.parametrize("level", ["repeatable\\ read", "serializable"])
def test_any_default_isolation_holds_the_limit(level):
    with postgres.pool(dsn(default_transaction_isolation=level), size=2) as there:
        bucket = PostgresBucket(there, postgres.table(), [Rate(3, HOUR)])
        assert admitted(bucket, 5) == 3
        item = RateItem("a", bucket.now())
        reservation = bucket.reserve(item, 1 << 40)
        assert reservation.wait_ms
        assert bucket.cancel(reservation)
        store = PostgresStateStore(there, postgres.table())
        buckets = [
            PostgresBucket(there, postgres.table(), [Rate(12, 200)], policy())
            for policy in (SlidingWindowLog, Own)
        ]
        for bucket in (*buckets, StateBucket([Rate(12, 200)], store=store)):
            assert in_threads(Limiter(bucket), 4, 6) == [True] * 24


def test_nothing_is_kept_in_the_session(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(100, HOUR)])
    admitted(bucket, 20)
    with pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("on",)
        locks = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )
        assert connection.execute(locks).fetchone() == (0,)
        assert not connection.autocommit


@pytest.fixture
def pooler():
    folder = tempfile.mkdtemp(dir="/tmp")
    with Pooler(postgres.dsn(), folder) as pooler:
        yield pooler
    shutil.rmtree(folder)


def in_threads(limiter, callers, calls):
    answers = []

    def work():
        answers.extend(limiter.try_acquire("a", timeout=20) for _ in range(calls))

    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_a_pooler_in_transaction_mode_may_stand_between(pooler):
    with postgres.pool(pooler.dsn, size=6) as pool:
        rates = [Rate(12, 200)]
        buckets = [
            PostgresBucket(pool, postgres.table(), rates, policy())
            for policy in (SlidingWindowLog, FixedWindow, Own)
        ]
        buckets.append(StateBucket(rates, store=PostgresStateStore(pool, postgres.table())))
        for bucket in buckets:
            assert in_threads(Limiter(bucket), 6, 6) == [True] * 36
        limiter = Limiter.per_key(Rate(2, HOUR), bucket=PostgresKeys(pool, postgres.table()))
        assert [limiter.try_acquire("a", blocking=False) for _ in range(3)] == [True, True, False]
    assert_sessions_are_clean(pooler)


def test_a_pooler_in_transaction_mode_may_stand_between_tasks_and_the_server(pooler):
    async def scenario():
        pool = await postgres.async_pool(pooler.dsn, size=6)
        limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(20, 200)]))
        calls = [limiter.try_acquire_async("a", timeout=20) for _ in range(60)]
        assert await asyncio.gather(*calls) == [True] * 60
        await pool.close()

    asyncio.run(scenario())
    assert_sessions_are_clean(pooler, at_least=10)  # several tasks share one


def assert_sessions_are_clean(pooler, at_least=60):
    assert pooler.transactions > at_least
    with psycopg.connect(pooler.dsn, autocommit=True) as connection:
        for _ in range(2):  # sessions
            (left,) = connection.execute(
                "SELECT (SELECT count(*) FROM pg_prepared_statements) + "
                "(SELECT count(*) FROM pg_settings WHERE source = 'session') + "
                "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
            ).fetchone()
            assert left == 0


@pytest.fixture
def guest():
    """A role that may not create anything, and a pool of its own."""
    role = f"guest_{postgres.table()}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
    theirs = conninfo.make_conninfo(postgres.dsn(), user=role, password=role)
    with postgres.pool(theirs, size=2) as pool:
        yield role, pool


def grant(table, role):
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ratelimit___{table} TO {role}")


def table_of_4_5_1(role):
    table = postgres.table()
    postgres.execute(
        f"CREATE TABLE ratelimit___{table} "
        "(name VARCHAR, weight SMALLINT, item_timestamp TIMESTAMP)"
    )
    grant(table, role)
    return table


def test_a_guest_uses_what_others_have_made(pool, guest):
    role, theirs = guest
    table, rates = postgres.table(), [Rate(4, HOUR)]
    assert admitted(PostgresBucket(pool, table, rates), 2) == 2
    grant(table, role)
    bucket = PostgresBucket(theirs, table, rates)
    assert bucket._steps._layout.functions
    assert admitted(bucket, 3) == 2


def test_a_guest_does_without_functions(pool, guest):
    role, theirs = guest
    table, rates = postgres.table(), [Rate(4, HOUR)]
    made = PostgresBucket(pool, table, rates)
    for function in made._steps._layout.functions.values():
        postgres.execute(f"DROP FUNCTION {function}")
    grant(table, role)
    bucket = PostgresBucket(theirs, table, rates)
    assert not bucket._steps._layout.functions
    assert admitted(bucket, 5) == 4
    item = RateItem("it's $pyrate_limiter$ 100%", bucket.now(), 2)
    decision = bucket.reserve(item, 1 << 40, 0)
    assert decision.wait_ms > 0
    assert bucket.peek(0).name == item.name
    assert bucket.confirm(decision, item.timestamp + 500).allowed
    assert bucket.cancel(decision)
    assert not bucket.cancel(decision)
    assert bucket.count() == 4


@pytest.mark.parametrize("algorithm", [SlidingWindowLog(), FixedWindow()])
def test_a_guest_does_with_the_columns_of_4_5_1(guest, algorithm):
    role, theirs = guest
    table = table_of_4_5_1(role)
    bucket = PostgresBucket(theirs, table, [Rate(3, 200), Rate(5, HOUR)], algorithm)
    limiter = Limiter(bucket)
    assert limiter.acquire("a", 2).allowed
    assert all(limiter.try_acquire("a", timeout=20) for _ in range(2))
    assert not limiter.try_acquire("a", 2, timeout=0.3)
    assert bucket.count() == 4
    assert limiter.check("a").remaining == 1
    item = RateItem("b", bucket.now())
    reservation = bucket.reserve(item)
    assert bucket.failing_rate is None
    assert bucket.peek(0).name == "b"
    assert bucket.cancel(reservation)
    assert bucket.leak() == 0


def test_a_guest_without_a_table_is_told_so(guest):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        PostgresBucket(guest[1], postgres.table(), [Rate(1, 1)])


def test_wrong_arguments_are_refused_before_anything_is_made(pool, monkeypatch):
    rates = [Rate(1, 1000)]
    with pytest.raises(WrongType):
        PostgresBucket("postgres://", "t", rates)
    with pytest.raises(WrongType):
        PostgresBucket(pool, 7, rates)
    with pytest.raises(WrongType):
        PostgresBucket(pool, "t", rates, on_error="shrug")
    with pytest.raises(AlgorithmMismatch):
        PostgresBucket(pool, "t", rates, object())
    with pytest.raises(ValueError, match="rate"):
        PostgresBucket(pool, "t", [])
    with pytest.raises(WrongType):
        PostgresStateStore(pool, b"key")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDriver, match=r"pip install .pyrate-limiter\[postgres\]"):
        PostgresBucket(pool, "t", rates)


def test_the_clock_is_the_servers(pool, caplog):
    clock = PostgresClock(pool)
    (there,) = postgres.execute(
        "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    )[0]
    assert 0 <= clock.now() - there < 20_000
    closed = postgres.pool()
    closed.close()
    assert abs(PostgresClock(closed).now() - clock.now()) < 20_000
    assert "clock cannot be read" in caplog.text


def test_a_policy_of_ones_own_is_obeyed(pool):
    class Half(SlidingWindowLog):
        def admit(self, rates, counts, weight):
            return super().admit(rates, [2 * count for count in counts], weight)

    bucket = PostgresBucket(pool, postgres.table(), [Rate(4, HOUR)], Half())
    assert admitted(bucket, 5) == 2


def test_a_policy_of_ones_own_may_say_never(pool):
    class Never(SlidingWindowLog):
        def decide(self, rates, counts, weight, now, peek_timestamp):
            return Decision(rates[0]) if weight > 1 else ADMITTED

    limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(4, HOUR)], Never()))
    assert limiter.try_acquire("a")
    assert not limiter.try_acquire("a", 2)
    assert limiter.acquire("a", 2).retry_after_ms is None


@pytest.mark.parametrize("policy", [SlidingWindowLog, FixedWindow, Own])
def test_the_table_is_bounded_when_nobody_leaks(pool, policy):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(200, 1000)], policy())
    now = bucket.now()
    for step in range(30):
        assert bucket.put(RateItem("a", now + 1001 * step, 200))
    assert 200 <= bucket.count() <= 200 + 1024 + 2 * 256 + 400


@pytest.mark.parametrize("policy", [SlidingWindowLog, Own])
def test_the_table_of_many_names_is_bounded_when_nobody_leaks(pool, policy):
    keys = PostgresKeys(pool, postgres.table(), algorithm=policy())
    bucket = keys.keyed(Rate(50, 1000))
    now = bucket.now()
    for step in range(150):  # no name comes twice
        assert bucket.put(RateItem(f"name {step}", now + 1001 * step, 50))
    assert bucket.count() < 5000


def test_a_pool_that_is_too_small_is_shared_in_turn():
    with postgres.pool(size=1) as pool:
        bucket = PostgresBucket(pool, postgres.table(), [Rate(20, 200)])
        assert in_threads(Limiter(bucket), 8, 4) == [True] * 32


def test_looking_at_an_empty_bucket_of_two_rates(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(3, 200), Rate(5, HOUR)])
    decision = Limiter(bucket).check("a")
    assert (decision.remaining, decision.reset_after_ms) == (3, 0)


def test_windows_on_a_table_of_4_5_1_are_aligned_to_the_clock(guest):
    role, theirs = guest
    table = table_of_4_5_1(role)
    bucket = PostgresBucket(theirs, table, [Rate(3, 1000), Rate(4, HOUR)], FixedWindow())
    edge = (bucket.now() // HOUR + 2) * HOUR
    assert bucket.put(RateItem("a", edge + 900, 3))
    item = RateItem("a", edge + 901)
    assert not bucket.put(item)
    assert bucket.failing_rate == Rate(3, 1000)
    assert bucket.waiting(item) == 99
    assert bucket.put(RateItem("a", edge + 1000))
    item = RateItem("a", edge + 1001)
    assert not bucket.put(item)
    assert bucket.failing_rate == Rate(4, HOUR)
    assert bucket.waiting(item) == HOUR - 1001
    assert bucket.check(RateItem("a", edge + HOUR)).remaining == 3
    bucket.flush()
    assert all(bucket.put(RateItem(name, edge + 2 * HOUR)) for name in "abc")
    assert sorted(bucket.peek(place).name for place in range(3)) == list("abc")


def test_a_clock_that_steps_back_costs_one_interval_at_most(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(3, 10_000)])
    now = bucket.now() + 10 * HOUR
    assert bucket.put(RateItem("a", now, 3))
    back = now - HOUR
    assert not bucket.put(RateItem("a", back))
    assert not bucket.put(RateItem("a", back + 10_000))
    assert bucket.put(RateItem("a", back + 10_001, 3))
    assert not bucket.put(RateItem("a", back + 10_002))
    ahead = back + 2 * HOUR
    assert bucket.put(RateItem("a", ahead, 3))
    assert not bucket.put(RateItem("a", ahead + 10_000))


def test_an_older_stamp_that_arrives_second_is_stored_as_the_newest(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(3, 10_000)])
    now = bucket.now()
    assert bucket.put(RateItem("first", now))
    assert bucket.put(RateItem("second", now - 50))
    assert bucket.peek(0).name == "second"
    assert bucket.peek(0).timestamp == now


def test_a_cancelled_reservation_closes_its_gap(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(4, 10_000)])
    now = bucket.now()
    assert bucket.put(RateItem("a", now, 2))
    items = [RateItem(f"c{number}", now, 2) for number in range(4)]
    made = [bucket.reserve(item, 1 << 40, 0) for item in items]
    assert [reservation.wait_ms for reservation in made] == [0, 10_001, 10_001, 20_002]
    assert bucket.cancel(made[1])
    assert numbered(bucket) == [1, 3, 5, 7]
    assert bucket.reserve(RateItem("d", now, 2), 1 << 40, 0).wait_ms == 10_001
    assert bucket.reserve(RateItem("e", now, 2), 1 << 40, 0).wait_ms == 20_002
    assert numbered(bucket) == [1, 3, 5, 7, 9, 11]


def numbered(bucket):
    """The number of the first unit of each acquisition."""
    rows = postgres.execute(f"SELECT seq FROM {bucket.table} WHERE units > 0 ORDER BY seq")
    return [number for (number,) in rows]


def test_a_refusal_is_remembered_until_another_is_cancelled(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)])
    limiter = Limiter(bucket)
    item = RateItem("a", bucket.stamp())
    reservation = bucket.reserve(item)
    assert not limiter.try_acquire("b", blocking=False)
    assert bucket.cancel(reservation)
    assert limiter.try_acquire("b", blocking=False)


def test_states_survive_in_the_table(pool):
    key = postgres.table() + " it's $1 %s"
    first = StateBucket([Rate(4, HOUR)], store=PostgresStateStore(pool, key))
    assert admitted(first, 5) == 4
    second = StateBucket([Rate(4, HOUR)], store=PostgresStateStore(pool, key))
    assert admitted(second, 1) == 0
    assert second.count() == 4
    other = StateBucket([Rate(4, HOUR)], store=PostgresStateStore(pool, key + "x"))
    assert admitted(other, 1) == 1
    first.flush()
    assert admitted(second, 1) == 1


def test_queries_fit_the_table(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(9, HOUR)])
    table = f'"{bucket.table}"'
    with pool.connection() as connection:
        connection.execute(PgQueries.PUT.format(table=table), ("a", 1, bucket.now() / 1000))
        count = connection.execute(PgQueries.COUNT.format(table=table))
        assert count.fetchone() == (2,)  # the unit, and a note of how far back the bucket looks
        row = connection.execute(PgQueries.PEEK.format(table=table, offset=0)).fetchone()
        assert row[:2] == ("a", 1)
        connection.commit()
        assert row[2] == bucket.peek(0).timestamp
        connection.execute(PgQueries.FLUSH.format(table=table))
    assert bucket.count() == 0
