"""What holds for logs, states and names on both servers, for threads and for tasks."""

import contextlib
import enum
import logging
import threading
import time
from pathlib import Path

import psycopg
import pytest
import redis
import redis.asyncio
from psycopg import conninfo
from psycopg_pool import PoolClosed, PoolTimeout
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrate_limiter import Rate
from pyrate_limiter.errors import PyrateError
from tests.support import postgres_fixtures as postgres
from tests.support.callers import KINDS, AtPostgres, AtRedis
from tests.support.postgres_server import PostgresServer
from tests.support.redis_servers import RedisServer, answers, shared_url, wait_until

HOUR = 3_600_000
patient = postgres.patient


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request):
    return request.param


@pytest.fixture(params=["redis", "postgres"])
def at(request, is_async):
    """Makes callers at a server that answers."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            if request.param == "redis":
                callers = AtRedis(is_async, shared_url(), **options)
            else:
                callers = AtPostgres(is_async, postgres.dsn(), **options)
            return stack.enter_context(contextlib.closing(callers))

        yield make


class Weight(int, enum.Enum):
    TWO = 2


ODD = [
    *[("lone\ud800", 1), ("nul\0", 1), ("x" * 100_000, 1), (None, 1), (b"b", 1), (("t", 1), 1)],
    *[("two", Weight.TWO), ("one", True)],
]
WRONG = [1.5, "2", None, float("nan"), -1]


def test_an_odd_name_or_weight_fails_nobody_and_a_wrong_one_its_own_caller(at, kind):
    callers = at()
    policy = {"on_error": "deny", "call_timeout": 60}
    limiter = callers.limiter(kind, Rate(1000, HOUR), postgres.table(), **policy)
    asked = [*ODD, *[("wrong", weight) for weight in WRONG], *[("right", 1)] * 40]
    asked = asked[::2] + asked[1::2]
    answers = callers.together(
        [lambda it=it: limiter.try_acquire(*it, blocking=False) for it in asked]
    )
    for (name, _), answer in zip(asked, answers, strict=True):
        assert isinstance(answer, PyrateError) if name == "wrong" else answer is True, name


def eventually(callers, question):
    def asked():
        callers.pause(0.02)
        return question()

    wait_until(asked, 40)


def ask(callers, limiter, name="a", **terms):
    return callers.call(lambda: limiter.try_acquire(name, **(terms or {"blocking": False})))


@pytest.mark.usefixtures("patient")
def test_callers_share_a_pool_that_is_too_small_for_them(at, kind):
    callers = at(most=1)
    limiter = callers.limiter(kind, Rate(10, HOUR), postgres.table(), on_error="allow")
    answers = callers.together([lambda: limiter.try_acquire("a", blocking=False)] * 16)
    assert sorted(answers) == [False] * 6 + [True] * 10


@pytest.mark.usefixtures("patient")
def test_a_pool_that_the_application_keeps_busy_is_no_outage(at, kind):
    callers = at(most=1)
    limiter = callers.limiter(kind, Rate(2, HOUR), postgres.table(), on_error="allow")
    assert ask(callers, limiter)
    connection = callers.borrow()
    (answer,) = callers.together([lambda: limiter.try_acquire("a", timeout=0.3)])
    assert isinstance(answer, (redis.RedisError, PoolTimeout)) or answer is False
    callers.give_back(connection)
    assert [ask(callers, limiter) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("at_redis", [redis, redis.asyncio], ids=["sync", "async"])
def test_a_blocking_pool_that_is_kept_busy_is_no_outage_either(at_redis):
    callers = AtRedis(at_redis is redis.asyncio, shared_url())
    with contextlib.closing(callers):
        pool = at_redis.BlockingConnectionPool.from_url(
            shared_url(), max_connections=1, timeout=0.1
        )
        callers.call(callers.client.connection_pool.disconnect)
        callers.client.connection_pool = pool
        limiter = callers.limiter("log", Rate(2, HOUR), postgres.table(), on_error="allow")
        assert ask(callers, limiter)
        connection = callers.borrow()
        (answer,) = callers.together([lambda: limiter.try_acquire("a", timeout=0.5)])
        assert isinstance(answer, redis.RedisError) or answer is False
        callers.give_back(connection)
        eventually(callers, lambda: ask(callers, limiter))
        assert not ask(callers, limiter)
        callers.call(pool.disconnect)


# Servers that are away


@pytest.fixture(scope="module")
def servers():
    """One of each kind, which a test may stop and has to start again."""
    redis_server, postgres_server = RedisServer(), PostgresServer()
    yield {"redis": redis_server, "postgres": postgres_server}
    redis_server.close()
    postgres_server.close()


@pytest.fixture
def server(request, servers):
    """The one of the test's backend."""
    return servers[request.getfixturevalue("backend")]


@pytest.fixture(params=["redis", "postgres"])
def backend(request):
    return request.param


