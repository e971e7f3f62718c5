"""A server that goes away, comes back, is read-only, or is at its limits."""

import asyncio
import contextlib
import logging
import threading
import time

import psycopg
import pytest
from psycopg import conninfo
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from pyrate_limiter import (
    BucketAsyncWrapper,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    SlidingWindowLog,
    StateBucket,
)
from pyrate_limiter.buckets.postgres import session as postgres_session
from pyrate_limiter.buckets.postgres.exchange import silence
from pyrate_limiter.buckets.postgres.fair_lock import Acquire
from pyrate_limiter.errors import WrongType
from tests.support import postgres_fixtures as postgres
from tests.support.callers import KINDS, AtPostgres
from tests.support.postgres_fixtures import HOUR, Own, eventually

server = postgres.own_server
pool = postgres.own_pool
patient = postgres.patient


def ask(limiter, **terms):
    return limiter.try_acquire("a", **(terms or {"blocking": False}))


def ask_again(limiter):
    with contextlib.suppress(psycopg.OperationalError):
        return ask(limiter)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_after_a_restart_the_limit_goes_on(server, pool, way):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)], durable=True)
    limiter = Limiter(bucket)
    assert ask(limiter)
    getattr(server, way)()
    server.start()
    assert ask(limiter, timeout=30)
    assert bucket.count() == 2
    assert ask(limiter)
    assert not ask(limiter)


def test_without_a_server_the_drivers_error_comes_within_the_callers_time(server, pool):
    limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)]))
    assert ask(limiter)
    server.stop()
    try:
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            ask(limiter, timeout=0.4)
        assert time.monotonic() - began < 10
        # A task does not wait for the driver: it is refused where its time is up before.
        with contextlib.suppress(psycopg.OperationalError):
            assert not asyncio.run(limiter.try_acquire_async("a", timeout=0.2))
    finally:
        server.start()
    assert ask(limiter, timeout=30)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("instead", ["allow", "deny", "bucket"])
def test_on_error_decides_until_the_server_is_back(server, pool, instead, caplog):
    caplog.set_level(logging.WARNING)
    fallback = InMemoryBucket([Rate(2, HOUR)]) if instead == "bucket" else instead
    bucket = PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)], on_error=fallback)
    limiter = Limiter(bucket)
    assert ask(limiter)
    server.stop()
    try:
        answers = [ask(limiter, timeout=0.1) for _ in range(5)]
    finally:
        server.start()
    assert answers == {"allow": [True] * 5, "deny": [False] * 5}.get(
        instead, [True, True, False, False, False]
    )
    assert sum("cannot be reached" in line for line in caplog.messages) == 1
    eventually(lambda: ask(limiter, timeout=0.5) and bucket.count() >= 2)
    assert sum("can be reached again" in line for line in caplog.messages) == 1


def test_waiters_on_a_fallback_bucket_wait_there(server, pool):
    fallback = InMemoryBucket([Rate(1, 100)])
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)], on_error=fallback)
    limiter = Limiter(bucket)
    server.stop()
    try:
        assert ask(limiter, timeout=0.2)
        began = time.monotonic()
        assert ask(limiter, timeout=5)
        assert time.monotonic() - began > 0.05
    finally:
        server.start()


def test_an_async_bucket_goes_on_for_an_async_pool(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=1, reconnect_timeout=60)
        local = InMemoryBucket([Rate(2, HOUR)])
        bucket = PostgresBucket(
            pool, postgres.table(), [Rate(3, HOUR)], on_error=BucketAsyncWrapper(local)
        )
        limiter = Limiter(bucket, buffer_ms=0)
        assert await limiter.try_acquire_async("a")
        server.stop()
        try:
            answers = [await limiter.try_acquire_async("a", blocking=False) for _ in range(3)]
            local.rates = [Rate(2, 300)]
            waited = await limiter.try_acquire_async("a", 2, timeout=20)
            stored = local.count()
            local.rates = [Rate(2, HOUR)]
            waiter = asyncio.ensure_future(limiter.try_acquire_async("a", timeout=20))
            await asyncio.sleep(0.05)
            waiter.cancel()
            await asyncio.wait([waiter])
        finally:
            server.start()
        assert answers == [True, True, False]
        assert waited
        assert local.count() == stored  # what the cancelled one had there went back
        await pool.close()

    asyncio.run(scenario())


