"""The time, as SQLite has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.clocks import WallClock

if TYPE_CHECKING:
    import sqlite3

    from pyrate_limiter.buckets.sqlite_bucket import SQLiteBucket


class SQLiteClock(WallClock):
    """Milliseconds since the Unix epoch.

    SQLite reads the clock of the host that it runs on. So does this, without asking it.

    Args:
        conn: a connection or a `SQLiteBucket`; kept as `conn`, and not used.
    """

    __slots__ = ("__dict__", "conn")

    time_query = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    """How to ask SQLite for the same."""

    def __init__(self, conn: sqlite3.Connection | SQLiteBucket | None) -> None:
        self.conn: sqlite3.Connection | None = getattr(conn, "conn", conn)  # type: ignore[arg-type]

    @classmethod
    def default(cls) -> SQLiteClock:
        """A clock that needs no connection."""
        return cls(None)
