"""The units of a log in a table of SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.validation import BEGINNING, FOREVER, name_text
from pyrate_limiter.buckets.log.storage import LogStorage

if TYPE_CHECKING:
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.buckets.sqlite.database import Database
    from pyrate_limiter.buckets.sqlite.statements import Statements

_SLACK = 1024  # expired units that may lie in the table
_SWEEP_EVERY = 256  # units stored between two looks for expired ones
_SWEEP_AT_MOST = 4096  # units dropped at a time
_FENCE_UNITS = 1024
_MARKS = 8


class RowTable(LogStorage):
    """Units in rows, within transactions.

    Rows are numbered without a gap in the order of the log, so the unit at a given rank is found
    by its number, however many rows there are. What this object remembers of the table is checked
    against it at the start of each transaction, by the last row that it knows (its *fence*); rows
    that came after it are read once.

    Args:
        db: where the table is.
        sql: the statements for it.
        scope: the values by which they tell this log from others in the table.
    """

    _rates: RateList  # those of the log: they say how many rows are worth a look
    _sweep_at: int = 0
    _fences: list[tuple[int, int]]  # (number, stamp) of rows up to which the log is in order
    _marks: list[tuple[int, int]]  # (stamp, number of the last unit older than that)

    def __init__(self, db: Database, sql: Statements, scope: tuple[str, ...] = ()) -> None:
        self._db = db
        self._sql = sql
        self._scope = scope

    def _empty(self) -> None:
        """Know nothing of the table, as at the beginning. The rows in it stay."""
        self._forget_places()
        self._forget_rows()
        self._sweep_at = 0

    def _forget_rows(self) -> None:
        self._fences, self._marks = [], []
        self._total = self._base = 0
        self._newest = BEGINNING

    def _forget_places(self) -> None:
        """Rows that were known are others now."""
        self._marks = []

    def _run(self, statement: str, *values: object) -> Any:
        return self._db.run(statement, (*self._scope, *values)).fetchone()

    def _write(self, statement: str, *values: object) -> int:
        return self._db.run(statement, (*self._scope, *values)).rowcount

    def _rows(self, statement: str, *values: object) -> list[Any]:
        return self._db.run(statement, (*self._scope, *values)).fetchall()

    def _learn_rows(self) -> bool:
        """Learn what others have stored or dropped; False where that is not in order."""
        fences = self._fences
        rows: list[tuple[int, int]] = []
        while fences:
            rows = self._rows(self._sql.since, fences[-1][0])
            if rows and rows[0] == fences[-1]:
                self._total, self._newest = fences[-1]
                del rows[0]
                break
            fences.pop()
            self._forget_places()
        else:
            self._empty()
            rows = self._rows(self._sql.since, BEGINNING)
            if rows:
                self._base = self._total = rows[0][0] - 1
        for number, stamp in rows:
            if stamp < self._newest or number != self._total + 1:
                return False
            self._total, self._newest = number, stamp
        if rows:
            self._set_fence()
        return True

    def _set_fence(self) -> None:
        fences, fence = self._fences, (self._total, self._newest)
        if len(fences) > 1 and fence[0] - fences[-2][0] < _FENCE_UNITS:
            fences[-1] = fence
        else:
            fences.append(fence)
            del fences[:-3]

    def _put_in_order(self, due: set[int], latest: int) -> None:
        """Sort the rows that are not: an older stamp that arrives second counts as the newest.

        Reservations, which are ``due``, stay behind it. ``latest`` is the time up to which the log
        is in order.
        """
        self._forget_places()
        good, rows = self._total, self._rows(self._sql.units, self._total, FOREVER)
        units = []
        for name, stamp in rows:
            if stamp not in due:
                latest = max(latest, stamp)
            units.append((name, max(stamp, latest)))
        first = min((stamp for _, stamp in units), default=self._newest)
        keep = self._before(first + 1) if good > self._base else good
        units = [*self._rows(self._sql.units, keep, good), *units]
        units.sort(key=lambda unit: unit[1])
        self._rewrite(keep, units)

    def _rewrite(self, keep: int, units: list[tuple[str, int]]) -> None:
        """Replace all rows after ``keep``."""
        self._write(self._sql.drop, keep, FOREVER)
        self._total = keep
        for name, stamp in units:
            self._insert(name, 1, stamp)
        self._cut(keep)

    def _cut(self, keep: int) -> None:
        """Note that the rows after ``keep`` were changed."""
        self._forget_places()
        self._fences = [fence for fence in self._fences if fence[0] <= keep]
        last = self._run(self._sql.stamp, self._total)
        if last is None:
            self._forget_rows()
        else:
            self._newest = last[0]
            self._set_fence()

    def _insert(self, name: str, weight: int, stamp: int) -> None:
        first, name = self._total + 1, name_text(name)
        if weight == 1:
            self._db.run(self._sql.insert, (first, name, stamp))
        else:
            self._db.run(self._sql.insert_many, (first, self._total + weight, name, stamp))
        self._total += weight

    def _append(self, name: str, weight: int, stamp: int) -> None:
        if weight:
            self._insert(name, weight, stamp)
            self._newest = stamp
            self._set_fence()

    def _add(self, name: str, weight: int, stamp: int) -> None:
        older = self._before(stamp + 1)
        newer = self._rows(self._sql.units, older, FOREVER)
        self._rewrite(older, [(name, stamp)] * weight + newer)

    def _stamp(self, number: int) -> int:
        if number == self._total:
            return self._newest
        row = self._run(self._sql.stamp, number)
        return BEGINNING if row is None else row[0]  # what is not there has left

    def _before(self, stamp: int) -> int:
        if self._newest < stamp or self._total == self._base:
            return self._total
        known = max((mark for mark in self._marks if mark[0] <= stamp), default=None)
        found = high = self._total
        if known is not None and stamp - known[0] <= self._rates.shortest_ms:
            # Seen from the last answer it is a few rows on: the look at them is one step.
            self._marks.remove(known)
            row = self._run(self._sql.first_since, known[1], stamp)
            if row is not None and row[0] > known[1]:
                found = high = row[0] - 1
        if found == self._total:
            found = self._base
            while found < high:
                middle = (found + high) // 2
                if self._stamp(middle + 1) < stamp:
                    found = middle + 1
                else:
                    high = middle
        self._marks.append((stamp, found))
        del self._marks[:-_MARKS]
        return found

    def _drop_before(self, stamp: int) -> int:
        return self._drop(self._before(stamp))

    def _drop(self, keep: int) -> int:
        dropped = self._write(self._sql.drop, BEGINNING, keep)
        if keep == self._total:
            self._forget_rows()
        else:
            self._base = max(self._base, keep)
        return dropped

    def _remove(self, stamp: int, name: str, weight: int) -> bool:
        return self._edit(stamp, stamp, name, weight, -1)

    def _move(self, stamp: int, name: str, weight: int, later: int) -> bool:
        return self._edit(stamp, later, name, weight, 1)

    def _edit(self, stamp: int, later: int, name: str, weight: int, sign: int) -> bool:
        low, high, name = self._before(stamp), self._before(later + 1), name_text(name)
        units = self._rows(self._sql.units, low, high)
        places = [place for place, unit in enumerate(units) if unit == (name, stamp)]
        if len(places) < weight:
            return False
        taken = set(places[len(places) - weight :])
        moved = [unit for place, unit in enumerate(units) if place not in taken]
        if sign > 0:
            moved += [(name, later)] * weight
        for place, unit in enumerate(moved):
            if unit != units[place]:
                self._db.run(self._sql.replace, (*unit, *self._scope, low + place + 1))
        if sign < 0:
            self._write(self._sql.drop, high - weight, high)
            self._db.run(self._sql.close_gap, (weight, *self._scope, high))
            self._total -= weight
        self._cut(low)
        return True

    def _name_of(self, number: int) -> str:
        return str(self._run(self._sql.units, number - 1, number)[0])

    def _shift(self, milliseconds: int, after: int, floor: int) -> None:
        self._db.run(self._sql.shift, (floor, milliseconds, *self._scope, after))
        self._cut(BEGINNING)

    def _has_grown(self) -> bool:
        return not self._sweep_at - _SWEEP_EVERY <= self._total < self._sweep_at

    def _trim(self, bound: int) -> None:
        """Drop some of those that are older, where they are many."""
        self._sweep_at = self._total + _SWEEP_EVERY
        first = self._run(self._sql.first)[0]
        if first is None:
            return
        self._base = first - 1
        keep = self._before(bound)
        surplus = keep - self._base - max(_SLACK, self._rates[-1].limit)
        if surplus > 0:
            self._drop(self._base + min(surplus + _SWEEP_EVERY, _SWEEP_AT_MOST, keep - self._base))