def test_an_async_bucket_takes_no_sync_pools_place(pool):
    async def scenario():
        return BucketAsyncWrapper(InMemoryBucket([Rate(1, HOUR)]))

    with pytest.raises(WrongType, match="a sync bucket"):
        PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)], on_error=asyncio.run(scenario()))


def test_each_name_has_a_fallback_of_its_own(server, pool):
    keys = PostgresKeys(pool, postgres.table(), on_error=InMemoryBucket)
    limiter = Limiter.per_key(Rate(1, HOUR), bucket=keys)
    assert ask(limiter)
    server.stop()
    try:
        answers = [limiter.try_acquire(name, timeout=0.1) for name in "aabbc"]
    finally:
        server.start()
    assert answers == [True, False, True, False, True]


def test_a_read_only_server_says_so(server):
    table = postgres.table()
    with postgres.pool(server.dsn) as pool:
        PostgresBucket(pool, table, [Rate(3, HOUR)])
    read_only = conninfo.make_conninfo(server.dsn, options="-c default_transaction_read_only=on")
    with postgres.pool(read_only) as pool:
        limiter = Limiter(PostgresBucket(pool, table, [Rate(3, HOUR)]))
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            ask(limiter)
        limiter = Limiter(PostgresBucket(pool, table, [Rate(3, HOUR)], on_error="allow"))
        assert ask(limiter)
        assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]


def test_a_connection_that_dies_during_the_step_leaves_nothing_half_made(server, pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(20, HOUR)])
    limiter = Limiter(bucket)
    with psycopg.connect(server.dsn) as holder:  # the step hangs at its lock
        holder.execute(f"SELECT pg_advisory_xact_lock({bucket._steps.lock('a')})")
        got = []
        caller = threading.Thread(target=lambda: got.append(limiter.try_acquire("a", 7)))
        caller.start()

        def killed():
            return server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND query LIKE '%pyrate_limiter_reserve%'"
            )

        eventually(killed)
        time.sleep(0.05)
        holder.rollback()
        caller.join(30)
    assert got == [True]
    assert bucket.count() == 7


@pytest.fixture
def around(monkeypatch):
    """Put something before or after each exchange with the server."""

    def wrap(wrapper):
        exchange = postgres_session.exchange
        monkeypatch.setattr(
            postgres_session, "exchange", lambda *words: wrapper(exchange(*words), *words[:2])
        )

    return wrap


def losing(lost, *words):
    """Cut the connection when the server has done its work, before its answer is seen."""

    def wrapper(sent, connection, text):
        answer = yield from sent
        if any(word in text for word in words) and not lost:
            lost.append(answer)
            connection.pgconn.finish()
            raise silence()
        return answer

    return wrapper


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_lost_after_the_commit_is_not_counted_twice(
    server, around, kind, is_async
):
    lost = []
    around(losing(lost, "pyrate_limiter_reserve", "WITH stored"))
    with contextlib.closing(AtPostgres(is_async, server.dsn)) as callers:
        limiter = callers.limiter(kind, Rate(20, HOUR), postgres.table())
        assert callers.call(lambda: limiter.try_acquire("a", 3))
        assert lost
        assert sum(callers.call(lambda: ask(limiter)) for _ in range(20)) == 17


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_back_while_the_pool_is_busy_goes_back_later(server, monkeypatch, kind):
    for module in ("statements", "state_row", "several"):
        monkeypatch.setattr(f"pyrate_limiter.buckets.postgres.{module}.REFUND_SECONDS", 0.1)
    with contextlib.closing(AtPostgres(False, server.dsn, most=1)) as callers:
        limiter = callers.limiter(kind, Rate(2, HOUR), postgres.table())
        assert limiter.try_acquire("a", 2, blocking=False)
        (bucket,) = limiter.bucket_factory.get_buckets()
        made = [bucket.reserve(RateItem("a", bucket.now()), 1 << 40) for _ in range(3)]
        assert all(reservation.wait_ms for reservation in made)
        connection = callers.borrow()
        for reservation in made:
            assert not bucket.cancel(reservation)
        callers.give_back(connection)
        for _ in range(len(made) + 1):
            assert not ask(limiter)
            bucket.leak(0)
        assert bucket.count() == 2


