"""What a limiter does to its server and to other programs there, and what is no outage."""

import asyncio
import contextlib
import itertools
import logging
import threading
import time

import psycopg
import psycopg_pool
import pytest
from psycopg import conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from pyrate_limiter import (
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    StateBucket,
)
from pyrate_limiter.buckets.postgres import session as postgres_session
from pyrate_limiter.buckets.postgres.exchange import silence
from pyrate_limiter.testing import ManualClock
from tests.support import postgres_fixtures as postgres
from tests.support.callers import KINDS, AtPostgres
from tests.support.postgres_fixtures import HOUR, eventually, every_kind
from tests.support.postgres_server import PostgresServer

server = postgres.own_server
pool = postgres.own_pool
patient = postgres.patient


def ask(bucket, **terms):
    return Limiter(bucket).try_acquire("a", **(terms or {"blocking": False}))


def holding(server, bucket):
    """Statements that hold up everybody who wants to change the bucket."""
    if isinstance(bucket, StateBucket):
        return f"SELECT FROM {bucket.store._row._table} FOR UPDATE"
    return f"LOCK TABLE {bucket.table} IN EXCLUSIVE MODE"


@contextlib.contextmanager
def limited(bucket, seconds):
    """Meanwhile a call may take so long; else it may take its time, on a busy machine."""
    link = bucket.store._session if isinstance(bucket, StateBucket) else bucket._session
    link.call_timeout = seconds
    try:
        yield
    finally:
        link.call_timeout = None


def sessions(server):
    """What others than this one are there, without those of the server itself."""
    return server.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )[0][0]


def active(server):
    return server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
        "AND state = 'active' AND pid <> pg_backend_pid()"
    )[0][0]


@pytest.mark.parametrize("kind", range(4))
def test_the_servers_work_for_a_call_ends_with_its_time(server, pool, kind):
    bucket = [*every_kind(pool, [Rate(900, HOUR)])][kind]
    assert ask(bucket)
    most = []
    with psycopg.connect(server.dsn) as holder, limited(bucket, 0.3):
        holder.execute(holding(server, bucket))
        for _ in range(12):
            with pytest.raises(psycopg.OperationalError):
                ask(bucket)
            most.append(sessions(server))
        eventually(lambda: active(server) == 0, 5)
    assert max(most) <= 3 + 2 + 1  # the pool, one that it replaces, the holder
    assert ask(bucket)


def test_the_servers_work_for_tasks_ends_with_them(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=3)
        kinds = [*every_kind(pool, [Rate(900, HOUR)])]
        assert all([await Limiter(bucket).try_acquire_async("a") for bucket in kinds])
        for bucket in kinds:
            async with await psycopg.AsyncConnection.connect(server.dsn) as holder:
                await holder.execute(holding(server, bucket))
                for _ in range(4):
                    asking = [
                        asyncio.ensure_future(Limiter(bucket).try_acquire_async("a"))
                        for _ in range(3)
                    ]
                    await asyncio.sleep(0.1)
                    for one in asking:
                        one.cancel()
                    await asyncio.wait(asking)
                    assert sessions(server) <= 3 + 3 + 1 + 1
                await asyncio.to_thread(eventually, lambda: active(server) == 0, 10)
        await pool.close()

    asyncio.run(scenario())


def test_tasks_go_on_without_the_server_and_ask_it_beside_themselves(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=2, reconnect_timeout=60)
        kinds = [*every_kind(pool, [Rate(2, HOUR)], on_error="allow")]
        limiters = [Limiter(bucket) for bucket in kinds]
        assert all([await limiter.try_acquire_async("a") for limiter in limiters])
        server.stop()
        try:
            began, asked = time.monotonic(), 0
            while time.monotonic() - began < 2:
                for limiter in limiters:
                    assert await limiter.try_acquire_async("a", blocking=False)
                    asked += 1
                await asyncio.sleep(0.001)
            assert asked > 100  # finding it out takes half a second, and a probe too
        finally:
            server.start()
        async with pool.connection(timeout=30):  # the pool has one again
            pass
        deadline = time.monotonic() + 30
        for limiter in limiters:
            while await limiter.try_acquire_async("a", blocking=False):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        await pool.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", range(4))
