"""What the tests on PostgreSQL share: one server for the whole run, and tables of their own.

A test file that wants one of the fixtures gives it a name: ``server = postgres.own_server``.
"""

import atexit
import itertools
import os
import time

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pyrate_limiter import (
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    SlidingWindowLog,
    StateBucket,
)
from tests.support.postgres_server import PostgresServer

HOUR = 3_600_000
FOREVER = 1 << 40
_numbers = itertools.count()
_server = None


def dsn():
    """The server's address: that of PYRATE_TEST_POSTGRES_DSN, or of one that is started here."""
    global _server  # noqa: PLW0603 - one for the run
    elsewhere = os.environ.get("PYRATE_TEST_POSTGRES_DSN")
    if elsewhere:
        return elsewhere
    if _server is None:
        _server = PostgresServer()
        atexit.register(_server.close)
    return _server.dsn


def table():
    """A name that no other test uses."""
    return f"t{os.getpid()}_{next(_numbers)}"


def execute(text, **options):
    with psycopg.connect(dsn(), autocommit=True, **options) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else None


def pool(where=None, size=4, **options):
    made = ConnectionPool(
        where or dsn(), min_size=1, max_size=size, open=True, timeout=20, **options
    )
    made.wait()
    return made


async def async_pool(where=None, size=4, **options):
    made = AsyncConnectionPool(
        where or dsn(), min_size=1, max_size=size, open=False, timeout=20, **options
    )
    await made.open(wait=True)
    return made


@pytest.fixture(scope="module")
def own_server():
    """One that a file may stop, freeze and fill up."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def own_pool(server):
    """Over the file's own server, which a test may stop for a while."""
    with pool(server.dsn, size=3, reconnect_timeout=60) as made:
        yield made


@pytest.fixture
def patient(monkeypatch):
    """A server that is there is never taken for one that is away, however busy the machine is."""
    monkeypatch.setattr("pyrate_limiter.buckets.postgres.ping.PATIENCE_SECONDS", 20)


@pytest.fixture(scope="module")
def shared_pool():
    """Over the server of the whole run."""
    with pool() as made:
        yield made


class Own(SlidingWindowLog):
    """A policy that runs in this process."""


def every_kind(pool, rates, name=None, **options):
    """A log that the server judges, one that this process judges, keys and a state."""
    name = name or table()
    yield PostgresBucket(pool, name, rates, **options)
    yield PostgresBucket(pool, f"{name}_own", rates, Own(), **options)
    yield PostgresKeys(pool, f"{name}_keys", **options).keyed(rates)
    store = PostgresStateStore(pool, "k", table=f"ratelimit___{name}_states", **options)
    yield StateBucket(rates, store=store)


def admitted(bucket, calls):
    """How many of so many calls are."""
    limiter = Limiter(bucket)
    return sum(limiter.try_acquire("a", blocking=False) for _ in range(calls))


def eventually(question, seconds=30):
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.02)