def test_deadlocks_and_serialization_failures_are_tried_again(pool, around):
    bucket, left = PostgresBucket(pool, postgres.table(), [Rate(20, HOUR)]), ["40001", "40P01"]

    def failing(sent, connection, text):
        if left and "pyrate_limiter_reserve" in text:
            connection.execute(f"DO $$BEGIN RAISE SQLSTATE '{left.pop()}'; END$$")
        return (yield from sent)

    around(failing)
    assert Limiter(bucket).try_acquire("a", blocking=False)
    assert not left
    assert bucket.count() == 1


@pytest.mark.parametrize("policy", [SlidingWindowLog, Own, None])
@pytest.mark.parametrize("timeout", [0.2, 1])
def test_a_frozen_server_holds_nobody_longer_than_the_timeout(server, policy, timeout):
    with postgres.pool(server.dsn, size=2) as pool:
        if policy is None:
            store = PostgresStateStore(pool, postgres.table())
            bucket = StateBucket([Rate(5, HOUR)], store=store)
        else:
            bucket = PostgresBucket(pool, postgres.table(), [Rate(5, HOUR)], policy())
        limiter = Limiter(bucket)
        assert ask(limiter)
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(psycopg.OperationalError):
                ask(limiter, timeout=timeout)
            assert timeout <= time.monotonic() - began < timeout + 10
        finally:
            server.thaw()
        # What the frozen server had in its ears when the caller gave up is not carried out.
        assert [ask(limiter, timeout=20) for _ in range(4)] == [True] * 4
        assert not ask(limiter)
        assert bucket.count() == 5


def test_a_waiter_whose_turn_does_not_come_gives_its_units_back(pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1, 300)], Own())
    assert bucket.put(RateItem("a", bucket.stamp()))
    item = RateItem("a", bucket.stamp())
    reservation = bucket.reserve(item, 1000)
    time.sleep(reservation.wait)
    lock = bucket._steps.fair_lock("a")
    assert Acquire(lock, 0).block()  # others are at it all the time
    assert not bucket.confirm(reservation, bucket.stamp()).allowed
    lock.release()
    assert not bucket.cancel(reservation)
    bucket.leak(0)
    assert bucket.count() == 1


def test_the_wait_for_a_connection_is_part_of_the_callers_time(server):
    with postgres.pool(server.dsn, size=1) as pool:
        limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(1, 600)]))
        assert ask(limiter)
        began, connection = time.monotonic(), pool.getconn()
        threading.Timer(0.4, pool.putconn, [connection]).start()
        assert not ask(limiter, timeout=0.5)  # room is there after 0.6 s
        assert 0.45 < time.monotonic() - began < 10
        assert limiter.bucket_factory.bucket.count() == 1


def test_a_reservation_that_was_made_but_not_answered_is_taken_back(server, pool, around):
    bucket, silent = PostgresBucket(pool, postgres.table(), [Rate(5, 250)]), []

    def silencing(sent, connection, text):
        answer = yield from sent
        if "pyrate_limiter_reserve" in text and silent:
            connection.pgconn.finish()
            raise silence()
        return answer

    around(silencing)
    assert bucket.put(RateItem("a", bucket.stamp(), 5))
    silent.append("now")
    with pytest.raises(psycopg.OperationalError):
        bucket.reserve(RateItem("a", bucket.stamp(), 3), max_wait_ms=300)
    silent.clear()
    assert bucket.count() == 8
    writes = bucket._steps.in_doubt
    (doubt,) = writes.take()
    writes.extend([doubt._replace(told=doubt.told._replace(expires=0))])
    bucket.leak(0)
    assert bucket.count() == 5


