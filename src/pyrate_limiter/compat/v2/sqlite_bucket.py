"""The SQLite buckets of 2.x: a table for each identity in one file."""

from __future__ import annotations

import atexit
import os
import sqlite3
import tempfile
import threading
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from hashlib import sha1
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from pyrate_limiter.buckets.sqlite.file_lock import SharedFileLock
from pyrate_limiter.compat.v2.bucket import AbstractBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from filelock import BaseFileLock
    from typing_extensions import Self


T = TypeVar("T")

__all__ = [
    "DEFAULT_DB_PATH",
    "FILE_LOCK",
    "LOCK_PATH",
    "SQLITE_MAX_VARIABLE_NUMBER",
    "TEMP_DIR",
    "AbstractBucket",
    "FileLockSQLiteBucket",
    "SQLiteBucket",
    "chunkify",
]

TEMP_DIR = Path(tempfile.gettempdir())
DEFAULT_DB_PATH = TEMP_DIR / "pyrate_limiter.sqlite"
LOCK_PATH = TEMP_DIR / "pyrate_limiter.lock"
SQLITE_MAX_VARIABLE_NUMBER = 999

_CREATE = "CREATE TABLE IF NOT EXISTS {table} (idx INTEGER PRIMARY KEY AUTOINCREMENT, value REAL)"
_COUNT = "SELECT COUNT(*) FROM {table}"
_PUT = "INSERT INTO {table} (value) VALUES (?)"
_GET = "DELETE FROM {table} WHERE idx IN (SELECT idx FROM {table} ORDER BY idx LIMIT ?)"
_ALL = "SELECT value FROM {table} ORDER BY idx"
_FLUSH = "DELETE FROM {table}"


