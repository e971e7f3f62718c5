"""What the tests on PostgreSQL share: one server for the whole run, and tables of their own."""

import atexit
import itertools
import os

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from tests.postgres_server import PostgresServer

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