@pytest.fixture
def there(server, backend, is_async):
    """Makes callers at that server."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            if backend == "redis":
                callers = AtRedis(is_async, f"redis://127.0.0.1:{server.port}", **options)
            else:
                callers = AtPostgres(is_async, server.dsn, reconnect_timeout=60, **options)
            return stack.enter_context(contextlib.closing(callers))

        yield make


@contextlib.contextmanager
def stopped(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(server, there, caplog):
    caplog.set_level(logging.WARNING, "pyrate_limiter")
    callers = there()
    names = [postgres.table() for _ in range(4)]
    limiters = [
        callers.limiter(kind, Rate(99, HOUR), f"{name}{kind}", on_error="allow")
        for kind in KINDS
        for name in names
    ]
    assert all(ask(callers, limiter) for limiter in limiters)
    with stopped(server):
        assert all(ask(callers, limiter) for limiter in limiters * 3)
        (begins,) = told(caplog)
        assert f"{names[0]}log" in begins.getMessage()
        assert begins.exc_info is None
    eventually(
        callers, lambda: [ask(callers, limiter) for limiter in limiters] and len(told(caplog)) > 1
    )
    assert all(ask(callers, limiter) for limiter in limiters)
    assert len(told(caplog)) == 2


def told(caplog):
    return [record for record in caplog.records if record.name == "pyrate_limiter"]


def test_who_has_a_policy_waits_for_neither_driver_nor_probe(server, there, kind, backend):
    callers = there(**({"naps": 30} if backend == "redis" else {}))
    name, rate = postgres.table(), Rate(99, HOUR)
    callers.limiter(kind, rate, name)  # it makes the table
    with stopped(server):
        began = time.monotonic()  # finding it out, and making a limiter, takes half a second each
        limiter = callers.limiter(kind, rate, name, on_error="allow")
        assert all(ask(callers, limiter) for _ in range(100))
        assert time.monotonic() - began < 20


@contextlib.contextmanager
def busy(server):
    """With a script that does not end."""
    with redis.Redis(port=server.port) as admin, redis.Redis(port=server.port) as user:
        admin.config_set("lua-time-limit", 1)
        script = threading.Thread(target=_outlasts, args=(user,))
        script.start()
        wait_until(lambda: not answers(admin))
        yield
        admin.script_kill()
        script.join()


def _outlasts(user):
    with contextlib.suppress(redis.ResponseError):
        user.eval("while true do end", 0)


@contextlib.contextmanager
def full(server):
    """Without any memory left."""
    with redis.Redis(port=server.port) as admin:
        admin.config_set("maxmemory", 1)
        yield
        admin.config_set("maxmemory", 0)


@contextlib.contextmanager
def loading(server):
    """After a restart, while it reads what it has kept."""
    server.stop()
    kept = Path(server.folder.name, "appendonly.aof")
    kept.write_bytes(b"*2\r\n$4\r\nINCR\r\n$1\r\nx\r\n" * 300_000)
    server.config = "appendonly yes\nkey-load-delay 100\n"  # us: it takes most of a minute
    server.launch()
    with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as admin:
        try:
            wait_until(lambda: is_loading(admin))
            yield
            assert is_loading(admin)
        finally:
            server.stop()
            server.config = ""
            server.start()


def is_loading(admin):
    try:
        admin.ping()
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        pass
    return False


@contextlib.contextmanager
def replica(server):
    """As a replica, which takes no writes."""
    with redis.Redis(port=server.port) as admin:
        admin.replicaof("127.0.0.1", 1)
        yield
        admin.replicaof("NO", "ONE")


@contextlib.contextmanager
def read_only(server):
    """As a stand-by, which takes no writes."""

    def set_to(value):
        server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        server.execute("SELECT pg_reload_conf()")
        wait_until(lambda: server.execute("SHOW default_transaction_read_only") == [(value,)])

    set_to("on")
    yield
    set_to("off")


OUTAGES = [
    *[("redis", trouble) for trouble in (busy, full, loading, replica)],
    ("postgres", read_only),
]


@pytest.mark.parametrize(("backend", "trouble"), OUTAGES)
def test_a_server_that_is_there_but_cannot_store_is_away(server, there, kind, trouble):
    callers = there()
    name, rate = postgres.table(), Rate(99, HOUR)
    denies = callers.limiter(kind, rate, name, on_error="deny")
    raises = callers.limiter(kind, rate, name)
    assert ask(callers, denies)
    with trouble(server):
        with pytest.raises((redis.RedisError, psycopg.Error)):
            ask(callers, raises)
        assert not any(ask(callers, denies) for _ in range(3))
    eventually(callers, lambda: ask(callers, denies))
    eventually(callers, lambda: ask(callers, raises))


REFUSALS = ["23514", "42501", "53400", "54000", "XX000"]


@pytest.mark.parametrize("backend", ["postgres"])
def test_what_the_server_refuses_is_no_outage(server, there, kind):
    callers, name = there(), postgres.table()
    limiter = callers.limiter(kind, Rate(2, HOUR), name, on_error="allow")
    assert ask(callers, limiter)
    for state in REFUSALS:
        server.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN RAISE SQLSTATE '{state}'; END$$; CREATE TRIGGER refuses "
            f"BEFORE INSERT OR UPDATE ON ratelimit___{name} FOR EACH ROW EXECUTE FUNCTION {name}()"
        )
        with pytest.raises(psycopg.Error) as refused:
            ask(callers, limiter)
        assert refused.value.sqlstate == state
        server.execute(f"DROP FUNCTION {name} CASCADE")
    assert [ask(callers, limiter) for _ in range(2)] == [True, False]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
def test_a_timeout_of_the_role_is_neither_an_outage_nor_a_refusal(servers, is_async, kind, setting):
    server = servers["postgres"]
    role, name = f"role_{postgres.table()}", postgres.table()
    server.execute(f"CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET {setting} = '20ms'")
    dsn = conninfo.make_conninfo(server.dsn, user=role)
    with contextlib.closing(AtPostgres(is_async, dsn, most=4)) as callers:
        limiter = callers.limiter(kind, Rate(2, HOUR), name, on_error="allow")
        assert ask(callers, limiter)
        with psycopg.connect(server.dsn) as holder:
            holder.execute(f"LOCK TABLE ratelimit___{name} IN EXCLUSIVE MODE")
            threading.Timer(0.4, holder.rollback).start()
            answers = callers.together([lambda: limiter.try_acquire("a", blocking=False)] * 3)
        assert sorted(answers) == [False, False, True]


@pytest.mark.usefixtures("patient")
def test_a_server_without_a_session_left_is_no_outage(servers, is_async):
    server, role = servers["postgres"], f"role_{postgres.table()}"
    server.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    dsn = conninfo.make_conninfo(server.dsn, user=role)
    with contextlib.closing(AtPostgres(is_async, dsn, most=1)) as callers:
        limiters = [
            callers.limiter(kind, Rate(2, HOUR), postgres.table(), on_error="allow")
            for kind in KINDS
        ]
        assert all(ask(callers, limiter) for limiter in limiters)
        server.execute(f"ALTER ROLE {role} NOSUPERUSER CONNECTION LIMIT 0")
        server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        )
        # It cannot be told at once from a server that goes down.
        eventually(callers, lambda: is_refused(callers, limiters[0]))
        assert all(is_refused(callers, limiter) for limiter in limiters)


def is_refused(callers, limiter):
    try:
        return not ask(callers, limiter, timeout=0.5)
    except PoolTimeout:
        return True


def test_a_pool_that_its_owner_has_closed_is_no_outage_and_no_error_of_the_sweep(
    is_async, kind, caplog
):
    name = postgres.table()
    with contextlib.closing(AtPostgres(is_async, postgres.dsn())) as callers:
        limiter = callers.limiter(kind, Rate(2, HOUR), name, on_error="allow")
        assert ask(callers, limiter)
        callers.call(callers.pool.close)
        with pytest.raises(PoolClosed):
            ask(callers, limiter)
        for bucket in limiter.bucket_factory.get_buckets():
            callers.call(lambda bucket=bucket: bucket.leak())
    # An earlier test's server may be found again meanwhile.
    assert not [record for record in told(caplog) if name in record.getMessage()]


def test_many_short_timeouts_are_answered_by_a_healthy_redis(is_async, kind, monkeypatch):
    # What a busy machine takes longer for is no error here.
    for module in ("client", "commands", "state_commands"):
        monkeypatch.setattr(f"pyrate_limiter.buckets.redis.{module}.LAST_MS", 20_000)
    with contextlib.closing(AtRedis(is_async, shared_url())) as callers:
        limiter = callers.limiter(kind, Rate(50, HOUR), postgres.table())
        asked = [lambda: limiter.try_acquire("a", timeout=0.02)] * 32
        answers = [answer for _ in range(5) for answer in callers.together(asked)]
        assert set(answers) == {False, True}
        more = sum(ask(callers, limiter) for _ in range(51))
        assert answers.count(True) + more == 50


def test_a_small_pool_whose_connections_hang_is_an_outage(server, there, kind):
    callers = there(most=1)
    limiter = callers.limiter(
        kind, Rate(99, HOUR), postgres.table(), on_error="allow", call_timeout=0.5
    )
    assert ask(callers, limiter)
    asked = [lambda: limiter.try_acquire("a", blocking=False)] * 8
    server.freeze()
    try:
        callers.together(asked)  # those find it out
        assert callers.together(asked) == [True] * 8
    finally:
        server.thaw()


def test_what_was_stored_for_a_call_that_gave_up_is_given_back(server, there, kind):
    callers = there()
    limiter = callers.limiter(kind, Rate(3, HOUR), postgres.table())
    assert ask(callers, limiter)
    server.freeze()
    try:
        with pytest.raises((redis.TimeoutError, psycopg.OperationalError)):
            ask(callers, limiter, timeout=0.3)
    finally:
        server.thaw()
    for _ in range(2):
        eventually(callers, lambda: is_admitted(callers, limiter))
    assert not ask(callers, limiter)


def is_admitted(callers, limiter):
    with contextlib.suppress(redis.RedisError, psycopg.Error):
        return ask(callers, limiter)
