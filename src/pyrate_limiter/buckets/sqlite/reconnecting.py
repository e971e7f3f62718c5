"""A connection to a SQLite database that heals."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from pyrate_limiter.buckets.sqlite.connections import (
    OWN_SETTINGS,
    connected,
    dispose,
    file_of,
    is_busy,
    parked,
    path_of,
    plain_cursor,
    tag_of,
)
from pyrate_limiter.buckets.sqlite.errors import (
    DatabaseLocked,
    DatabaseVanished,
    UnusableConnection,
)
from pyrate_limiter.errors import BucketClosed

if TYPE_CHECKING:
    from collections.abc import Callable

_BUSY_SECONDS = 2.0
_databases: weakref.WeakSet[Reconnecting] = weakref.WeakSet()


class Reconnecting:
    """The connection of a `Database`, in which the arguments are explained.

    It is opened anew after a fork, after an error, and where the file has been replaced.
    """

    def __init__(
        self,
        path: str | None,
        conn: sqlite3.Connection | None = None,
        *,
        temporary: bool = False,
    ) -> None:
        self.busy_seconds: float = _BUSY_SECONDS
        self.closed: bool = False
        self._prepared = False  # whether the tables are there to stay
        self._handed = conn
        self._bound = False  # whether the handed one may be used in its own thread alone
        self._thread = threading.get_ident()  # its own one; 0 for none
        if conn is not None:
            path = path_of(conn)
        self.target: str = path or ""
        self.path: str = file_of(self.target)
        self.is_file: bool = self.path not in {"", ":memory:"}
        self._tag: tuple[int, int] | None = None
        self._own: list[sqlite3.Connection | None] = [None]
        self._cursor: Any = None  # else of sqlite3: each transaction begins by having one
        self.run: Callable[..., sqlite3.Cursor] = not_begun
        _databases.add(self)
        removed = self.path if temporary else None
        self._finalizer = weakref.finalize(self, dispose, self._own, os.getpid(), removed)
        if conn is None:
            self._connect(time.monotonic() + self.busy_seconds)

    @property
    def connection(self) -> sqlite3.Connection | None:
        """The connection in use; None when closed."""
        return None if self.closed else self._handed or self._own[0]

    def after_fork(self) -> None:
        """In the child: another process's locks and connections are not ours."""
        self._bound, self._thread = True, 0
        self._park()
        self._finalizer.detach()
        if not self.closed:
            self._finalizer = weakref.finalize(self, dispose, self._own, os.getpid(), None)

    def _park(self) -> None:
        parked.append((self._own[0], self._cursor))
        self._own[0] = self._cursor = None

    def _is_there(self) -> bool:
        return self._tag is None or tag_of(self.path) == self._tag

    def _ready(self, deadline: float) -> None:
        """Have a cursor of a connection that may be used here and now."""
        if self.closed:
            raise BucketClosed
        if self._handed is not None and self._use(self._handed):
            return
        if not self._is_there():
            if tag_of(self.path) is None:
                raise DatabaseVanished(self.path)
            # Closing it would remove the log that belongs to the new file.
            self._park()
        if self._own[0] is None:
            self._connect(deadline)
        elif self._cursor is None or self._cursor.connection is not self._own[0]:
            self._cursor = plain_cursor(self._own[0])

    def _use(self, handed: sqlite3.Connection) -> bool:
        """Have a cursor of the caller's connection; False if this thread may not use that."""
        is_own = threading.get_ident() == self._thread
        if self._bound and not is_own:
            return False
        if not is_own or self._cursor is None or self._cursor.connection is not handed:
            try:
                self._cursor = plain_cursor(handed)
            except sqlite3.ProgrammingError as error:
                if is_own or "thread" not in str(error):
                    raise
                self._bound = True
                return False
        return True

    def _connect(self, deadline: float) -> None:
        if self._tag is not None and tag_of(self.path) is None:
            raise DatabaseVanished(self.path)
        if self._handed is not None and not self.is_file:
            msg = (
                "the connection belongs to the thread and process that opened it, and its database "
                "is in memory: open it with check_same_thread=False, or use init_from_file"
            )
            raise UnusableConnection(msg)
        settings = OWN_SETTINGS if self._handed is None else ()
        left = max(0.0, deadline - time.monotonic())
        try:
            conn = self._own[0] = connected(self.target, settings, left)
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise DatabaseLocked(self.path or "it", left) from error
            raise
        self._prepared = False
        self._cursor = plain_cursor(conn)
        self._tag = tag_of(self.path) if self.is_file else None

    def _drop(self) -> None:
        """Close our own connection: after an error the next one finds out whether all is well."""
        self._cursor = None
        conn, self._own[0] = self._own[0], None
        if conn is not None and self.is_file:
            with suppress(sqlite3.Error):
                conn.close()
        else:
            self._own[0] = conn


def not_begun(*_: object) -> NoReturn:
    """Stands for `Reconnecting.run` outside a transaction."""
    raise BucketClosed


def _after_fork() -> None:
    for database in list(_databases):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
