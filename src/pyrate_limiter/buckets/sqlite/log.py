"""The log of a `SQLiteBucket`: the rules of a log over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter._core.awaitables import in_event_loop
from pyrate_limiter._core.process_lock import LAST_SECONDS, has_end, lock_seconds
from pyrate_limiter._core.timeline import LATEST_MS, read
from pyrate_limiter._core.validation import BEGINNING, FOREVER, Unread, check_item
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, SlidingWindowLog
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.log.bucket import LogBucket
from pyrate_limiter.buckets.log.rules import ABANDONED_MS
from pyrate_limiter.buckets.sqlite.database import FOREVER_SECONDS
from pyrate_limiter.buckets.sqlite.errors import DatabaseLocked
from pyrate_limiter.buckets.sqlite.lookback import Lookback
from pyrate_limiter.buckets.sqlite.table import RowTable, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.sqlite.database import Database
    from pyrate_limiter.buckets.sqlite.statements import Statements


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

    _lock: Turn
    _looks = 16  # each takes a few queries
    _known: Refusal | None = None
    _loaded = False  # whether _latest and _stepped are those of this transaction

    def __init__(
        self,
        rates: RateList,
        algorithm: LogAlgorithm | None,
        clock: AbstractClock,
        db: Database,
        sql: Statements,
        scope: tuple[str, ...] = (),
    ) -> None:
        RowTable.__init__(self, db, sql, scope)
        self._lookback = Lookback(db, sql)
        self._lock = Turn(self)
        LogBucket.__init__(self, rates, algorithm, clock)

    def _forget(self) -> None:
        super()._forget()
        self._latest = BEGINNING
        self._full = self._pending = None
        self._loaded = False

    def _forget_places(self) -> None:
        super()._forget_places()
        self._known = None

    def _changed(self) -> None:
        super()._changed()
        self._known = None

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
        self._crammed = None
        self._loaded = False
        self._hold = self._run(self._sql.hold)
        if not self._learn_rows():
            self._load()
            due = {moment for moment, _ in self._rows(self._sql.pending)}
            self._put_in_order(due, self._latest if self._newest in due else self._newest)

    def put(self, item: RateItem) -> bool:
        check_item(item)
        known = self._still_known(item.timestamp, item.weight)
        if known is not None:
            self.failing_rate = known.rate
            return False
        return super().put(item)

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Decision:
        """See `AbstractBucket.reserve`. The item is stamped anew when its turn has come."""
        del brief
        check_item(item)
        stamp = self._time_of(item.timestamp)
        known = self._still_known(stamp, item.weight)
        if known is not None and item.weight == 1 and known.moment - stamp > max_wait_ms:
            self.failing_rate = known.rate
            return self._refusal(stamp, known)
        return self.reserve_several([item], max_wait_ms, buffer_ms, None, limit_ms)[0]

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        """See `AbstractBucket.reserve_several`. The items are stamped as in `reserve`."""
        try:
            with self._turn(max_wait_ms, limit_ms):
                self._load()
                for item in items:
                    check_item(item)
                    item.timestamp = self._time_of(item.timestamp)
                return super().reserve_several(items, max_wait_ms, buffer_ms, not_before)
        except DatabaseLocked:
            if not has_end(max_wait_ms, limit_ms):
                raise
            return [Decision(self._rates[0], 0)]

    def _turn(self, max_wait_ms: int, limit_ms: int | None = None) -> Turn:
        seconds = lock_seconds(max_wait_ms, limit_ms, self._db.busy_seconds)
        return Turn(self, FOREVER_SECONDS if seconds is None else seconds)

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        """See `AbstractBucket.confirm`. What is stored stays while the file stays locked."""
        try:
            with self._turn(max_wait_ms) if max_wait_ms else Turn(self, LAST_SECONDS):
                self._load()
                decision = super().confirm(reservation, self._time_of(now), max_wait_ms)
                self._note_clock_at_last_reservation()
                return decision
        except DatabaseLocked:
            return Decision(self._rates[0], 0)

    def cancel(self, reservation: Reservation) -> bool:
        """See `AbstractBucket.cancel`. What is stored stays while the file stays locked."""
        try:
            with Turn(self, LAST_SECONDS):
                self._load()
                if not super().cancel(reservation):
                    return False
                self._note_clock_at_last_reservation()
                return True
        except DatabaseLocked:
            return False

    def _note_clock_at_last_reservation(self) -> None:
        last = self._run(self._sql.last_pending)[0]
        # Units that were used before their moment, for the clock stepped, are ahead as well.
        ahead = self._newest if self._newest > self._latest else BEGINNING
        self._note_clock(self._latest, ahead if last is None else max(last, ahead))

    def put_decision(self, item: RateItem) -> Decision:
        return ADMITTED if self.put(item) else self._denied(self.waiting(item))

    def waiting(self, item: RateItem) -> int:
        known = self._known
        if self.failing_rate is None or known is None or known.weight != item.weight:
            return super().waiting(item)
        return -1 if known.moment == FOREVER else max(0, known.moment - item.timestamp)

    def flush(self) -> None:
        self._db.start_anew()
        with self._lock:
            self._load()
            self._write(self._sql.flush)
            self._write(self._sql.flush_pending)
            self._write(self._sql.drop_hold)
            self._note_clock(BEGINNING, BEGINNING)
            self._forget()
            self._lookback.due = BEGINNING  # the file may be a new one
            self.failing_rate = None

    def count(self) -> int:
        with self._lock:
            return int(self._run(self._sql.count)[0])

    def peek(self, index: int) -> RateItem | None:
        with self._lock:
            # Others may have dropped it since this object last looked for the oldest.
            row = None if index < 0 else self._run(self._sql.unit, self._total - index)
            return None if row is None else RateItem(str(row[0]), row[1])

    _stock_peek = peek

    def _time_of(self, stamp: int) -> int:
        """The stamp, or the clock's reading where it has gone on while the caller waited."""
        now = read(self._clock)
        if now is None:
            return stamp
        if stamp.__class__ is Unread:
            return Unread(now)
        return now if 0 < now - stamp <= LATEST_MS else stamp

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

    def take(self, name: str, weight: int) -> bool | None:
        now = read(self._clock)
        if now is None:
            return None
        known = self._still_known(now, weight)
        if known is not None:
            self.failing_rate = known.rate
            return False
        if in_event_loop() or not self._lock.enter_at_once():
            return None
        try:
            # Another process may have stored a unit since the clock was read.
            verdict = self._put_slowly(name, weight, self._observe(Unread(now)))
        except BaseException as error:
            self._lock.__exit__(None, error, None)
            raise
        self._lock.__exit__(None, None, None)
        return verdict

    def _refusal(self, now: int, known: Refusal) -> Decision:
        last, wait = max(now, self._newest), known.moment - now
        reset = max(
            last - now + self._algorithm.retry_after(rate, last, self._newest)
            for rate in self._rates
        )
        return Decision(known.rate, wait, 0, 0, max(reset, wait))

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        if moment > now or self._newest > now:
            self._note_clock(now, max(moment, self._newest))
        if now >= self._lookback.due:
            self._lookback.note(now, self._algorithm, self._rates)
        self._known = None
        super()._store(name, weight, moment, now)

    def _leak_bound(self, now: int) -> int:
        bound = super()._leak_bound(now)
        return self._lookback.bound(now, bound, self._algorithm, self._rates)

    def _refuse(self, weight: int, moment: int, failing: Rate | None, now: int) -> None:
        if now >= self._lookback.due:
            self._lookback.note(now, self._algorithm, self._rates)
        failing = failing or self._rates[0]
        self.failing_rate = failing
        until = moment
        if self._algorithm.__class__ is not SlidingWindowLog or self._newest > now:
            until = BEGINNING
        elif weight <= failing.limit and len(self._rates) > 1:
            # From then on it is another rate that refuses.
            until = self._stamp(self._total + weight - failing.limit) + failing.interval + 1
        version = self._db.version() if until > BEGINNING else None
        self._known = Refusal(now, until, moment, weight, failing, version)

    def _observe(self, stamp: int, *, asks: bool = False) -> int:
        moment = stamp + self._ahead if stamp.__class__ is Unread else stamp
        if moment < self._newest:
            self._load()
        elif not self._loaded:
            self._latest = self._newest
        return super()._observe(stamp, asks=asks)

    def _keep_hold(self, hold: tuple[int, int] | None) -> None:
        super()._keep_hold(hold)
        self._known = None
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