def test_a_lock_that_is_held_for_longer_than_the_call_may_take_is_no_outage(server, pool, kind):
    bucket = [*every_kind(pool, [Rate(2, HOUR)], on_error="allow")][kind]
    assert ask(bucket)
    with psycopg.connect(server.dsn) as holder, limited(bucket, 1):
        holder.execute(holding(server, bucket))
        with pytest.raises(psycopg.errors.OperationalError):
            ask(bucket)
    assert [ask(bucket) for _ in range(2)] == [True, False]


@pytest.mark.usefixtures("patient")
def test_a_pool_that_the_application_keeps_busy_is_no_outage(server):
    with postgres.pool(server.dsn, size=1) as pool:
        for bucket in every_kind(pool, [Rate(2, HOUR)], on_error="allow"):
            assert ask(bucket)
            connection = pool.getconn()
            threading.Timer(1.5, pool.putconn, [connection]).start()
            assert ask(bucket)  # it waits, for it does not know of anything else
            assert not ask(bucket)
            connection = pool.getconn()
            began = time.monotonic()
            with pytest.raises(PoolTimeout):
                ask(bucket, timeout=0.2)
            assert time.monotonic() - began < 10
            pool.putconn(connection)


@pytest.mark.usefixtures("patient")
def test_tasks_wait_for_a_pool_that_the_application_keeps_busy(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=1)
        bucket = PostgresBucket(pool, postgres.table(), [Rate(2, HOUR)], on_error="allow")
        limiter = Limiter(bucket)
        assert await limiter.try_acquire_async("a")
        async with pool.connection():
            asking = asyncio.ensure_future(limiter.try_acquire_async("a", blocking=False))
            await asyncio.sleep(1.2)
            assert not asking.done()
        assert await asking
        assert not await limiter.try_acquire_async("a", blocking=False)
        await pool.close()

    asyncio.run(scenario())


if tuple(map(int, psycopg_pool.__version__.split(".")[:2])) >= (3, 3):

    def test_a_busy_pool_that_makes_its_address_anew_is_no_outage(server):
        options = {"connect_timeout": 20}
        with postgres.pool(lambda: server.dsn, size=1, kwargs=lambda: options) as pool:
            bucket = PostgresBucket(pool, postgres.table(), [Rate(2, HOUR)], on_error="allow")
            with pool.connection(), pytest.raises(PoolTimeout):
                ask(bucket, timeout=1)
            assert [ask(bucket) for _ in range(3)] == [True, True, False]

    def test_a_busy_pool_that_awaits_its_address_is_no_outage(server):
        async def where():
            await asyncio.sleep(0)
            return server.dsn

        async def scenario():
            pool = await postgres.async_pool(where, size=1)
            bucket = PostgresBucket(pool, postgres.table(), [Rate(2, HOUR)], on_error="allow")
            limiter = Limiter(bucket)
            assert await limiter.try_acquire_async("a")
            async with pool.connection():
                with pytest.raises(PoolTimeout):
                    await limiter.try_acquire_async("a", timeout=1)
            answers = [await limiter.try_acquire_async("a", blocking=False) for _ in range(2)]
            assert answers == [True, False]
            await pool.close()

        asyncio.run(scenario())


@pytest.fixture
def guarded():
    """A server that asks for passwords, and a pool of a user that has one."""
    server = PostgresServer()
    try:
        server.execute("CREATE ROLE app LOGIN PASSWORD 'old'")
        server.execute("CREATE SCHEMA AUTHORIZATION app")
        server.ask_for_passwords("app")
        dsn = conninfo.make_conninfo(server.dsn, user="app", password="old")
        with ConnectionPool(dsn, min_size=1, max_size=2, open=True, timeout=2) as pool:
            yield server, pool
    finally:
        server.close()


def go_on_asking(ask):
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        ask()
        time.sleep(0.02)


