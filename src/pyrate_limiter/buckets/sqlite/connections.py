"""What there is to know and to do about a connection to SQLite."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.sqlite.errors import UnusableConnection
from pyrate_limiter.errors import InvalidDatabase, WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OWN_SETTINGS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL")
_FIRST_PAUSE = 0.0001  # seconds before the second try at a database that another one is writing to
_LONGEST_PAUSE = 0.002

_ENDINGS = (".db", ".db3", ".sqlite", ".sqlite3")

parked: list[object] = []
"""Connections that must be neither used nor closed any more."""


def file_name(db_path: str | os.PathLike[str] | None) -> str:
    """The absolute path of a file, or a URI of one; that of a new temporary one for None."""
    if db_path is None:
        handle, path = tempfile.mkstemp(prefix="pyrate_limiter_", suffix=".sqlite")
        os.close(handle)
        return path
    path = os.fspath(db_path)
    if path.startswith("file:"):
        file = file_of(path)
        query = path.partition("?")[1:]
        return path if file == ":memory:" else "".join((Path(file).as_uri(), *query))
    return path if path == ":memory:" else os.path.abspath(path)


def file_of(name: str) -> str:
    """The absolute path of what `file_name` gave; ``:memory:`` for a database without a file."""
    if not name.startswith("file:"):
        return name
    from urllib.parse import parse_qs, unquote, urlsplit

    parts = urlsplit(name)
    query = parse_qs(parts.query)
    in_memory = query.get("mode") == ["memory"] or query.get("vfs") == ["memdb"]
    path = unquote(parts.path)
    return ":memory:" if in_memory or path in {"", ":memory:"} else os.path.abspath(path)


def check_table(table: object) -> None:
    """Raise unless this can be the name of a table.

    Raises:
        WrongType: it says what is expected.
    """
    if not isinstance(table, str) or not table or "\0" in table:
        raise WrongType("table", table, "a text without null characters, not empty")


def refuse_path_as_table(table: object) -> None:
    """Refuse the name of a table that looks like a file, where no file is given.

    Raises:
        InvalidDatabase: it says how to give a file.
    """
    text = os.fspath(table) if isinstance(table, os.PathLike) else table
    if isinstance(text, str) and (os.sep in text or text.endswith(_ENDINGS)):
        msg = (
            f"table={table!r} looks like a file, and without a db_path nothing is shared: write "
            f"init_from_file(rates, db_path={str(table)!r})"
        )
        raise InvalidDatabase(msg)


def name_file(error: BaseException, path: str) -> None:
    """Have the message of an error of SQLite say which file it is about."""
    if isinstance(error, sqlite3.Error) and path and path not in str(error):
        error.args = (f"{error}: {path}", *error.args[1:])


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


def connected(path: str, settings: Sequence[str], busy_seconds: float) -> sqlite3.Connection:
    """A connection for any thread, on which these statements have been run."""
    try:
        conn = sqlite3.connect(
            path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            uri=path.startswith("file:"),
        )
    except sqlite3.Error as error:
        name_file(error, path)
        raise
    try:
        deadline = time.monotonic() + busy_seconds
        for statement in settings:
            insist(partial(conn.execute, statement), deadline)
    except BaseException as error:
        name_file(error, path)
        conn.close()
        raise
    return conn


def insist(
    step: Callable[[], object], deadline: float, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Do it, again and again while the database is busy."""
    pause = _FIRST_PAUSE
    while True:
        try:
            step()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        else:
            return
        sleep(pause * (0.5 + random.random()))  # noqa: S311 - to scatter the tries
        pause = min(_LONGEST_PAUSE, pause * 1.5)


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