@pytest.mark.parametrize("policy", [SlidingWindowLog, Own])
def test_a_reservation_that_could_not_be_confirmed_admits_nobody_for_nothing(pool, around, policy):
    bucket, silent = PostgresBucket(pool, postgres.table(), [Rate(2, 300)], policy()), ["now"]

    def silencing(sent, connection, text):
        answer = yield from sent
        if silent:
            connection.pgconn.finish()
            raise silence()
        return answer

    item = RateItem("a", bucket.stamp(), 2)
    assert bucket.put(RateItem("a", bucket.stamp(), 2))
    reservation = bucket.reserve(item, 1000)
    time.sleep(reservation.wait)
    around(silencing)
    with pytest.raises(psycopg.OperationalError):
        bucket.confirm(reservation, bucket.stamp(), 0)
    silent.clear()
    while wait := bucket.confirm(reservation, bucket.stamp(), HOUR).wait_ms:
        time.sleep(wait / 1000)
    bucket.leak(0)  # what is in doubt is given back
    assert not bucket.check(RateItem("a", bucket.stamp())).allowed
    assert bucket.cancel(reservation)


def test_units_that_are_given_back_in_part_are_not_given_back_twice(server, pool, around):
    bucket, lost = PostgresBucket(pool, postgres.table(), [Rate(20, HOUR)]), []
    item = RateItem("a", bucket.stamp(), 5)
    reservation = bucket.reserve(item)
    assert reservation.allowed
    around(losing(lost, "pyrate_limiter_cancel"))
    bucket.cancel(reservation.part(2))
    assert lost
    assert bucket.count() == 3
    assert not bucket.cancel(reservation.part(4))
    assert bucket.cancel(reservation.part(3))
    assert bucket.count() == 0


def test_call_timeout_bounds_calls_that_do_not_wait(server):
    with postgres.pool(server.dsn, size=2) as pool:
        bucket = PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)], call_timeout=0.2)
        store = PostgresStateStore(pool, postgres.table(), call_timeout=0.2)
        limiters = [Limiter(bucket), Limiter(StateBucket([Rate(3, HOUR)], store=store))]
        assert all(ask(limiter) for limiter in limiters)
        server.freeze()
        try:
            for limiter in limiters:
                began = time.monotonic()
                with pytest.raises(psycopg.OperationalError):
                    ask(limiter)
                assert time.monotonic() - began < 10
        finally:
            server.thaw()
        for limiter in limiters:
            eventually(lambda limiter=limiter: ask_again(limiter))


def test_a_frozen_server_holds_no_task_longer_than_the_timeout(server):
    async def scenario():
        pool = AsyncConnectionPool(server.dsn, min_size=5, open=False)
        await pool.open(wait=True)
        bucket = PostgresBucket(pool, postgres.table(), [Rate(6, HOUR)])
        limiter = Limiter(bucket)
        assert await limiter.try_acquire_async("a")
        server.freeze()
        try:
            began = time.monotonic()
            forever = asyncio.ensure_future(limiter.try_acquire_async("a"))
            results = await asyncio.gather(
                *(limiter.try_acquire_async("a", timeout=0.3) for _ in range(4)),
                return_exceptions=True,
            )
            # Those who did not get to ask the server were refused, for their time was up.
            assert {str(result) for result in results} <= {str(silence()), "False"}
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever
            assert time.monotonic() - began < 10
        finally:
            server.thaw()
        while bucket._steps.in_doubt:
            await asyncio.sleep(0.1)
            await bucket.leak(0)
        assert await bucket.count() == 1
        await pool.close()

    asyncio.run(scenario())


