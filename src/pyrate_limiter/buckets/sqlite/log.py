"""The log of a `SQLiteBucket`: the rules of a log over rows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter._core.validation import BEGINNING, Unread
from pyrate_limiter.buckets.log.bucket import LogBucket
from pyrate_limiter.buckets.log.rules import ABANDONED_MS
from pyrate_limiter.buckets.sqlite.clock import SQLiteClock
from pyrate_limiter.buckets.sqlite.database import Transaction
from pyrate_limiter.buckets.sqlite.lookback import Lookback
from pyrate_limiter.buckets.sqlite.table import RowTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.sqlite.database import Database
    from pyrate_limiter.buckets.sqlite.statements import Statements


class LogTransaction(Transaction):
    """The lock of a log in a table: a transaction, in which the log is what the table says."""

    __slots__ = ("_log",)

    def __init__(self, log: RowLog, seconds: float | None = None) -> None:
        super().__init__(log._db, seconds)
        self._log = log

    def __enter__(self) -> None:
        if self._db.begin(self._seconds, sys._getframe(1)):
            self._refresh()

    def enter_at_once(self) -> bool:
        """Enter a new transaction, unless something has to be waited for or mended first."""
        if not self._db.begin_at_once(sys._getframe(1)):
            return False
        self._refresh()
        return True

    def _refresh(self) -> None:
        try:
            self._log._refresh()
        except BaseException as error:
            self.__exit__(None, error, None)
            raise

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None:
            self._log._empty()
        try:
            super().__exit__(None, error, None)
        except BaseException:
            self._log._empty()
            raise


class Refusal(NamedTuple):
    """What the last refusal has taught."""

    asked: int  # the time at which it was given
    until: int  # until then the same rate refuses that weight, if nothing changes
    moment: int  # the earliest one at which the weight fits
    weight: int
    rate: Rate
    version: tuple[int, int] | None  # of the database


class RowLog(LogBucket, RowTable):
    """A `LogBucket` whose storage is a `RowTable`, and whose lock is a transaction.

    What is reserved is noted in tables of its own, at which 4.5.1 does not look. They are read only
    where the newest row is ahead of the clock, or a reservation changes.
    """

    blocks: bool = True
    _looks = 16  # each takes a few queries
    _known: Refusal | None = None
    _loaded = False  # whether _latest and _stepped are those of this transaction

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        algorithm: LogAlgorithm | None,
        db: Database,
        sql: Statements,
        scope: tuple[str, ...] = (),
    ) -> None:
        RowTable.__init__(self, db, sql, scope)
        self._lookback = Lookback(db, sql)
        LogBucket.__init__(self, rates, algorithm, SQLiteClock(None))

    @property
    def _lock(self) -> LogTransaction:
        return LogTransaction(self)

    @property
    def store_id(self) -> object:
        """What the buckets of one file have in common."""
        return self._db.path or id(self._db)

    def _forget_places(self) -> None:
        super()._forget_places()
        self._known = None

    def _changed(self) -> None:
        super()._changed()
        self._known = None

    def _rates_changed(self) -> None:
        super()._rates_changed()
        lookback = getattr(self, "_lookback", None)  # the rates may come before `__init__`
        if lookback is not None:
            lookback.due = BEGINNING

    def _load(self) -> None:
        """Read how far the clock had come when the last reservation was made."""
        if self._loaded:
            return
        latest, moment, self._stepped = self._run(self._sql.clock) or (BEGINNING, BEGINNING, 0)
        self._latest = latest if self._newest <= moment else self._newest
        self._loaded = True

    def _note_clock(self, latest: int, moment: int) -> None:
        self._load()
        self._write(self._sql.set_clock, latest, moment, self._stepped)

    def _refresh(self) -> None:
        """Learn what others have done since the last transaction."""
        self._crammed = None
        self._loaded = False
        self._hold = self._run(self._sql.hold)
        if not self._learn_rows():
            self._load()
            due = {moment for moment, _ in self._rows(self._sql.pending)}
            self._put_in_order(due, self._latest if self._newest in due else self._newest)

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        if moment > now or self._newest > now:
            self._note_clock(now, max(moment, self._newest))
        self._lookback.note(now, self._algorithm, self._rates)
        self._known = None
        super()._store(name, weight, moment, now)

    def _leak_bound(self, now: int) -> int:
        bound = super()._leak_bound(now)
        return self._lookback.bound(now, bound, self._algorithm, self._rates)

    def _observe(self, stamp: int, *, asks: bool = False) -> int:
        moment = stamp + self._ahead if stamp.__class__ is Unread else stamp
        if moment < self._newest:
            self._load()
        elif not self._loaded:
            self._latest = self._newest
        return super()._observe(stamp, asks=asks)

    def _keep_hold(self, hold: tuple[int, int] | None) -> None:
        super()._keep_hold(hold)
        if hold is None:
            self._write(self._sql.drop_hold)
        else:
            self._write(self._sql.set_hold, *hold)

    def _next_departure(self, moment: int, weight: int) -> tuple[int, Rate | None]:
        self._pending = dict(self._rows(self._sql.pending))
        return super()._next_departure(moment, weight)

    def _awaited(self, moment: int) -> int:
        row = self._run(self._sql.pending_at, moment)
        return 0 if row is None else int(row[0])

    def _awaited_after(self, moment: int) -> int:
        return int(self._run(self._sql.pending_after, moment)[0])

    def _expect(self, moment: int, units: int, now: int) -> None:
        self._load()
        if units > 0:
            self._write(self._sql.add_pending, moment, units)
            self._write(self._sql.drop_old_pending, now - self._rates.longest_ms - ABANDONED_MS)
            highest = self._run(self._sql.clock)
            self._note_clock(now, max(moment, highest[1] if highest else moment))
            return
        row = self._run(self._sql.pending_at, moment)
        if row is not None:
            if row[0] + units > 0:
                self._write(self._sql.add_pending, moment, units)
            else:
                self._write(self._sql.drop_pending, moment)

    def _step_back(self, milliseconds: int, now: int) -> None:
        self._load()
        super()._step_back(milliseconds, now)

    def _move_back(self, milliseconds: int, now: int, floor: int) -> None:
        self._shift(milliseconds, now, floor)
        pending = self._rows(self._sql.pending)
        self._write(self._sql.flush_pending)
        for moment, units in pending:
            moved = max(floor, moment - milliseconds) if moment > now else moment
            self._write(self._sql.add_pending, moved, units)
        self._stepped += milliseconds
        last = self._run(self._sql.last_pending)[0]
        self._note_clock(self._latest, self._newest if last is None else max(last, self._newest))
