"""The calls of a bucket in SQLite: each is a transaction, or is answered without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import in_event_loop
from pyrate_limiter._core.process_lock import LAST_SECONDS, has_end, lock_seconds
from pyrate_limiter._core.timeline import LATEST_MS, read
from pyrate_limiter._core.validation import BEGINNING, FOREVER, Unread, check_item
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, SlidingWindowLog
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.log.rules import reset_after_ms
from pyrate_limiter.buckets.sqlite.database import FOREVER_SECONDS
from pyrate_limiter.buckets.sqlite.errors import DatabaseLocked
from pyrate_limiter.buckets.sqlite.log import LogTransaction, Refusal, RowLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.abstracts.reservation import Reservation


class RowCalls(RowLog):
    """A `RowLog` that waits for the database as long as its caller does.

    A refusal that still stands is given again without a transaction.
    """

    def put(self, item: RateItem) -> bool:
        check_item(item)
        known = self._still_known(item.timestamp, item.weight)
        if known is not None:
            self.failing_rate = known.rate
            return False
        return super().put(item)

    def put_decision(self, item: RateItem) -> Decision:
        return ADMITTED if self.put(item) else self._denied(self.waiting(item))

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
            with self._waiting(max_wait_ms, limit_ms):
                self._load()
                for item in items:
                    check_item(item)
                    item.timestamp = self._time_of(item.timestamp)
                return super().reserve_several(items, max_wait_ms, buffer_ms, not_before)
        except DatabaseLocked:
            if not has_end(max_wait_ms, limit_ms):
                raise
            return [Decision(self._rates[0], 0)]

    def _waiting(self, max_wait_ms: int, limit_ms: int | None = None) -> LogTransaction:
        seconds = lock_seconds(max_wait_ms, limit_ms, self._db.busy_seconds)
        return LogTransaction(self, FOREVER_SECONDS if seconds is None else seconds)

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        """See `AbstractBucket.confirm`. What is stored stays while the file stays locked."""
        try:
            with self._waiting(max_wait_ms) if max_wait_ms else LogTransaction(self, LAST_SECONDS):
                self._load()
                decision = super().confirm(reservation, self._time_of(now), max_wait_ms)
                self._note_clock_at_last_reservation()
                return decision
        except DatabaseLocked:
            return Decision(self._rates[0], 0)

    def cancel(self, reservation: Reservation) -> bool:
        """See `AbstractBucket.cancel`. What is stored stays while the file stays locked."""
        try:
            with LogTransaction(self, LAST_SECONDS):
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

    def waiting(self, item: RateItem) -> int:
        known = self._known
        if self.failing_rate is None or known is None or known.weight != item.weight:
            return super().waiting(item)
        return -1 if known.moment == FOREVER else max(0, known.moment - item.timestamp)

    def flush(self) -> None:
        """See `AbstractBucket.flush`. A file that is gone is made anew."""
        self._db.start_anew()
        with self._lock:
            self._load()
            self._write(self._sql.drop, BEGINNING, FOREVER)
            self._write(self._sql.flush_pending)
            self._write(self._sql.drop_hold)
            self._note_clock(BEGINNING, BEGINNING)
            self._empty()
            self._lookback.due = BEGINNING  # the file may be a new one
            self.failing_rate = None

    def leak(self, current_timestamp: int | None = None) -> int:
        """See `AbstractBucket.leak`. 0 once closed."""
        return 0 if self._db.closed else super().leak(current_timestamp)

    def count(self) -> int:
        with self._lock:
            return int(self._run(self._sql.count)[0])

    def peek(self, index: int) -> RateItem | None:
        with self._lock:
            # Others may have dropped it since this object last looked for the oldest.
            number = self._total - index
            row = None if index < 0 else self._run(self._sql.units, number - 1, number)
            return None if row is None else RateItem(str(row[0]), row[1])

    def limiter_lock(self) -> Any:
        """The file lock, or the lock that was handed in; None without."""
        return self._db.lock

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that takes waiting for another writer, or would hold up an event loop.
        """
        now = read(self._clock)
        if now is None:
            return None
        known = self._still_known(now, weight)
        if known is not None:
            self.failing_rate = known.rate
            return False
        transaction = self._lock
        if in_event_loop() or not transaction.enter_at_once():
            return None
        try:
            # Another process may have stored a unit since the clock was read.
            verdict = self._put_slowly(name, weight, self._observe(Unread(now)))
        except BaseException as error:
            transaction.__exit__(None, error, None)
            raise
        transaction.__exit__(None, None, None)
        return verdict

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

    def _refusal(self, now: int, known: Refusal) -> Decision:
        wait = known.moment - now
        reset = reset_after_ms(self._algorithm, self._rates, self._newest, now)
        return Decision(known.rate, wait, 0, 0, max(reset, wait))

    def _refuse(self, weight: int, moment: int, failing: Rate | None, now: int) -> None:
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