def test_the_first_use_of_a_frozen_server_ends_within_the_timeout_as_well(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=2)
        store = PostgresStateStore(pool, postgres.table(), table=f"s{postgres.table()}")
        buckets = [
            PostgresBucket(pool, postgres.table(), [Rate(6, HOUR)]),
            StateBucket([Rate(6, HOUR)], store=store),
        ]
        server.freeze()
        try:
            began = time.monotonic()
            for bucket in buckets:
                item = RateItem("a", 0)
                with pytest.raises(psycopg.OperationalError):
                    await bucket.reserve(item, 300)
            assert time.monotonic() - began < 10
        finally:
            server.thaw()
        await pool.close()

    asyncio.run(scenario())


def test_a_waiter_whose_server_freezes_while_it_sleeps_leaves_no_reservation(server):
    with postgres.pool(server.dsn, size=2) as pool:
        bucket = PostgresBucket(pool, postgres.table(), [Rate(1, 400)])
        limiter = Limiter(bucket)
        assert ask(limiter)
        threading.Timer(0.1, server.freeze).start()
        try:
            began = time.monotonic()
            with pytest.raises(psycopg.OperationalError):
                ask(limiter, timeout=0.6)
            assert time.monotonic() - began < 10
        finally:
            server.thaw()
        bucket.leak(0)
        assert bucket.count() == 1


@pytest.mark.parametrize("is_state", [False, True])
def test_the_last_look_at_the_end_of_a_callers_time_is_not_held(server, is_state):
    with postgres.pool(server.dsn, size=2) as pool:
        bucket = PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)])
        if is_state:
            store = PostgresStateStore(pool, postgres.table())
            bucket = StateBucket([Rate(1, HOUR)], store=store)
        limiter = Limiter(bucket)
        assert ask(limiter)
        threading.Timer(0.2, server.freeze).start()
        try:
            began = time.monotonic()
            with pytest.raises(psycopg.OperationalError):
                ask(limiter, timeout=0.5)
            assert time.monotonic() - began < 10
        finally:
            server.thaw()


def test_an_acquisition_is_one_round_trip_or_two(pool, around):
    sent = []

    def counting(exchange, _connection, text):
        sent.append(text)
        return (yield from exchange)

    store = PostgresStateStore(pool, postgres.table())
    trips = {}
    around(counting)
    for bucket in (
        PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)]),
        PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)], FixedWindow()),
        PostgresBucket(pool, postgres.table(), [Rate(1, HOUR)], Own()),
        StateBucket([Rate(1, HOUR)], store=store),
    ):
        limiter = Limiter(bucket)
        limiter.check("a")
        trips[bucket] = []
        for _ in range(3):  # admitted; denied; denied, which is remembered
            sent.clear()
            ask(limiter)
            trips[bucket].append(len(sent))
    assert list(trips.values()) == [[1, 1, 0], [1, 1, 0], [2, 1, 0], [2, 1, 1]]


@pytest.mark.parametrize(("policy", "answer"), [("allow", True), ("deny", False)])
def test_a_state_store_goes_on_without_the_server(server, pool, policy, answer):
    store = PostgresStateStore(pool, postgres.table(), on_error=policy)
    bucket = StateBucket([Rate(1, HOUR)], store=store)
    limiter = Limiter(bucket)
    assert ask(limiter)
    server.stop()
    try:
        assert [ask(limiter) for _ in range(3)] == [answer] * 3
    finally:
        server.start()
    with pool.connection(timeout=30):  # the pool has one again
        pass
    eventually(lambda: not ask(limiter) and not store._outage.away)
    assert bucket.count() == 1


def test_an_exhausted_pool_gives_its_own_error_in_the_callers_time(server):
    with postgres.pool(server.dsn, size=1) as pool:
        limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)]))
        began = time.monotonic()
        with pool.connection(), pytest.raises(PoolTimeout):
            ask(limiter, timeout=0.2)
        assert time.monotonic() - began < 10
        assert ask(limiter)