class FileLock:
    """A lock file that excludes every other process that takes it, with or without this release.

    A forked process does not inherit the hold. ``filelock`` is needed on first use.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.lock_file: str = os.fspath(path)

    @cached_property
    def _lock(self) -> SharedFileLock:
        return SharedFileLock(self.lock_file)

    def after_fork(self) -> None:
        """In the child: the parent's hold is not ours."""
        vars(self).pop("_lock", None)

    @property
    def is_locked(self) -> bool:
        """Whether this process holds it."""
        return self._lock.is_locked

    def acquire(self, timeout: float = -1) -> bool:
        """Take it; False if that failed within ``timeout`` seconds, -1 for ever."""
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Let it go."""
        self._lock.release()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if "_lock" in vars(self):
            self._lock.close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class _File:
    """A database as this process sees it: one connection, and one transaction at a time."""

    def __init__(self, path: Path, kwargs: Mapping[str, object]) -> None:
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect  # says what it does not know
        self._connect = partial(connect, path, **{"timeout": _BUSY_SECONDS, **kwargs})
        self._connection: sqlite3.Connection | None = None
        self._threads = threading.RLock()
        self._depth = 0

    def after_fork(self) -> None:
        """In the child: SQLite forbids even closing what was opened before."""
        _inherited.append(self._connection)
        self._connection, self._threads, self._depth = None, threading.RLock(), 0

    def connection(self) -> sqlite3.Connection:
        """The connection, opened if need be."""
        with self._threads:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def acquire(self) -> None:
        """Keep other threads and processes from writing until `release`; may be nested."""
        self._threads.acquire()
        try:
            connection = self.connection()
            if self._depth == 0:
                connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._threads.release()
            raise
        self._depth += 1

    def release(self) -> None:
        """Write what was done since `acquire`."""
        try:
            self._depth -= 1
            if self._depth == 0:
                self.connection().execute("COMMIT")
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._threads:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it may be for another thread alone
            self.close()


FILE_LOCK = FileLock(LOCK_PATH)
atexit.register(FILE_LOCK.close)
_BUSY_SECONDS = 60  # for another process to end its transaction, unless the program says otherwise
_files: WeakValueDictionary[tuple[str, str], _File] = WeakValueDictionary()
_files_lock = threading.Lock()
_inherited: list[object] = []


def _file(path: Path, kwargs: Mapping[str, object]) -> _File:
    """The file, shared by its buckets: they may have to be locked together."""
    if str(path).startswith(":memory:"):
        return _File(path, kwargs)
    with _files_lock:
        key = (os.path.abspath(path), repr(sorted(kwargs.items())))  # noqa: PTH100 - no links followed
        return _files.setdefault(key, _File(path, kwargs))


def _after_fork() -> None:
    global _files_lock  # noqa: PLW0603 - it may have been held by a thread that is not here
    _files_lock = threading.Lock()
    FILE_LOCK.after_fork()
    for file in list(_files.values()):
        file.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SQLiteBucket(AbstractBucket):
    """Times in a table of a SQLite file, for processes of one host.

    Args:
        maxsize: see `AbstractBucket`.
        identity: whose times these are; it names the table.
        path: the file.
        kwargs: for ``sqlite3.connect``.

    Raises:
        ValueError: there is no identity.
    """

    def __init__(
        self,
        maxsize: float = 0,
        identity: object = None,
        path: str | os.PathLike[str] = DEFAULT_DB_PATH,
        **kwargs: object,
    ) -> None:
        super().__init__(maxsize)
        if not identity:
            msg = "Bucket identity is required"
            raise ValueError(msg)
        self.connection_kwargs: dict[str, object] = {"check_same_thread": False, **kwargs}
        self.table: str = f"ratelimit_{sha1(str(identity).encode()).hexdigest()}"  # noqa: S324 - a name
        self._path = Path(path)
        self._database = _file(self._path, self.connection_kwargs)
        self._lock: _File | FileLock | BaseFileLock = (
            self._database
        )  # programs' subclasses put a lock file here

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, with the table made."""
        connection = self._database.connection()
        connection.execute(self._sql(_CREATE))
        return connection

    def _sql(self, statement: str) -> str:
        return statement.format(table=self.table)

    @property
    def _size(self) -> int:
        return self.size()  # 2.x kept it here, and was wrong once another process had written

    def lock_acquire(self) -> None:
        """See `AbstractBucket.lock_acquire`. Other processes do not write either."""
        self._lock.acquire()
        try:
            self._database.acquire()
        except BaseException:
            self._lock.release()
            raise

    def lock_release(self) -> None:
        try:
            self._database.release()
        finally:
            self._lock.release()

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        self.lock_acquire()
        try:
            yield self.connection
        finally:
            self.lock_release()

    def size(self) -> int:
        with self._locked() as connection:
            row = connection.execute(self._sql(_COUNT)).fetchone()
            return int(row[0])

    def put(self, item: float) -> int:
        with self._locked() as connection:
            if self._is_full():
                return 0
            connection.execute(self._sql(_PUT), (item,))
            return 1

    def get(self, number: int = 1) -> int:
        with self._locked() as connection:
            return connection.execute(self._sql(_GET), (number,)).rowcount

    def all_items(self) -> list[float]:
        with self._locked() as connection:
            rows = connection.execute(self._sql(_ALL))
            return [row[0] for row in rows]

    def flush(self) -> None:
        with self._locked() as connection:
            connection.execute(self._sql(_FLUSH))

    def close(self) -> None:
        """Close the file for all buckets on it; the next use opens it again."""
        self._database.close()


class FileLockSQLiteBucket(SQLiteBucket):
    """`SQLiteBucket` that also takes `FILE_LOCK`, as programs that run 2.x do."""

    def __init__(self, **kwargs: object) -> None:
        initialize: Callable[..., None] = super().__init__
        initialize(**kwargs)
        self._lock = FILE_LOCK


def chunkify(iterable: Iterable[T], max_size: int) -> Iterator[list[T]]:
    """Lists of ``max_size`` values in their order; the last may be shorter."""
    values = iter(iterable)
    while chunk := list(islice(values, max_size)):
        yield chunk
