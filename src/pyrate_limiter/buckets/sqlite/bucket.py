"""The log in a SQLite database: it outlives the process, and is shared by those of one host."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from pyrate_limiter._older import TakesKeywordsOf2x
from pyrate_limiter.buckets.sqlite.calls import RowCalls
from pyrate_limiter.buckets.sqlite.clock import SQLiteClock
from pyrate_limiter.buckets.sqlite.connections import (
    check_table,
    file_name,
    file_of,
    refuse_path_as_table,
)
from pyrate_limiter.buckets.sqlite.database import Database, Transaction
from pyrate_limiter.buckets.sqlite.keys import SQLiteKeys
from pyrate_limiter.buckets.sqlite.statements import SIDE_TABLES, statements
from pyrate_limiter.errors import InvalidDatabase, WrongType

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate


class SQLiteBucket(TakesKeywordsOf2x, RowCalls):
    """A log of units in a table of a SQLite database, exact between threads and processes.

    Each operation is one transaction, so it needs no other lock. A database that another process
    is writing to is waited for: as long as the caller waits, or `busy_seconds` where he does not.
    Expired units are dropped as the bucket is used. The cost does not grow with the number of live
    units.

    Most programs want `init_from_file`. A connection that is handed in stays as it is and stays
    open; in another thread than its own, or after a fork, a connection of the bucket's own to the
    same file stands in for it. While the caller has a transaction open on it, the bucket's steps
    are part of that.

    Args:
        rates: the limits; all of them hold.
        conn: the connection.
        table: the table's name, of whatever characters; it is made if missing.
        lock: held around each transaction, where given.
        algorithm: a `LogAlgorithm`; `SlidingWindowLog` if left out.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: the algorithm does not work on a log.
        WrongType: ``conn`` is no connection, or ``table`` no text.
        UnusableConnection: the connection cannot be used here.
    """

    __module__ = "pyrate_limiter.buckets.sqlite_bucket"

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        conn: sqlite3.Connection,
        table: str,
        lock: object = None,
        algorithm: LogAlgorithm | None = None,
    ) -> None:
        self._checked(rates, algorithm)
        check_table(table)
        if not isinstance(conn, sqlite3.Connection):
            raise WrongType("conn", conn, "a sqlite3.Connection")
        sql = statements(table)
        db = Database(None, conn, lock, schema=(sql.create, *SIDE_TABLES))
        RowCalls.__init__(self, rates, algorithm, db, sql)
        self.table = table

    @classmethod
    def init_from_file(
        cls,
        rates: Rate | Sequence[Rate],
        table: str = "rate_bucket",
        db_path: str | None = None,
        create_new_table: bool = True,
        use_file_lock: bool = False,
        algorithm: LogAlgorithm | None = None,
    ) -> SQLiteBucket:
        """A bucket on a file, with a connection of its own, which `close` closes.

        Args:
            rates: see the class.
            table: see the class.
            db_path: the file, made if missing; or a URI of SQLite, such as
                ``"file:limits.db?mode=rw"``. None is a new temporary file, removed on close.
            create_new_table: whether to make the table where it is missing.
            use_file_lock: whether to hold the lock file ``db_path + ".lock"`` around each
                transaction. Only needed beside programs that run 4.5.1, which do so.
            algorithm: see the class.

        Raises:
            InvalidDatabase: a file lock without a path.
            MissingDriver: a file lock, and filelock is not installed.
            sqlite3.OperationalError: the file cannot be opened, or the table is missing.
        """
        if db_path is None:
            refuse_path_as_table(table)
        cls._checked(rates, algorithm)
        check_table(table)
        lock: object = None
        if use_file_lock:
            from pyrate_limiter.buckets.sqlite.file_lock import SharedFileLock

            if db_path is None:
                raise InvalidDatabase("db_path must be specified when using use_file_lock")
            lock = SharedFileLock(file_of(file_name(db_path)) + ".lock")
        sql = statements(table)
        schema = (sql.create, *SIDE_TABLES) if create_new_table else SIDE_TABLES
        temporary = db_path is None
        db = Database(file_name(db_path), lock=lock, temporary=temporary, schema=schema)
        try:
            with Transaction(db):
                db.run(sql.exists).fetchone()
        except BaseException:
            db.close()
            raise
        bucket = cls.__new__(cls)
        RowCalls.__init__(bucket, rates, algorithm, db, sql)
        bucket.table = table
        if not temporary and db.is_file:
            bucket._recipe = (table, db.target, create_new_table, use_file_lock)
        return bucket

    @staticmethod
    def per_key(
        source: str | os.PathLike[str] | sqlite3.Connection, table: str = "rate_buckets"
    ) -> SQLiteKeys:
        """For ``Limiter.per_key(rates, bucket=...)``: a log for each name, all in one table.

        Names cost rows and no objects, and one in which nothing counts any more leaves nothing
        behind. ``max_keys`` does not apply.

        Args:
            source: a file, made if missing, or a connection, which stays open.
            table: the table's name; it is made if missing. Its format is not that of 4.5.1.

        Raises:
            WrongType: ``source`` is neither path nor connection, or ``table`` no text.
        """
        return SQLiteKeys(source, table)

    _recipe: tuple[str, str, bool, bool] | None = None  # how another process opens it

    @property
    def busy_seconds(self) -> float:
        """How long a call that does not wait allows other processes to write, in seconds."""
        return self._db.busy_seconds

    @busy_seconds.setter
    def busy_seconds(self, seconds: float) -> None:
        self._db.busy_seconds = seconds

    @property
    def conn(self) -> sqlite3.Connection | None:
        """The connection; None once closed."""
        return self._db.connection

    @property
    def lock(self) -> Any:
        """The lock that is held around each transaction, or None."""
        return self._db.lock

    @property
    def use_limiter_lock(self) -> bool:
        """Whether there is such a `lock`."""
        return self.lock is not None

    def close(self) -> None:
        """Close the file, and remove it if it is temporary. A handed-in connection stays open."""
        self._db.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the same file again."""
        if self._recipe is None:
            raise WrongType(
                "a SQLiteBucket that is to be pickled",
                self,
                "one that init_from_file opened on a named file",
            )
        table, path, create, use_file_lock = self._recipe
        reopening = (self.rates, table, path, create, use_file_lock, self._algorithm)
        clock = self._clock
        if type(clock) is SQLiteClock:  # it may hold a connection; each of them reads the same
            return type(self).init_from_file, reopening
        return type(self).init_from_file, reopening, (None, {"_clock": clock})
