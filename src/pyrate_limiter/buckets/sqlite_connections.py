"""What there is to know and to do about a connection to SQLite."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import suppress
from typing import Any

from pyrate_limiter.buckets.sqlite_errors import UnusableConnection

parked: list[Any] = []
"""Connections that must be neither used nor closed any more."""


def file_name(db_path: str | os.PathLike[str] | None) -> str:
    """The absolute path of a file; that of a new temporary one for None."""
    if db_path is None:
        handle, path = tempfile.mkstemp(prefix="pyrate_limiter_", suffix=".sqlite")
        os.close(handle)
        return path
    path = os.fspath(db_path)
    return path if path == ":memory:" else os.path.abspath(path)


def tag_of(file: str | int | None) -> tuple[int, int] | None:
    """What tells a file, given by path or descriptor, from another; None if there is none."""
    try:
        found = os.stat(file or "")
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def plain_cursor(conn: sqlite3.Connection) -> sqlite3.Cursor:
    """A cursor that gives plain tuples, whatever the caller has chosen for himself."""
    cursor = conn.cursor()
    cursor.row_factory = None
    return cursor


def is_busy(error: sqlite3.Error) -> bool:
    """Whether it is another connection that is in the way."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
    return "locked" in str(error)


def path_of(conn: sqlite3.Connection) -> str:
    """The file of a connection, empty if it has none.

    Raises:
        UnusableConnection: it cannot be used here.
    """
    if getattr(conn, "autocommit", None) is False:
        msg = (
            "a connection with autocommit=False is never outside a transaction, so that nobody "
            "else would see what was admitted: open it with autocommit=True, or leave that out"
        )
        raise UnusableConnection(msg)
    try:
        rows = plain_cursor(conn).execute("PRAGMA database_list").fetchall()
    except sqlite3.ProgrammingError as error:
        if "thread" not in str(error):
            raise
        msg = f"make the bucket in the thread that opened its connection: {error}"
        raise UnusableConnection(msg) from error
    return next((row[2] for row in rows if row[1] == "main"), "") or ""


def dispose(own: list[sqlite3.Connection | None], pid: int, removed: str | None) -> None:
    """Close a connection of this process, and remove a temporary file."""
    conn, own[0] = own[0], None
    if pid != os.getpid():
        parked.append(conn)
        return
    if conn is not None:
        with suppress(sqlite3.Error):
            conn.close()
    if removed is not None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                os.remove(removed + suffix)
