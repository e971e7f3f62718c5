"""A log of units in a table of SQLite, for `JudgedLog` to judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog
from pyrate_limiter.abstracts.awaiting import discard
from pyrate_limiter.abstracts.checks import check_item
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
from pyrate_limiter.buckets.judged_log import _ABANDONED_MS, _SAME_CLOCK_MS
from pyrate_limiter.buckets.sqlite_statements import Statements
from pyrate_limiter.buckets.unit_log import BEGINNING, FOREVER

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.sqlite_file import Database
    from pyrate_limiter.clocks import AbstractClock
    from pyrate_limiter.utils import RateList

_SLACK = 1024  # expired units that may lie in the table
_SWEEP_EVERY = 256  # units stored between two looks for expired ones
_SWEEP_AT_MOST = 4096  # units dropped at a time
_FENCE_UNITS = 1024
_MARKS = 8


class Turn:
    """The lock of a `RowLog`: a transaction, in which the log is what the table says.

    It waits ``seconds`` for other writers, or a little longer than most are willing to.
    """

    __slots__ = ("_log", "_seconds")

    def __init__(self, log: RowLog, seconds: float | None = None) -> None:
        self._log = log
        self._seconds = seconds

    def __enter__(self) -> None:
        log = self._log
        if log._db.begin(self._seconds):
            try:
                log._refresh()
            except BaseException as error:
                self.__exit__(None, error, None)
                raise

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        log = self._log
        if error is not None:
            log._forget()
        try:
            log._db.end(error)
        except BaseException:
            log._forget()
            raise


class Refusal(NamedTuple):
    """What the last refusal has taught."""

    asked: int  # the time at which it was given
    until: int  # until then the same rate refuses that weight, if nothing changes
    moment: int  # the earliest one at which the weight fits
    weight: int
    rate: Rate
    version: tuple[int, int] | None  # of the database


class RowLog(InMemoryBucket):
    """The log of a `SQLiteBucket`: `InMemoryBucket`'s rules over rows instead of arrays.

    Rows are numbered without a gap in the order of the log, so the unit at a given rank is found
    by its number, however many rows there are. What this object remembers of the table is checked
    against it at the start of each transaction, by the last row that it knows (its *fence*); rows
    that came after it are read once, and put in order where a program running 4.5.1 stored an
    older stamp behind a newer one.

    Claims that are still to come are noted in tables of their own, which 4.5.1 does not look at.
    They are read only where the newest row is ahead of the clock, or a claim changes.
    """

    __slots__ = (
        "_db",
        "_fences",
        "_judged",
        "_known",
        "_loaded",
        "_marks",
        "_scope",
        "_sql",
    )

    _loaded: bool  # whether _latest and _stepped are those of this transaction
    _fences: list[tuple[int, int]]  # (number, stamp) of rows up to which the log is in order
    _marks: list[tuple[int, int]]  # (stamp, number of the last unit older than that)

    def __init__(
        self,
        rates: RateList,
        algorithm: LogAlgorithm | None,
        clock: AbstractClock,
        db: Database,
        sql: Statements,
        scope: tuple[str, ...] = (),
    ) -> None:
        self._db = db
        self._sql = sql
        self._scope = scope
        super().__init__(rates, algorithm)
        self._clock = clock
        self._lock = Turn(self)
        self._forget()

    def _forget(self) -> None:
        self._fences = []
        self._marks = []
        self._total = self._base = 0
        self._newest = self._judged = BEGINNING
        self._latest = BEGINNING
        self._full = self._pending = self._known = None
        self._sweep_at = 0
        self._loaded = False

    # What the bucket's methods do otherwise than in memory ------------------------------------

    def put(self, item: RateItem) -> bool:
        """See `AbstractBucket.put`."""
        check_item(item)
        known = self._still_known(item.timestamp, item.weight)
        if known is not None:
            self.failing_rate = known.rate
            return False
        return super().put(item)

    def claim(self, item: RateItem, patience_ms: int = 0, buffer_ms: int | None = None) -> Decision:
        """See `AbstractBucket.claim`. The item is stamped anew when its turn has come."""
        check_item(item)
        stamp = self._time_of(item.timestamp)
        known = self._still_known(stamp, item.weight)
        if known is not None and item.weight == 1 and known.moment - stamp > patience_ms:
            self.failing_rate = known.rate
            return self._refusal(stamp, known)
        with Turn(self, patience_ms / 1000):
            item.timestamp = self._time_of(item.timestamp)
            return super().claim(item, patience_ms, buffer_ms)

    def settle(self, item: RateItem, now: int, patience_ms: int = 0) -> Decision:
        """See `AbstractBucket.settle`."""
        with self._lock:
            self._load()
            return super().settle(item, self._time_of(now), patience_ms)

    def release(self, item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        with self._lock:
            self._load()
            if not super().release(item):
                return False
            last = self._run(self._sql.last_claim)[0]
            self._note_clock(self._latest, BEGINNING if last is None else last)
            return True

    def waiting(self, item: RateItem) -> int:
        """See `AbstractBucket.waiting`."""
        known = self._known
        if self.failing_rate is None or known is None or known.weight != item.weight:
            return super().waiting(item)
        return -1 if known.moment == FOREVER else max(0, known.moment - item.timestamp)

    def flush(self) -> None:
        """See `AbstractBucket.flush`."""
        self._db.start_anew()
        with self._lock:
            self._load()
            self._write(self._sql.flush)
            self._write(self._sql.flush_claims)
            self._note_clock(BEGINNING, BEGINNING)
            self._forget()
            self.failing_rate = None

    def count(self) -> int:
        """See `AbstractBucket.count`."""
        with self._lock:
            return int(self._run(self._sql.count)[0])

    def _time_of(self, stamp: int) -> int:
        """The stamp, or the clock's reading where it has gone on while the caller waited."""
        now: Any = self._clock.now()
        return now if now.__class__ is int and 0 < now - stamp <= _SAME_CLOCK_MS else stamp

    def _still_known(self, stamp: int, weight: int) -> Refusal | None:
        """The last refusal, where it still stands: it is too early, and nothing has changed."""
        known = self._known
        if (
            known is not None
            and known.asked <= stamp < known.until
            and (weight == known.weight or (weight > known.weight and known.rate is self._rates[0]))
            and self._db.is_still(known.version)
        ):
            return known
        return None

    def still_refused(self, weight: int) -> bool | None:
        """False where the last refusal still stands at this moment, else None."""
        if self._known is None:
            return None
        now: Any = self._clock.now()
        known = self._still_known(now, weight) if now.__class__ is int else discard(now)
        if known is None:
            return None
        self.failing_rate = known.rate
        return False

    def _refusal(self, now: int, known: Refusal) -> Decision:
        last = max(now, self._newest)
        reset = max(
            last - now + self._algorithm.retry_after(rate, last, self._newest)
            for rate in self._rates
        )
        return Decision(known.rate, known.moment - now, 0, 0, reset)

    # The table as a `UnitLog` --------------------------------------------------------------------

    def _run(self, statement: str, *values: Any) -> Any:
        return self._db.run(statement, (*self._scope, *values)).fetchone()

    def _write(self, statement: str, *values: Any) -> int:
        return self._db.run(statement, (*self._scope, *values)).rowcount

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        return self._db.run(statement, (*self._scope, *values)).fetchall()

    def _refresh(self) -> None:
        """Learn what others have done since the last transaction."""
        self._loaded = False
        fences = self._fences
        while fences:
            rows = self._rows(self._sql.since, fences[-1][0])
            if rows and rows[0] == fences[-1]:
                self._total, self._newest = fences[-1]
                del rows[0]
                break
            fences.pop()
            self._marks, self._known = [], None
        else:
            self._forget()
            rows = self._rows(self._sql.since, BEGINNING)
            if rows:
                self._base = self._total = rows[0][0] - 1
        for number, stamp in rows:
            if stamp < self._newest or number != self._total + 1:
                self._put_in_order()
                return
            self._total, self._newest = number, stamp
        if rows:
            self._set_fence()

    def _set_fence(self) -> None:
        fences, fence = self._fences, (self._total, self._newest)
        if len(fences) > 1 and fence[0] - fences[-2][0] < _FENCE_UNITS:
            fences[-1] = fence
        else:
            fences.append(fence)
            del fences[:-3]

    def _put_in_order(self) -> None:
        """Sort the rows that are not: an older stamp that arrives second counts as the newest.

        Only claims to come stay behind it.
        """
        self._load()
        self._marks, self._known = [], None
        good, rows = self._total, self._rows(self._sql.units, self._total)
        due = {moment for moment, _ in self._rows(self._sql.claims)}
        latest = self._latest if self._newest in due else self._newest
        units = []
        for _, name, stamp in rows:
            if stamp not in due:
                latest = max(latest, stamp)
            units.append((name, max(stamp, latest)))
        first = min((stamp for _, stamp in units), default=self._newest)
        keep = self._before(first + 1) if good > self._base else good
        units = [(name, stamp) for _, name, stamp in self._rows(self._sql.units, keep)][
            : good - keep
        ] + units
        units.sort(key=lambda unit: unit[1])
        self._write(self._sql.drop_after, keep)
        self._total = keep
        for name, stamp in units:
            self._insert(name, 1, stamp)
        self._cut(keep)

    def _cut(self, keep: int) -> None:
        """Note that the rows after ``keep`` were changed."""
        self._marks, self._known = [], None
        self._fences = [fence for fence in self._fences if fence[0] <= keep]
        last = self._run(self._sql.stamp, self._total)
        if last is None:
            self._forget_rows()
        else:
            self._newest = last[0]
            self._set_fence()

    def _forget_rows(self) -> None:
        self._fences, self._marks = [], []
        self._total = self._base = 0
        self._newest = BEGINNING

    def _insert(self, name: str, weight: int, stamp: int) -> None:
        first = self._total + 1
        if weight == 1:
            self._db.run(self._sql.insert, (first, name, stamp))
        else:
            self._db.run(self._sql.insert_many, (first, self._total + weight, name, stamp))
        self._total += weight

    def _append(self, name: str, weight: int, stamp: int) -> None:
        if weight:
            self._insert(name, weight, stamp)
            self._newest = stamp
            self._known = None
            self._set_fence()

    def _stamp(self, number: int) -> int:
        if number == self._total:
            return self._newest
        row = self._run(self._sql.stamp, number)
        return BEGINNING if row is None else row[0]  # what is not there has left

    def _name_of(self, number: int) -> str:
        return str(self._run(self._sql.name, number)[0])

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
        dropped = self._write(self._sql.drop_before, keep)
        if keep == self._total:
            self._forget_rows()
        else:
            self._base = max(self._base, keep)
        return dropped

    def _edit(self, stamp: int, later: int, name: str, weight: int, sign: int) -> bool:
        low, high = self._before(stamp), self._before(later + 1)
        units = [(who, when) for _, who, when in self._rows(self._sql.units_between, low, high)]
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
            self._write(self._sql.drop_between, high - weight, high)
            self._db.run(self._sql.close_gap, (weight, *self._scope, high))
            self._total -= weight
        self._cut(low)
        return True

    def _sweep(self, now: int) -> None:
        self._sweep_at = self._total + _SWEEP_EVERY
        first = self._run(self._sql.first)[0]
        if first is None:
            return
        self._base = first - 1
        keep = self._before(self._algorithm.leak_bound(self._rates, now))
        surplus = keep - self._base - max(_SLACK, self._rates[-1].limit)
        if surplus > 0:
            self._drop(self._base + min(surplus + _SWEEP_EVERY, _SWEEP_AT_MOST, keep - self._base))

    # Judging: what has to be read or written down beside the rows ---------------------------------

    def _put_now(self, name: str, weight: int, now: int) -> bool:
        return self._put_slowly(name, weight, now)

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        if moment > now:
            self._note_clock(now, moment)
        self._append(name, weight, moment)
        self._latest = now
        self.failing_rate = None
        if not self._sweep_at - _SWEEP_EVERY <= self._total < self._sweep_at:
            self._sweep(now)

    def _refuse(self, weight: int, moment: int, failing: Rate | None) -> None:
        failing = failing or self._rates[0]
        self.failing_rate = failing
        until = moment
        if self._algorithm.__class__ is not SlidingWindowLog or self._newest > self._judged:
            until = BEGINNING
        elif weight <= failing.limit and len(self._rates) > 1:
            # From then on it is another rate that refuses.
            until = self._stamp(self._total + weight - failing.limit) + failing.interval + 1
        version = self._db.version() if until > BEGINNING else None
        self._known = Refusal(self._judged, until, moment, weight, failing, version)

    def _observe(self, stamp: int) -> int:
        if stamp < self._newest:
            self._load()
        elif not self._loaded:
            self._latest = self._newest
        self._judged = super()._observe(stamp)
        return self._judged

    def _load(self) -> None:
        """Read how far the clock had come when the last claim was made."""
        if self._loaded:
            return
        latest, moment, self._stepped = self._run(self._sql.clock) or (BEGINNING, BEGINNING, 0)
        self._latest = latest if self._newest <= moment else self._newest
        self._loaded = True

    def _note_clock(self, latest: int, moment: int) -> None:
        self._load()
        self._write(self._sql.set_clock, latest, moment, self._stepped)

    def _next_departure(self, moment: int, weight: int) -> tuple[int, Rate | None]:
        self._pending = dict(self._rows(self._sql.claims))
        return super()._next_departure(moment, weight)

    def _expect(self, moment: int, units: int, now: int) -> None:
        self._load()
        if units > 0:
            self._write(self._sql.add_claim, moment, units)
            self._write(self._sql.drop_claims, now - self._rates.longest_ms - _ABANDONED_MS)
            highest = self._run(self._sql.clock)
            self._note_clock(now, max(moment, highest[1] if highest else moment))
            return
        row = self._run(self._sql.claim, moment)
        if row is not None:
            if row[0] + units > 0:
                self._write(self._sql.add_claim, moment, units)
            else:
                self._write(self._sql.drop_claim, moment)

    def _step_back(self, milliseconds: int) -> None:
        self._load()
        self._db.run(self._sql.shift, (milliseconds, *self._scope))
        claims = self._rows(self._sql.claims)
        self._write(self._sql.flush_claims)
        for moment, units in claims:
            self._write(self._sql.add_claim, moment - milliseconds, units)
        self._latest -= milliseconds
        self._newest -= milliseconds
        self._stepped += milliseconds
        moment = claims[-1][0] - milliseconds if claims else BEGINNING
        self._note_clock(self._latest, max(moment, self._newest))
        self._cut(BEGINNING)