@pytest.mark.usefixtures("patient")
def test_who_does_not_know_the_password_gets_no_bucket(guarded):
    wrong = conninfo.make_conninfo(guarded[0].dsn, user="app", password="wrong")
    with ConnectionPool(wrong, min_size=1, open=True, timeout=1.2) as pool:
        with pytest.raises(PoolTimeout):
            PostgresBucket(pool, "wrong", [Rate(1, HOUR)], on_error="allow")
        with pytest.raises(PoolTimeout):
            PostgresStateStore(pool, "wrong", on_error="allow")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_password_that_changes_meanwhile_is_no_outage_for_long(guarded, is_async):
    server, pool = guarded
    with contextlib.closing(AtPostgres(is_async, pool.conninfo, most=1)) as callers:
        limiters = [
            callers.limiter(kind, Rate(2, HOUR), postgres.table(), on_error="allow")
            for kind in KINDS
        ]

        def ask(limiter):
            return callers.call(lambda: limiter.try_acquire("a", timeout=0.5))

        assert all(map(ask, limiters))
        server.execute("ALTER ROLE app PASSWORD 'new'")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        )
        with pytest.raises(PoolTimeout):  # it cannot be told at once from a server that goes down
            go_on_asking(lambda: ask(limiters[0]))
        for limiter in limiters * 2:
            with pytest.raises(PoolTimeout):
                ask(limiter)


def test_a_table_that_is_gone_is_no_outage(server, pool):
    table = postgres.table()
    bucket = PostgresBucket(pool, table, [Rate(2, HOUR)], on_error="allow")
    assert ask(bucket)
    server.execute(f"ALTER TABLE {bucket.table} RENAME TO elsewhere_{table}")
    with pytest.raises(psycopg.errors.UndefinedTable):
        ask(bucket)


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(server, caplog):
    caplog.set_level(logging.WARNING, "pyrate_limiter")
    with postgres.pool(server.dsn, size=3, reconnect_timeout=60) as pool:
        buckets = [PostgresBucket(pool, postgres.table(), [Rate(9, HOUR)]) for _ in range(5)]
        buckets += [
            PostgresBucket(pool, postgres.table(), [Rate(9, HOUR)], on_error="deny")
            for _ in range(5)
        ]
        server.stop()
        try:
            for _ in range(3):
                assert [bucket.leak() for bucket in buckets] == [0] * 10
            assert not any(ask(bucket) for bucket in buckets[5:])
        finally:
            server.start()
        with pool.connection(timeout=30):  # the pool has one again
            pass
        eventually(lambda: [bucket.leak() for bucket in buckets] and "again" in caplog.text)
    told = [record for record in caplog.records if record.name == "pyrate_limiter"]
    assert len(told) == 2
    assert buckets[0].table in told[0].message
    assert [bucket.leak() for bucket in buckets] == [0] * 10  # its owner has closed the pool


@pytest.mark.parametrize("kind", range(4))
def test_asking_an_absent_server_again_costs_its_callers_nothing(server, kind):
    with postgres.pool(server.dsn, size=2, reconnect_timeout=60) as pool:
        bucket = [*every_kind(pool, [Rate(9, HOUR)], on_error="allow")][kind]
        server.stop()
        try:
            assert ask(bucket)  # this one finds it out
            began = time.monotonic()
            asked = 0
            while time.monotonic() - began < 1:
                before = time.thread_time()
                assert ask(bucket)
                assert time.thread_time() - before < 0.5
                asked += 1
            assert asked > 100  # a probe takes half a second
        finally:
            server.start()


@pytest.fixture
def lost(monkeypatch):
    """While there is something in it, calls are carried out and their answers never come."""
    exchange, lost = postgres_session.exchange, []

    def silencing(connection, text, deadline):
        answer = yield from exchange(connection, text, deadline)
        if "pyrate_limiter_reserve" in text and lost:
            connection.pgconn.finish()
            raise silence()
        return answer

    monkeypatch.setattr(postgres_session, "exchange", silencing)
    return lost


def rows_read(server, table):
    """How many rows and index entries of a table were read, by all sessions so far."""
    server.execute("SELECT pg_stat_force_next_flush()")
    return server.execute(
        "SELECT seq_tup_read + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes i "
        f"WHERE i.relid = t.relid) FROM pg_stat_user_tables t WHERE relname = '{table}'"
    )[0][0]


def settled_statistics(pool):
    """Have the session of the pool report what it has read."""
    with pool.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")


