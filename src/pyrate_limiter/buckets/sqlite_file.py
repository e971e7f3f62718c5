"""Transactions on a SQLite database that wait their turn, and connections that heal."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.sqlite_connections import (
    OWN_SETTINGS,
    connected,
    dispose,
    file_of,
    insist,
    is_busy,
    name_file,
    parked,
    path_of,
    plain_cursor,
    tag_of,
)
from pyrate_limiter.buckets.sqlite_errors import (
    DatabaseLocked,
    DatabaseVanished,
    UnusableConnection,
)
from pyrate_limiter.errors import BucketClosed

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS = 0.02  # how long a file is taken to be there that was there just now
_FOREVER = 1e6  # seconds: longer than a lock can be waited for

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """A database for the buckets of one process.

    It begins each transaction as a writer, so that a verdict and its record are one step, and waits
    for other writers as long as the caller does. It opens a new connection after a fork, after an
    error, and where the file has been replaced.

    Args:
        path: the file to open.
        conn: a connection of the caller's instead. Its settings stay as they are and it is never
            closed. Where it may not be used, in another thread or after a fork, a connection of our
            own to the same file stands in for it.
        lock: a cross-process lock to hold around each transaction.
        temporary: whether to remove the file in the end.
        schema: statements that make the tables, where they are missing.
    """

    def __init__(
        self,
        path: str | None,
        conn: sqlite3.Connection | None = None,
        lock: Any = None,
        *,
        temporary: bool = False,
        schema: tuple[str, ...] = (),
    ) -> None:
        self.busy_seconds: float = 30.0
        self.lock: Any = lock
        self.closed: bool = False
        self.depth: int = 0
        self._schema = schema
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
        self._look_at = 0.0
        self._lock: Any = threading.RLock()
        self._own: list[sqlite3.Connection | None] = [None]
        self._cursor: Any = None
        self.run: Callable[..., sqlite3.Cursor] = _not_begun
        self._inside = ""
        _databases.add(self)
        removed = self.path if temporary else None
        self._finalizer = weakref.finalize(self, dispose, self._own, os.getpid(), removed)
        if conn is None:
            self._connect()

    @property
    def connection(self) -> sqlite3.Connection | None:
        """The connection in use; None when closed."""
        return None if self.closed else self._handed or self._own[0]

    def begin(self, seconds: float | None = None) -> bool:
        """Enter a transaction; True if it is a new one.

        Raises:
            DatabaseLocked: other writers kept it for ``seconds``, at least `busy_seconds`.
            DatabaseVanished: the file is gone.
            BucketClosed: it was closed.
        """
        patience = min(_FOREVER, max(seconds or 0.0, self.busy_seconds))
        if not self._lock.acquire(timeout=patience):
            raise DatabaseLocked(self.path or "it", patience)
        if self.depth:
            self.depth += 1
            return False
        try:
            deadline = time.monotonic() + patience
            if self.lock is not None:
                self._take_shared(patience)
            try:
                self._begin(deadline, patience)
            except BaseException:
                self._withdraw()
                if self.lock is not None:
                    self.lock.release()
                raise
        except BaseException:
            self._lock.release()
            raise
        if not self._prepared:
            try:
                for statement in self._schema:
                    self.run(statement)
            except BaseException as error:
                self.end(error)
                raise
        return True

    def begin_at_once(self) -> bool:
        """Enter a new transaction; False where something has to be waited for or mended first."""
        if not self._lock.acquire(blocking=False):
            return False
        if self.depth or not self._prepared or self._cursor is None or self._handed is not None:
            self._lock.release()
            return False
        lock, locked = self.lock, False
        try:
            locked = lock is not None and lock.acquire(blocking=False)
            if locked == (lock is not None) and self._is_there():
                self._enter()
                self.run = self._cursor.execute
                self.depth = 1
        except (sqlite3.Error, OSError):
            pass
        finally:
            if not self.depth:
                self._withdraw()
                if locked:
                    lock.release()
                self._lock.release()
        return self.depth > 0

    def end(self, error: BaseException | None) -> None:
        """Leave the transaction; the outermost one is committed, or undone after an error."""
        if self.depth > 1:
            self.depth -= 1
            self._lock.release()
            return
        try:
            if error is None:
                self._commit()
            else:
                self._undo(error)
        finally:
            self._withdraw()
            self.depth = 0
            if self.lock is not None:
                self.lock.release()
            self._lock.release()

    def version(self) -> tuple[int, int]:
        """What changes as soon as another connection has committed. Inside a transaction."""
        number = self._cursor.execute("PRAGMA data_version").fetchone()[0]
        return id(self._cursor), number

    def is_still(self, version: tuple[int, int] | None) -> bool:
        """Whether nobody else has committed since `version`; False also where that is unknown."""
        if version is None or self._handed is not None or not self._lock.acquire(blocking=False):
            return False
        try:
            if self.closed or id(self._cursor) != version[0]:
                return False
            now = time.monotonic()
            if now >= self._look_at:
                if not self._is_there():
                    return False
                self._look_at = now + _LOOK_SECONDS
            return self.version() == version
        except (sqlite3.Error, OSError):
            return False
        finally:
            self._lock.release()

    def start_anew(self) -> None:
        """Open the file again, a new one if it is gone."""
        with self._lock:
            if self._handed is None and self.is_file and not self.closed and not self._is_there():
                self._park()
                self._tag = None
                self._connect()

    def close(self) -> None:
        """Close what was opened here, and remove a temporary file. May be called again."""
        with self._lock:
            self.closed = True
            self._cursor = None
            self._finalizer()

    def after_fork(self) -> None:
        """In the child: another process's locks and connections are not ours."""
        self._lock = threading.RLock()
        self.depth = 0
        self._bound, self._thread = True, 0
        if hasattr(self.lock, "after_fork"):
            self.lock.after_fork()
        self._park()
        self._finalizer.detach()
        if not self.closed:
            self._finalizer = weakref.finalize(self, dispose, self._own, os.getpid(), None)

    def _park(self) -> None:
        parked.append((self._own[0], self._cursor))
        self._own[0] = self._cursor = None

    def _take_shared(self, patience: float) -> None:
        try:
            taken = self.lock.acquire(timeout=patience)
        except TimeoutError:
            taken = False
        if not taken:
            raise DatabaseLocked(self.path or "it", patience)

    def _is_there(self) -> bool:
        return self._tag is None or tag_of(self.path) == self._tag

    def _ready(self) -> None:
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
            self._connect()
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

    def _connect(self) -> None:
        if self._tag is not None and tag_of(self.path) is None:
            raise DatabaseVanished(self.path)
        if self._handed is not None and not self.is_file:
            msg = (
                "the connection belongs to the thread and process that opened it, and its database "
                "is in memory: open it with check_same_thread=False, or use init_from_file"
            )
            raise UnusableConnection(msg)
        settings = OWN_SETTINGS if self._handed is None else ()
        conn = self._own[0] = connected(self.target, settings, self.busy_seconds)
        self._prepared = False
        self._cursor = plain_cursor(conn)
        self._tag = tag_of(self.path) if self.is_file else None

    def _begin(self, deadline: float, patience: float) -> None:
        self._ready()
        try:
            insist(self._enter, deadline, self._stand_aside if self._handed else time.sleep)
        except sqlite3.DatabaseError as error:
            if is_busy(error):
                raise DatabaseLocked(self.path or "it", patience) from error
            self._drop()
            name_file(error, self.path)
            raise
        self.run = self._cursor.execute
        self.depth = 1

    def _stand_aside(self, seconds: float) -> None:
        """Sleep, and let in whoever has a transaction open on the handed connection meanwhile."""
        self._lock.release()
        try:
            time.sleep(seconds)
        finally:
            self._lock.acquire()
        self._ready()

    def _enter(self) -> None:
        cursor = self._cursor
        # A transaction that the caller has open is his: ours is a part of it.
        self._inside = "SAVEPOINT" if cursor.connection.in_transaction else "BEGIN"
        cursor.execute(
            "SAVEPOINT pyrate_limiter" if self._inside == "SAVEPOINT" else "BEGIN IMMEDIATE"
        )

    def _withdraw(self) -> None:
        """Undo what an interruption, Ctrl-C for one, has left half begun or half ended."""
        cursor, inside, self._inside = self._cursor, self._inside, ""
        if inside == "BEGIN" and cursor is not None and cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")

    def _commit(self) -> None:
        statement = "RELEASE pyrate_limiter" if self._inside == "SAVEPOINT" else "COMMIT"
        deadline = time.monotonic() + self.busy_seconds
        try:
            insist(lambda: self._cursor.execute(statement), deadline)
        except BaseException as error:
            self._undo(error)
            raise
        finally:
            self.run = _not_begun
        # The caller may still undo his transaction, and with it the tables that were made in it.
        self._prepared = self._prepared or self._inside == "BEGIN"

    def _undo(self, error: BaseException) -> None:
        self.run = _not_begun
        try:
            if self._inside == "SAVEPOINT":
                self._cursor.execute("ROLLBACK TO pyrate_limiter")
                self._cursor.execute("RELEASE pyrate_limiter")
            elif self._cursor.connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error as second:
            error = second
        if isinstance(error, sqlite3.Error):
            name_file(error, self.path)
            self._prepared = False
            self._drop()

    def _drop(self) -> None:
        """Close our own connection: after an error the next one finds out whether all is well."""
        self._cursor = None
        conn, self._own[0] = self._own[0], None
        if conn is not None and self.is_file:
            with suppress(sqlite3.Error):
                conn.close()
        else:
            self._own[0] = conn


def _not_begun(*_: Any) -> Any:
    raise BucketClosed


def _after_fork() -> None:
    for database in list(_databases):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
