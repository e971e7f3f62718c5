"""The log in a SQLite database: it outlives the process, and is shared by those of one host."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.rate_list import sorted_rates
from pyrate_limiter._core.validation import BEGINNING, Unread
from pyrate_limiter._older import TakesKeywordsOf2x
from pyrate_limiter.abstracts.algorithm import LogAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.sqlite.clock import SQLiteClock
from pyrate_limiter.buckets.sqlite.connections import file_name, file_of, refuse_path_as_table
from pyrate_limiter.buckets.sqlite.database import Database
from pyrate_limiter.buckets.sqlite.log import RowLog
from pyrate_limiter.buckets.sqlite.statements import SIDE_TABLES, statements
from pyrate_limiter.errors import AlgorithmMismatch, InvalidDatabase, WrongType

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.sqlite.keys import SQLiteKeys


class SQLiteBucket(TakesKeywordsOf2x, AbstractBucket):
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
        table: the table's name; it is made if missing. Any characters are safe.
        lock: held around each transaction, where given.
        algorithm: a `LogAlgorithm`; `SlidingWindowLog` if left out.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: the algorithm does not work on a log.
        WrongType: ``conn`` is no connection, or ``table`` no text.
        UnusableConnection: the connection cannot be used here.
    """

    __module__ = "pyrate_limiter.buckets.sqlite_bucket"

    is_async: bool | None = False
    blocks: bool = True

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        conn: sqlite3.Connection,
        table: str,
        lock: object = None,
        algorithm: LogAlgorithm | None = None,
    ) -> None:
        checked = self._checked(rates, table, algorithm)
        if not isinstance(conn, sqlite3.Connection):
            raise WrongType("conn", conn, "a sqlite3.Connection")
        schema = (statements(table).create, *SIDE_TABLES)
        self._set_up(checked, Database(None, conn, lock, schema=schema), table, algorithm)

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
        checked = cls._checked(rates, table, algorithm)
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
            db.begin()
            try:
                db.run(sql.exists).fetchone()
            except BaseException as error:
                db.end(error)
                raise
            db.end(None)
        except BaseException:
            db.close()
            raise
        bucket = cls.__new__(cls)
        bucket._set_up(checked, db, table, algorithm)
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
        from pyrate_limiter.buckets.sqlite.keys import SQLiteKeys

        return SQLiteKeys(source, table)

    _recipe: tuple[Any, ...] | None = None  # how another process opens it

    @classmethod
    def _checked(cls, rates: Rate | Sequence[Rate], table: str, algorithm: object) -> RateList:
        if algorithm is not None and not isinstance(algorithm, LogAlgorithm):
            raise AlgorithmMismatch(algorithm, cls.__name__, "a LogAlgorithm")
        if not isinstance(table, str) or not table or "\0" in table:
            raise WrongType("table", table, "a text without null characters, not empty")
        return sorted_rates(rates)

    def _set_up(
        self, rates: RateList, db: Database, table: str, algorithm: LogAlgorithm | None
    ) -> None:
        self.table = table
        self._db = db
        self._log = RowLog(rates, algorithm, SQLiteClock(None), db, statements(table))

    @property
    def _facts(self) -> Any:
        """What keeps the rates: the log, or a stand-in until `__init__` has made that."""
        return self.__dict__.setdefault("_log", SimpleNamespace())

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

    @property
    def rates(self) -> RateList:
        return self._facts._rates  # type: ignore[no-any-return] # see there

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        checked = sorted_rates(rates)
        facts = self._facts
        facts._known = None
        facts._rates = checked
        if isinstance(facts, RowLog):
            facts._lookback.due = BEGINNING

    @property
    def failing_rate(self) -> Rate | None:
        """See `AbstractBucket.failing_rate`."""
        return self._facts.failing_rate  # type: ignore[no-any-return] # see there

    @failing_rate.setter
    def failing_rate(self, rate: Rate | None) -> None:
        self._facts.failing_rate = rate

    @property
    def _algorithm(self) -> Any:
        return self._log._algorithm

    @property
    def _clock(self) -> AbstractClock:
        return self._log._clock

    @_clock.setter
    def _clock(self, clock: AbstractClock) -> None:
        self._log._clock = clock

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, unless a subclass changes what `put` does."""
        changed = any(
            getattr(type(self), name) is not getattr(SQLiteBucket, name)
            for name in ("put", "put_decision", "waiting", "reserve", "now", "limiter_lock")
        )
        return None if changed else self.take

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that takes waiting for another writer, or would hold up an event loop.
        """
        return self._log.take(name, weight)

    def now(self) -> int:
        return self._log._clock.now()  # type: ignore[return-value] # as the clock is

    def stamp(self) -> int | Awaitable[int]:
        now: Any = self.now()
        return then(now, Unread) if type(self).now is SQLiteBucket.now else now

    def put(self, item: RateItem) -> bool:
        return self._log.put(item)

    def put_decision(self, item: RateItem) -> Decision:
        return self._log.put_decision(item)

    def waiting(self, item: RateItem) -> int:
        return self._log.waiting(item)

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Decision:
        """See `AbstractBucket.reserve`.

        The item is stamped anew when the database is free, so that no time that was spent waiting
        for it dates a unit back.
        """
        return self._log.reserve(item, max_wait_ms, buffer_ms, limit_ms, brief=brief)

    @property
    def store_id(self) -> object:
        """What the buckets of one file have in common."""
        return self._db.path or id(self._db)

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        """See `AbstractBucket.reserve_several`. The items are stamped as in `reserve`."""
        return self._log.reserve_several(items, max_wait_ms, buffer_ms, not_before, limit_ms)

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        return self._log.confirm(reservation, now, max_wait_ms)

    def cancel(self, reservation: Reservation) -> bool:
        return self._log.cancel(reservation)

    def hold(self, item: RateItem, hold_ms: int) -> int:
        return self._log.hold(item, hold_ms)

    def release_hold(self, item: RateItem) -> bool:
        return self._log.release_hold(item)

    def check(self, item: RateItem) -> Decision:
        return self._log.check(item)

    def pause(self, reservation: Reservation) -> float:
        return self._log.pause(reservation)

    def leak(self, current_timestamp: int | None = None) -> int:
        """See `AbstractBucket.leak`. 0 once closed."""
        return 0 if self._db.closed else self._log.leak(current_timestamp)

    def flush(self) -> None:
        """See `AbstractBucket.flush`. A file that is gone is made anew."""
        self._log.flush()

    def count(self) -> int:
        return self._log.count()

    def peek(self, index: int) -> RateItem | None:
        return self._log.peek(index)

    def limiter_lock(self) -> Any:
        """The file lock, or the lock that was handed in; None without."""
        return self._db.lock

    def close(self) -> None:
        """Close the file, and remove it if it is temporary. A handed-in connection stays open."""
        self._db.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same file again."""
        if self._recipe is None:
            raise WrongType(
                "a SQLiteBucket that is to be pickled",
                self,
                "one that init_from_file opened on a named file",
            )
        table, path, create, use_file_lock = self._recipe
        reopening = (type(self), self.rates, table, path, create, use_file_lock, self._algorithm)
        clock = self._clock
        if type(clock) is SQLiteClock:  # it may hold a connection; each of them reads the same
            return _reopen, reopening
        return _reopen, reopening, (None, {"_clock": clock})


def _reopen(cls: type[SQLiteBucket], *arguments: Any) -> SQLiteBucket:
    return cls.init_from_file(*arguments)
