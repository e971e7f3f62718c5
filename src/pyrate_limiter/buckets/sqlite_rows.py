"""The log of a `SQLiteBucket`: the rules of the log in memory, over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog
from pyrate_limiter.abstracts.awaiting import discard, in_event_loop
from pyrate_limiter.abstracts.checks import BEGINNING, FOREVER, Unread, check_item
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.judged_log import _ABANDONED_MS, _SAME_CLOCK_MS
from pyrate_limiter.buckets.sqlite_table import SWEEP_EVERY, Refusal, RowTable, Turn

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.rate import Rate


class RowLog(RowTable):
    """A `RowTable` that answers when a weight fits.

    Claims that are still to come are noted in tables of their own, which 4.5.1 does not look at.
    They are read only where the newest row is ahead of the clock, or a claim changes.
    """

    __slots__ = ()

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
            decision = super().settle(item, self._time_of(now), patience_ms)
            self._note_clock_at_last_claim()
            return decision

    def release(self, item: RateItem) -> bool:
        """See `AbstractBucket.release`."""
        with self._lock:
            self._load()
            if not super().release(item):
                return False
            self._note_clock_at_last_claim()
            return True

    def _note_clock_at_last_claim(self) -> None:
        last = self._run(self._sql.last_claim)[0]
        self._note_clock(self._latest, BEGINNING if last is None else last)

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

    def peek(self, index: int) -> RateItem | None:
        """See `AbstractBucket.peek`."""
        with self._lock:
            # Others may have dropped it since this object last looked for the oldest.
            row = None if index < 0 else self._run(self._sql.unit, self._total - index)
            return None if row is None else RateItem(str(row[0]), row[1])

    _stock_peek = peek

    def _time_of(self, stamp: int) -> int:
        """The stamp, or the clock's reading where it has gone on while the caller waited."""
        if stamp.__class__ is Unread:
            return self._fresh(stamp)
        now: Any = self._clock.now()
        if now.__class__ is not int:
            discard(now)
            return stamp
        return now if 0 < now - stamp <= _SAME_CLOCK_MS else stamp

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
        """See `SQLiteBucket.take`."""
        now: Any = self._clock.now()
        if now.__class__ is not int:
            discard(now)
            return None
        known = self._still_known(now, weight)
        if known is not None:
            self.failing_rate = known.rate
            return False
        if in_event_loop() or not self._lock.enter_at_once():
            return None
        try:
            # Another process may have stored a unit since the clock was read.
            verdict = self._put_slowly(name, weight, self._observe(self._fresh(Unread(now))))
        except BaseException as error:
            self._lock.__exit__(None, error, None)
            raise
        self._lock.__exit__(None, None, None)
        return verdict

    def _refusal(self, now: int, known: Refusal) -> Decision:
        last = max(now, self._newest)
        reset = max(
            last - now + self._algorithm.retry_after(rate, last, self._newest)
            for rate in self._rates
        )
        return Decision(known.rate, known.moment - now, 0, 0, reset)

    def _put_now(self, name: str, weight: int, now: int) -> bool:
        return self._put_slowly(name, weight, now)

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        if moment > now:
            self._note_clock(now, moment)
        self._append(name, weight, moment)
        self._latest = now
        self.failing_rate = None
        if not self._sweep_at - SWEEP_EVERY <= self._total < self._sweep_at:
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

    def _next_departure(self, moment: int, weight: int) -> tuple[int, Rate | None]:
        self._pending = dict(self._rows(self._sql.claims))
        return super()._next_departure(moment, weight)

    def _awaited(self, moment: int) -> int:
        row = self._run(self._sql.claim, moment)
        return 0 if row is None else int(row[0])

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
