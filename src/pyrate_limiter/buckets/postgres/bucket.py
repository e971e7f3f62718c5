"""The log in PostgreSQL: one limit for all programs that share the database."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.closing import Closable
from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter._core.validation import Unread, check_item
from pyrate_limiter.abstracts.algorithm import (
    Decision,
    FixedWindow,
    LogAlgorithm,
    SlidingWindowLog,
)
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.postgres.clock import PostgresClock
from pyrate_limiter.buckets.postgres.decisions import first_of
from pyrate_limiter.buckets.postgres.fair_lock import FairLock
from pyrate_limiter.buckets.postgres.holds import hold
from pyrate_limiter.buckets.postgres.literals import Limits, restored
from pyrate_limiter.buckets.postgres.outage import (
    PostgresOutage,
    breaker_of_pool,
    is_outage,
)
from pyrate_limiter.buckets.postgres.rows import Ask
from pyrate_limiter.buckets.postgres.session import Session
from pyrate_limiter.buckets.postgres.several import PostgresLine
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Steps
from pyrate_limiter.buckets.remote.fallback import FallbackUnits
from pyrate_limiter.errors import AlgorithmMismatch, WrongType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.postgres.protocols import MaybeAwaited, Pool, Row
    from pyrate_limiter.buckets.remote.fallback import OnError

_PREFIX = "ratelimit___"


class PostgresBucket(Closable, PostgresLine):
    """A log of units in a table of PostgreSQL, shared by all who use the same table.

    One acquisition is one round trip: the server locks, reads its clock, decides and stores in one
    statement. Nothing is kept in the session. The table is ``ratelimit___`` and the lower-cased
    name; it is made if it is missing, with an index and functions beside it. A role that may not
    create anything can use a table that is there; where that has only the columns of 4.5.1, waiters
    try again instead of being served in order.

    Args:
        pool: a ``psycopg_pool.ConnectionPool``; or an ``AsyncConnectionPool``, which makes the
            bucket async. It stays the caller's: the bucket never closes it.
        table: the table's name, without the prefix.
        rates: the limits; all of them hold.
        algorithm: a `LogAlgorithm`; `SlidingWindowLog` if left out. One of your own is run in this
            process, on what the server has stored, which takes a second round trip.
        durable: whether a commit waits for the disk. If not, a crash of the server may forget the
            last fraction of a second.
        on_error: what to do while the server cannot be reached: ``"raise"`` the driver's error,
            ``"allow"`` or ``"deny"`` everything, or ask another bucket: one that is given here, or
            is made by a function that is given here, from the rates.
        call_timeout: seconds that one call to the server may take. A caller's own timeout bounds
            its calls in any case; a call without either waits as long for an answer as the pool
            waits for a connection.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: the algorithm does not work on a log.
        WrongType: the pool is no pool, or ``on_error`` is nothing of the above.
        MissingDriver: psycopg is not installed.
    """

    __module__ = "pyrate_limiter.buckets.postgres"

    is_async: bool | None = False
    blocks: bool = True
    failing_rate: Rate | None

    def __init__(
        self,
        pool: Pool,
        table: str,
        rates: Rate | Sequence[Rate],
        algorithm: LogAlgorithm | None = None,
        *,
        durable: bool = False,
        on_error: OnError = "raise",
        call_timeout: float | None = None,
    ) -> None:
        if algorithm is None:
            algorithm = SlidingWindowLog()
        elif not isinstance(algorithm, LogAlgorithm):
            raise AlgorithmMismatch(algorithm, type(self).__name__, "a LogAlgorithm")
        if not isinstance(table, str):
            raise WrongType("table", table, "a string")
        self._algorithm = algorithm
        self._in_sql = type(algorithm) in {FixedWindow, SlidingWindowLog}
        self._rates = sorted_rates(rates)
        self.table: str = f"{_PREFIX}{table.lower()}"
        self.pool = pool
        self._session = Session(pool, call_timeout)
        breaker = breaker_of_pool(pool, f"Postgres table {self.table}")
        self._outage = PostgresOutage(on_error, self._session, breaker)
        limits = Limits.of(self._rates, algorithm)
        self._steps = Steps(self._session, self.table, limits, keyed=self._keyed, durable=durable)
        self._clock = self._own_clock = PostgresClock(pool)
        self.failing_rate = None
        self._learnt = None
        self._full = {}
        self._flushes = 0
        self._refunding, self._refunds = FairLock(), deque()
        self.is_async = self._session.is_async
        self.blocks = not self.is_async
        if not self.is_async:
            try:
                self._session.run(self._steps.note_lookback())
            except Exception as error:
                if not self._outage.failed(error):
                    raise

    @property
    def rates(self) -> RateList:
        return self._rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        self._rates = sorted_rates(rates)
        if hasattr(self, "_steps"):  # else this comes before the constructor
            self._steps.look_back(Limits.of(self._rates, self._algorithm))
        self._full = {}

    def stamp(self) -> MaybeAwaited:
        """See `AbstractBucket.stamp`: the server's own reading replaces the estimate."""
        if self._clock is not self._own_clock or type(self).now is not PostgresBucket.now:
            return self.now()
        return Unread(self._session.server_ms(time.monotonic()) or 0)

    def put(self, item: RateItem) -> MaybeAwaited:
        check_item(item)
        if item.weight == 0:
            self.failing_rate = None
            return self._answer(True)
        return then(self._reserve(item, Ask(0, 0)), _is_allowed)

    def put_decision(self, item: RateItem) -> MaybeAwaited:
        return self.reserve(item)

    @property
    def store_id(self) -> object:
        """What the buckets of one pool have in common."""
        return id(self.pool)

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> MaybeAwaited:
        check_item(item)
        if item.weight == 0 and not brief:
            self.failing_rate = None
            return self.check(item)
        limit = max_wait_ms if limit_ms is None else max(max_wait_ms, limit_ms, LEAST_MS)
        return self._reserve(item, Ask(max_wait_ms, limit, buffer_ms, look=not brief))

    def check(self, item: RateItem) -> MaybeAwaited:
        check_item(item)
        return self._reserve(item, Ask(0, 0, store=False, look=True))

    def waiting(self, item: RateItem) -> MaybeAwaited:
        learnt = self._learnt
        if self.failing_rate is None:
            return self._answer(0)
        if learnt is not None and learnt.weight == item.weight:
            return self._answer(learnt.waiting(item))

        def wait(decision: Decision) -> int:
            if decision.failing_rate is None or decision.retry_after_ms is not None:
                return decision.retry_after_ms or 0
            # A policy that names no wait leaves it at trying again.
            return -1 if item.weight > self._algorithm.max_weight(decision.failing_rate) else 0

        return then(self.check(item), wait)

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> MaybeAwaited:
        """See `AbstractBucket.confirm`: a round trip, for somebody before may have been late."""
        stored, item = reservation.handle, reservation.item
        if isinstance(stored, FallbackUnits):
            return self._session.run(self._confirm_without(reservation, stored, max_wait_ms))
        time_of_item = None if now.__class__ is Unread else int(now)
        if stored is None:
            return self._answer(reservation.with_wait())
        if stored.is_gone:
            return self._session.run(
                self._anew(reservation, item.timestamp, time_of_item, max_wait_ms)
            )
        confirming = self._confirm([reservation], time_of_item, max_wait_ms)
        return self._session.run(first_of(confirming))

    def hold(self, item: RateItem, hold_ms: int) -> MaybeAwaited:
        """See `AbstractBucket.hold`. An outage is an error, whatever ``on_error`` says."""
        return then(self._hold(item, hold_ms), lambda said: said[1])

    def release_hold(self, item: RateItem) -> MaybeAwaited:
        """See `AbstractBucket.release_hold`, and of an outage `hold`."""
        return then(self._hold(item, None), lambda said: said[0] > 0)

    def _hold(self, item: RateItem, hold_ms: int | None) -> MaybeAwaited:
        check_item(item)
        now, clock = self._times(item.timestamp)

        def program() -> Program[tuple[int, int]]:
            said = yield from hold(self._steps, item.name, clock if now is None else now, hold_ms)
            self._full, self._learnt = {}, None
            return said

        return self._session.run(program())

    def pause(self, reservation: Reservation) -> float:
        stored = reservation.handle
        if isinstance(stored, FallbackUnits):
            return stored.pause()
        if stored is not None and self._clock is self._own_clock:
            return max(0.0, float(stored.due) - time.monotonic())
        return reservation.wait

    def leak(self, current_timestamp: int | None = None) -> MaybeAwaited:
        if current_timestamp is None and self._clock is not self._own_clock:
            return then(self.now(), self.leak)
        if current_timestamp is None:
            return self._session.run(self._sweep())
        kept = current_timestamp - self._algorithm.leak_bound(self._rates, current_timestamp)
        return self._session.run(self._leak(current_timestamp, kept))

    def _leak(self, now: int | None, kept: int) -> Program[int]:
        yield from self._steps.make_good()
        return (yield from self._steps.leak(now, kept))

    def _sweep(self) -> Program[int]:
        """Now and then, whoever may be at the server: one that is away is left alone."""
        if self.pool.closed or not self._outage.breaker.may_try():
            return 0
        try:
            leaked = yield from self._leak(None, self._rates.longest_ms)
        except Exception as error:
            if not is_outage(error):
                raise
            self._outage.breaker.failed(error)
            return 0
        self._outage.breaker.answered()
        return leaked

    def flush(self) -> MaybeAwaited:
        self._full = {}
        self._flushes += 1
        self.failing_rate = None
        return self._session.run(self._steps.flush())

    def count(self) -> MaybeAwaited:
        return self._session.run(self._steps.count())

    def peek(self, index: int) -> MaybeAwaited:
        if index < 0:
            return self._answer(None)

        def unit(row: Row) -> RateItem | None:
            return None if not row else RateItem(restored(row[0] or ""), int(row[1]))

        return then(self._session.run(self._steps.peek(index)), unit)


class PostgresKeys:
    """For `Limiter.per_key`: every name is limited by itself, in one table, under its own lock.

    The arguments are those of `PostgresBucket`, without the rates.
    """

    __module__ = "pyrate_limiter.buckets.postgres"

    def __init__(self, pool: Pool, table: str, **options: Any) -> None:  # as its own
        self._pool, self._table, self._options = pool, table, options

    def keyed(self, rates: Rate | Sequence[Rate]) -> PostgresBucket:
        """The bucket of all names, which tells them apart by itself."""
        return _KeyedPostgresBucket(self._pool, self._table, sorted_rates(rates), **self._options)


class _KeyedPostgresBucket(PostgresBucket):
    _keyed = True

    def of_a_name(self) -> _KeyedPostgresBucket:
        """This very bucket as another object: those who wait at it wait apart from the others."""
        view = object.__new__(_KeyedPostgresBucket)
        view.__dict__ = self.__dict__
        return view


def _is_allowed(decision: Decision) -> bool:
    return decision.allowed
