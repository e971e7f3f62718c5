"""A log for each name, all in one table of a SQLite database."""

from __future__ import annotations

import sqlite3
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.leaker import Leaker
from pyrate_limiter._core.rate_list import sorted_rates
from pyrate_limiter._core.validation import name_text
from pyrate_limiter.abstracts.algorithm import SlidingWindowLog
from pyrate_limiter.abstracts.bucket import BucketFactory
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.sqlite.bucket import SQLiteBucket
from pyrate_limiter.buckets.sqlite.calls import RowCalls
from pyrate_limiter.buckets.sqlite.clock import SQLiteClock
from pyrate_limiter.buckets.sqlite.connections import file_name
from pyrate_limiter.buckets.sqlite.database import Database, Transaction
from pyrate_limiter.buckets.sqlite.lookback import Lookback
from pyrate_limiter.buckets.sqlite.statements import SIDE_TABLES, Statements, statements
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.buckets.sqlite.keys import SQLiteKeys

_RECENT = 256  # names whose buckets are kept for a while
_SWEEP_EVERY = 64  # visits of new or growing names between two looks for expired rows
_SWEEP_AT_MOST = 2000  # rows dropped at a time


class SQLiteKeyedFactory(BucketFactory):
    """Routes each name to its log in the table. Made by ``Limiter.per_key``.

    Args:
        rates: the limits that each name is held to.
        keys: where the logs are.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        UnusableConnection: the connection cannot be used here.
        sqlite3.OperationalError: the file cannot be opened.
    """

    _leaker: Leaker[Any] | None = None  # of the table, which leaks as a bucket does

    def __init__(self, rates: Rate | Sequence[Rate], keys: SQLiteKeys) -> None:
        self._rates = sorted_rates(rates)
        self._keys = keys
        self._logs = _Logs(self._rates, keys)
        self._recent: deque[SQLiteBucket] = deque(maxlen=_RECENT)
        # One bucket for a name at a time: it remembers what it was refused.
        self._buckets: weakref.WeakValueDictionary[str, SQLiteBucket]
        self._buckets = weakref.WeakValueDictionary()

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        """Stamp an item with the time."""
        return RateItem(name, self._logs.clock.now(), weight)

    def _gets_at_once(self) -> bool:
        return type(self).get is SQLiteKeyedFactory.get

    def get(self, item: RateItem) -> SQLiteBucket:
        """The bucket of the item's name."""
        return self.bucket(item.name)

    def bucket(self, name: str) -> SQLiteBucket:
        """The bucket of a name: a view of its rows."""
        bucket = self._buckets.get(name)
        if bucket is None:
            if self._leaker is None:
                self._leaker = Leaker(self._leak_interval)
                self._leaker.sync_buckets[id(self._logs)] = self._logs
                self._leaker.start()
            bucket = self._buckets.setdefault(name, _KeyBucket(self._logs, name))
            self._recent.append(bucket)
        return bucket

    def straight(self) -> Callable[[str, int], bool | None]:
        """See `SQLiteBucket.straight`."""
        return self.take

    def take(self, name: str, weight: int) -> bool | None:
        """See `SQLiteBucket.take`."""
        return self.bucket(name).take(name, weight)

    def get_buckets(self) -> list[AbstractBucket]:
        """None: the buckets are views, and are not swept one by one."""
        return []

    def close(self) -> None:
        """Stop sweeping, and close the file that was opened here. May be called again."""
        super().close()
        self._recent.clear()
        self._logs.db.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the same file again."""
        if isinstance(self._keys.source, sqlite3.Connection):
            raise WrongType("what is to be pickled", self._keys.source, "the path of a file")
        return type(self), (self._rates, self._keys)


class _Logs:
    """The table, apart from its factory, so that the sweeper does not hold that."""

    is_async = False

    def __init__(self, rates: RateList, keys: SQLiteKeys) -> None:
        self.rates = rates
        self.table = keys.table
        self.sql: Statements = statements(keys.table, keyed=True)
        self.clock = SQLiteClock(None)
        self._visits = 0
        self._algorithm = SlidingWindowLog()
        schema = (self.sql.create, self.sql.index, *SIDE_TABLES)
        if isinstance(keys.source, sqlite3.Connection):
            self.db = Database(None, keys.source, schema=schema)
        else:
            self.db = Database(file_name(keys.source), schema=schema)
        self.lookback: Lookback = Lookback(self.db, self.sql)

    def visit(self, now: int) -> None:
        """Drop expired rows now and then. Within a transaction."""
        if self._visits % _SWEEP_EVERY == 0:
            self._drop(now)
        self._visits += 1

    def leak(self) -> int:
        """Drop all rows that count no more, and what else there is about their names."""
        dropped = 0
        now = self.clock.now()
        while not self.db.closed:
            with Transaction(self.db):
                some = self._drop(now)
                if some < _SWEEP_AT_MOST:
                    for statement in self.sql.drop_quiet:
                        self.db.run(statement)
                    self.db.run(self.sql.drop_old_holds, (now,))
            dropped += some
            if some < _SWEEP_AT_MOST:
                break
        return dropped

    def _drop(self, now: int) -> int:
        bound = now - self.rates.longest_ms
        bound = self.lookback.bound(now, bound, self._algorithm, self.rates)
        return self.db.run(self.sql.drop_expired, (bound, _SWEEP_AT_MOST)).rowcount


class _KeyBucket(SQLiteBucket):
    """A view of one name's rows. Nobody but this library writes them: they are always in order."""

    def __init__(self, logs: _Logs, name: str) -> None:
        RowCalls.__init__(self, logs.rates, None, logs.db, logs.sql, (name_text(name),))
        self.table, self._clock = logs.table, logs.clock
        self._logs = logs
        self._lookback = logs.lookback

    def _learn_rows(self) -> bool:
        last = self._run(self._sql.last)
        if last != (self._total, self._newest):
            self._forget_places()
            self._forget_rows()
            if last is not None:
                self._total, self._newest = last
        return True

    def _insert(self, name: str, weight: int, stamp: int) -> None:
        del name  # the rows are found by the key
        super()._insert(self._scope[0], weight, stamp)

    def _edit(self, stamp: int, later: int, name: str, weight: int, sign: int) -> bool:
        del name
        return super()._edit(stamp, later, self._scope[0], weight, sign)

    def _sweep(self, now: int) -> None:
        self._sweep_at = self._total + _SWEEP_EVERY
        self._logs.visit(now)
        # It may have dropped rows of this name, all but those that count.
        self._base = 0

    def close(self) -> None:
        """Nothing: the factory closes the file."""