@pytest.mark.parametrize("keyed", [False, True])
def test_what_is_in_doubt_is_found_without_reading_the_log(server, lost, keyed):
    with postgres.pool(server.dsn, size=1) as pool:
        rates = [Rate(100_000, HOUR)]
        if keyed:
            bucket = PostgresKeys(pool, postgres.table()).keyed(rates)
        else:
            bucket = PostgresBucket(pool, postgres.table(), rates)
        assert bucket.put(RateItem("a", bucket.stamp()))
        lock = bucket._steps.lock("a") if keyed else "NULL"
        server.execute(
            f"INSERT INTO {bucket.table} "
            "(name, weight, item_timestamp, at_ms, seq, units, token, key) "
            f"SELECT 'a', 1, to_timestamp(at / 1000.0), at, 2 + g, 1, g, {lock} FROM (SELECT g, "
            f"at_ms - 30000 + g AS at FROM generate_series(1, 30000) g, {bucket.table}) old"
        )
        assert bucket.put(RateItem("a", bucket.stamp()))
        before = bucket.count()
        lost.append("from now on")
        writes, open_ones = bucket._steps.in_doubt, []
        for max_wait_ms in (0, 50, 0, 50):
            pool.wait()  # for a connection in place of that which was lost
            with limited(bucket, 0.5), pytest.raises(psycopg.OperationalError):
                bucket.reserve(RateItem("a", bucket.stamp()), max_wait_ms)
            (doubt,) = writes.take()
            open_ones.append(doubt._replace(told=doubt.told._replace(expires=0)))
        lost.clear()
        assert bucket.count() == before + 4
        writes.extend(open_ones)
        settled_statistics(pool)
        read = rows_read(server, bucket.table)
        assert bucket.put(RateItem("a", bucket.stamp()))
        settled_statistics(pool)
        assert rows_read(server, bucket.table) - read < 2000
        assert not writes
        assert bucket.count() == before + 1


def test_a_connection_that_is_refused_leaves_nothing_in_doubt(server):
    with postgres.pool(server.dsn, size=1, reconnect_timeout=60) as pool:
        bucket = PostgresBucket(pool, postgres.table(), [Rate(9, HOUR)])
        with pool.connection(), pytest.raises(PoolTimeout):
            bucket.reserve(RateItem("a", bucket.stamp()), 200)
        assert not bucket._steps.in_doubt
        server.execute(
            f"ALTER TABLE {bucket.table} ADD CONSTRAINT none CHECK (weight > 9) NOT VALID"
        )
        with pytest.raises(psycopg.errors.CheckViolation):
            ask(bucket)
        assert not bucket._steps.in_doubt


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_snapshot_of_another_session_does_not_make_calls_dearer(server, kind):
    with (
        contextlib.closing(AtPostgres(False, server.dsn, most=1)) as callers,
        psycopg.connect(server.dsn) as old,
    ):
        name = postgres.table()
        limiter = callers.limiter(kind, Rate(20, 50), name)
        limiter.check("a")
        (bucket,) = limiter.bucket_factory.get_buckets()
        moment = bucket.now()
        if kind == "state":  # which else goes by the server's clock, whatever a stamp says
            bucket._clock = ManualClock(moment)
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute(f"SELECT count(*) FROM ratelimit___{name}")
        read = []
        for _ in range(4):
            settled_statistics(callers.pool)
            read.append(int(rows_read(server, f"ratelimit___{name}")))
            for _ in range(150):
                moment += 60
                if kind == "state":
                    bucket._clock.advance(60)
                assert bucket.put(RateItem("a", moment, 20))
                if kind != "state":  # whose moments are others
                    reservation = bucket.reserve(RateItem("a", moment, 20), 1000, 0)
                    assert reservation.wait_ms == 51
                    assert bucket.cancel(reservation)
        costs = [after - before for before, after in itertools.pairwise(read)]
        assert costs[-1] < 1.5 * costs[0]


@pytest.mark.parametrize("ending", ["cancelled", "with the event loop"])
def test_four_hundred_waiters_that_go_leave_nothing_behind(server, ending):
    table, kept = postgres.table(), []

    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=4)
        bucket = PostgresBucket(pool, table, [Rate(10, HOUR)])
        limiter = Limiter(bucket)
        waiters = [asyncio.ensure_future(limiter.try_acquire_async("a")) for _ in range(400)]
        kept.extend(waiters)
        before = -1
        while (stored := await bucket.count()) != before or not stored:
            before = stored  # they are still at it
            await asyncio.sleep(0.5)
        if ending == "cancelled":
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
            assert await bucket.count() == 10
            await pool.close()
        else:
            kept.append(pool)

    asyncio.run(scenario())
    admitted = sum(not waiter.cancelled() for waiter in kept[:400])
    assert admitted == 10
    assert server.execute(f"SELECT count(*) FROM ratelimit___{table} WHERE weight > 0") == [(10,)]
