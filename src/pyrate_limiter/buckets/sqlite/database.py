"""Transactions on a SQLite database; one thread of this process is at it at a time."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.fork_safe_locks import FrameLock
from pyrate_limiter._core.process_lock import ProcessLock
from pyrate_limiter.buckets.sqlite.connections import insist, is_busy, name_file
from pyrate_limiter.buckets.sqlite.errors import DatabaseLocked
from pyrate_limiter.buckets.sqlite.reconnecting import Reconnecting, not_begun
from pyrate_limiter.errors import ReentrantCall

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_LOOK_SECONDS = 0.02  # how long a file is taken to be there that was there just now
_LAST_SECONDS = 0.02  # for a commit, at the least
FOREVER_SECONDS = 1e6  # longer than a lock can be waited for


class Database(Reconnecting):
    """A database for the buckets of one process.

    It begins each transaction as a writer, so that a verdict and its record are one step, and waits
    for other writers as long as it is told. What a call has left that was interrupted, wherever it
    was, the next one clears away.

    Args:
        path: the file to open.
        conn: a connection of the caller's instead. Its settings stay as they are and it is never
            closed. Where it may not be used, in another thread or after a fork, a connection of our
            own to the same file stands in for it.
        lock: a cross-process lock to hold around each transaction.
        temporary: whether to remove the file in the end.
        schema: statements that make the tables, where they are missing.

    Raises:
        DatabaseLocked: the file is locked by somebody else, for longer than `busy_seconds`.
    """

    if TYPE_CHECKING:
        run: Callable[..., sqlite3.Cursor]

    def __init__(
        self,
        path: str | None,
        conn: sqlite3.Connection | None = None,
        lock: object = None,
        *,
        temporary: bool = False,
        schema: tuple[str, ...] = (),
    ) -> None:
        self.lock: Any = lock
        self.depth: int = 0
        self._schema = schema
        self._thread_lock = FrameLock()
        self._calls: list[FrameType] = []  # those that are in it, each by the one before
        self._has_lock = False
        self._deadline = 0.0  # of the transaction
        self._look_at = 0.0
        self._inside = ""
        super().__init__(path, conn, temporary=temporary)

    def begin(self, seconds: float | None = None, frame: FrameType | None = None) -> bool:
        """Enter a transaction; True if it is a new one.

        Args:
            seconds: how long to wait for other writers; None is `busy_seconds`.
            frame: the call in which it ends in any case; None is the one that calls this.

        Raises:
            DatabaseLocked: other writers kept it for so long.
            DatabaseVanished: the file is gone.
            BucketClosed: it was closed.
            ReentrantCall: it comes from a signal handler that has interrupted a transaction.
        """
        thread_lock = self._thread_lock
        if frame is None:
            frame = sys._getframe(1)
        if thread_lock.is_mine():
            if frame.f_back is not self._calls[-1]:
                raise ReentrantCall(self)
            self._calls.append(frame)
            self.depth += 1
            return False
        patience = min(FOREVER_SECONDS, self.busy_seconds if seconds is None else seconds)
        deadline = time.monotonic() + patience
        if not thread_lock.acquire(patience, frame):
            raise DatabaseLocked(self.path or "it", patience)
        try:
            self._clear_away()
            self._calls = [frame]
            if self.lock is not None:
                self._take_shared(deadline, patience)
            self._begin(deadline, patience)
            if not self._prepared:
                for statement in self._schema:
                    self.run(statement)
        except BaseException as error:
            self.end(error)
            raise
        return True

    def begin_at_once(self, frame: FrameType) -> bool:
        """Enter a new transaction; False where something has to be waited for or mended first."""
        thread_lock = self._thread_lock
        if thread_lock.is_mine() or not thread_lock.acquire(0.0, frame):
            return False
        try:
            self._clear_away()
            self._calls = [frame]
            ready = self._prepared and self._cursor is not None and self._handed is None
            if ready and self._has_shared_at_once() and self._is_there():
                self._enter()
                self._deadline = 0.0
                self.run = self._cursor.execute
                self.depth = 1
        except (sqlite3.Error, OSError):
            pass
        finally:
            if not self.depth:
                self._leave()
        return self.depth > 0

    def end(self, error: BaseException | None) -> None:
        """Leave the transaction; the outermost one is committed, or undone after an error."""
        if self.depth > 1:
            self.depth -= 1
            self._calls.pop()
            return
        try:
            if self.depth and error is None:
                self._commit()
            elif self.depth and error is not None:
                self._undo(error)
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            self._withdraw()
        finally:
            self.depth = 0
            try:
                self._release_shared()
            finally:
                self._thread_lock.release()

    def _clear_away(self) -> None:
        """Undo what was left by a call that was interrupted where it could not do so itself."""
        try:
            self._withdraw()
        except sqlite3.Error:
            self._drop()
        self.depth = 0
        if self._has_lock and not isinstance(self.lock, ProcessLock):
            with suppress(AssertionError, RuntimeError, ValueError):  # it had come to that
                self.lock.release()
        self._has_lock = False

    def _release_shared(self) -> None:
        if self._has_lock:
            self._has_lock = False
            self.lock.release()

    def version(self) -> tuple[int, int]:
        """What changes as soon as another connection has committed. Inside a transaction."""
        number = self._cursor.execute("PRAGMA data_version").fetchone()[0]
        return id(self._cursor), number

    def is_still(self, version: tuple[int, int] | None) -> bool:
        """Whether nobody else has committed since `version`; False also where that is unknown."""
        thread_lock = self._thread_lock
        if version is None or self._handed is not None or thread_lock.is_mine():
            return False
        if not thread_lock.acquire(0.0, sys._getframe()):
            return False
        try:
            if self.closed or self.depth or id(self._cursor) != version[0]:
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
            thread_lock.release()

    def start_anew(self) -> None:
        """Open the file again, a new one if it is gone."""
        with self._thread_lock:
            if self._handed is None and self.is_file and not self.closed and not self._is_there():
                self._park()
                self._tag = None
                self._connect(time.monotonic() + self.busy_seconds)

    def close(self) -> None:
        """Close what was opened here, and remove a temporary file. May be called again."""
        with self._thread_lock:
            self.closed = True
            self._cursor = None
            self._finalizer()

    def after_fork(self) -> None:
        self._thread_lock.renew()
        self.depth, self._has_lock = 0, False
        self._inside = ""
        if hasattr(self.lock, "after_fork"):
            self.lock.after_fork()
        super().after_fork()

    def _take_shared(self, deadline: float, patience: float) -> None:
        left = max(0.0, deadline - time.monotonic())
        try:
            if isinstance(self.lock, ProcessLock):
                self._has_lock = self.lock.acquire(True, left, self._thread_lock.frame)
            else:
                self._has_lock = self.lock.acquire(timeout=left)
        except TimeoutError:  # of a FileLock
            pass
        if not self._has_lock:
            raise DatabaseLocked(self.path or "it", patience)

    def _has_shared_at_once(self) -> bool:
        if isinstance(self.lock, ProcessLock):
            self._has_lock = self.lock.acquire(False, None, self._thread_lock.frame)
        elif self.lock is not None:
            self._has_lock = self.lock.acquire(blocking=False)
        return self.lock is None or self._has_lock

    def _begin(self, deadline: float, patience: float) -> None:
        self._deadline = deadline
        self._ready(deadline)
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
        frame, has_lock = self._thread_lock.frame, self._has_lock
        self._has_lock = False
        self._thread_lock.release()
        try:
            time.sleep(seconds)
        finally:
            self._thread_lock.acquire(None, frame)
            self._has_lock = has_lock
        self._ready(self._deadline)

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
        deadline = max(self._deadline, time.monotonic() + _LAST_SECONDS)
        try:
            insist(lambda: self._cursor.execute(statement), deadline)
        except BaseException as error:
            self._undo(error)
            raise
        finally:
            self.run = not_begun
        # The caller may still undo his transaction, and with it the tables that were made in it.
        self._prepared = self._prepared or self._inside == "BEGIN"

    def _undo(self, error: BaseException) -> None:
        self.run = not_begun
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


class Transaction:
    """A transaction of a `Database` around a block, which is undone where the block raises.

    It waits ``seconds`` for other writers; None is as long as the database's `busy_seconds`.
    """

    __slots__ = ("_db", "_seconds")

    def __init__(self, db: Database, seconds: float | None = None) -> None:
        self._db = db
        self._seconds = seconds

    def __enter__(self) -> None:
        self._db.begin(self._seconds, sys._getframe(1))

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self._db.end(error)
