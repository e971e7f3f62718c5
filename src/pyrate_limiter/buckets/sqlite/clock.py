"""The time, as SQLite has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pyrate_limiter._core.clocks import WallClock
from pyrate_limiter.utils import dedicated_sqlite_clock_connection

if TYPE_CHECKING:
    import sqlite3


class Connected(Protocol):
    """What has a connection, as a `SQLiteBucket` does."""

    @property
    def conn(self) -> sqlite3.Connection | None:
        """The connection; None once closed."""


class SQLiteClock(WallClock):
    """Milliseconds since the Unix epoch.

    SQLite reads the clock of the host that it runs on. So does this, without asking it.

    Args:
        conn: a connection or a `SQLiteBucket`, whose connection is kept as `conn`.
    """

    __module__ = "pyrate_limiter.buckets.sqlite_bucket"

    __slots__ = ("__dict__", "_conn")

    time_query = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    """How to ask SQLite for the same."""

    def __init__(self, conn: sqlite3.Connection | Connected | None) -> None:
        if conn is not None and hasattr(conn, "conn"):
            conn = conn.conn
        self._conn = conn

    @classmethod
    def default(cls) -> SQLiteClock:
        """A clock that was given no connection."""
        return cls(None)

    @property
    def conn(self) -> sqlite3.Connection:
        """The connection that was given; else one to an empty database, made when it is read."""
        if self._conn is None:
            self._conn = dedicated_sqlite_clock_connection()
        return self._conn

    @conn.setter
    def conn(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