def test_a_pool_that_is_closed_or_not_open_gives_its_own_error(server):
    pool = ConnectionPool(server.dsn, open=False)
    with pytest.raises(PoolClosed):
        PostgresBucket(pool, "never", [Rate(3, HOUR)])
    table = postgres.table()
    with postgres.pool(server.dsn) as pool:
        limiter = Limiter(PostgresBucket(pool, table, [Rate(3, HOUR)], on_error="allow"))
        assert ask(limiter)
    with pytest.raises(PoolClosed):
        ask(limiter)

    async def scenario():
        pool = AsyncConnectionPool(server.dsn, open=False)
        limiter = Limiter(PostgresBucket(pool, table, [Rate(3, HOUR)]))
        with pytest.raises(PoolClosed):
            await limiter.try_acquire_async("a")
        await pool.open()
        assert await limiter.try_acquire_async("a")
        limiter.close()
        assert await pool.getconn() is not None
        await pool.close()

    asyncio.run(scenario())


def test_closing_the_limiter_leaves_the_pool_open(server):
    with postgres.pool(server.dsn) as pool:
        with Limiter(PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)])) as limiter:
            assert ask(limiter)
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_busy_table_is_not_a_full_bucket(server, pool):
    limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)]))
    table = limiter.bucket_factory.bucket.table
    with psycopg.connect(server.dsn) as holder:
        holder.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        got = []
        caller = threading.Thread(target=lambda: got.append(ask(limiter)))
        caller.start()
        assert not ask(limiter, timeout=0.2)  # its time is over before anything is known
        time.sleep(0.1)
        assert not got
        holder.rollback()
        caller.join(30)
    assert got == [True]


def test_cancelled_tasks_leave_neither_reservations_nor_connections_behind(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=3)
        bucket = PostgresBucket(pool, postgres.table(), [Rate(5, HOUR)])
        limiter = Limiter(bucket)
        assert await limiter.try_acquire_async("a", 5)
        for delay in (0, 0.001, 0.003, 0.01, 0.05):
            waiters = [asyncio.ensure_future(limiter.try_acquire_async("a")) for _ in range(10)]
            await asyncio.sleep(delay)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
        assert await bucket.count() == 5
        stats = pool.get_stats()
        assert stats["pool_available"] == stats["pool_size"]
        await pool.close()

    asyncio.run(scenario())


def test_a_loop_goes_on_while_a_task_waits_for_the_server(server):
    async def scenario():
        pool = await postgres.async_pool(server.dsn, size=3)
        limiter = Limiter(PostgresBucket(pool, postgres.table(), [Rate(3, HOUR)]))
        await limiter.try_acquire_async("a")
        table = limiter.bucket_factory.bucket.table
        async with await psycopg.AsyncConnection.connect(server.dsn) as holder:
            await holder.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            caller = asyncio.ensure_future(limiter.try_acquire_async("a"))
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert not caller.done()
            await holder.rollback()
            assert await caller
        await pool.close()

    asyncio.run(scenario())


def test_states_survive_killed_connections(server, pool):
    bucket = StateBucket([Rate(50, HOUR)], store=PostgresStateStore(pool, postgres.table()))
    limiter = Limiter(bucket)
    over = threading.Event()

    def kill():
        while not over.wait(0.02):
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE '%ratelimit_states%' AND pid <> pg_backend_pid() LIMIT 1"
            )

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        got = [ask(limiter) for _ in range(100)]
    finally:
        over.set()
        killer.join()
    assert sum(got) == 50
    assert bucket.count() == 50


def test_a_waiter_goes_on_when_the_server_goes_away_while_it_sleeps(server, pool):
    bucket = PostgresBucket(pool, postgres.table(), [Rate(1, 400)], on_error="deny")
    limiter = Limiter(bucket)
    assert ask(limiter)
    got = []
    waiter = threading.Thread(target=lambda: got.append(ask(limiter, timeout=20)))
    waiter.start()
    time.sleep(0.1)
    server.stop()
    try:
        waiter.join(20)
        assert got == [True]
    finally:
        server.start()
