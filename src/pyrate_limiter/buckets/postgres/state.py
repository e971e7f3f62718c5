"""States in PostgreSQL: GCRA and token bucket for all programs that share the database."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter._core.timeline import NO_CLOCK
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.buckets.postgres.literals import short
from pyrate_limiter.buckets.postgres.outage import PostgresOutage, breaker_of_pool
from pyrate_limiter.buckets.postgres.session import Session
from pyrate_limiter.buckets.postgres.state_row import StateRow
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Busy
from pyrate_limiter.buckets.state.rules import Reading, StateRules
from pyrate_limiter.buckets.state.store import RecordStore
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.postgres.protocols import Pool
    from pyrate_limiter.buckets.postgres.state_row import Use
    from pyrate_limiter.buckets.state.record import StateRecord
    from pyrate_limiter.buckets.state.store import Undo

T = TypeVar("T")
R = TypeVar("R")


class _Clock(AbstractClock):
    """The server's clock, as far as its answers tell; asked for where there was none yet.

    While there is no answer, and the policy is to go on without, it is this machine's.
    """

    __slots__ = ("_place", "_session")

    def __init__(self, session: Session, place: Callable[[], Program[str]]) -> None:
        self._session, self._place = session, place

    def now(self) -> int | Awaitable[int]:
        now = self._session.server_ms(time.monotonic())
        return self._session.run(self._ask()) if now is None else now

    def seconds_until(self, moment: int) -> float | None:
        left_ms = moment - self._session.behind - time.monotonic() * 1000
        return None if self._session.ahead is None else left_ms / 1000

    def _ask(self) -> Program[int]:
        yield from self._place()
        now = self._session.server_ms(time.monotonic())
        return time.time_ns() // 1_000_000 if now is None else now


class PostgresStateStore(RecordStore):
    """One state, with the reservations on it, in a row of a table that many keys share.

    A step is two round trips: the first reads the row and the server's clock, the second writes the
    row if nobody has done so meanwhile; otherwise it reads it again. Nothing is locked in between.

    Args:
        pool: a ``psycopg_pool.ConnectionPool``; an ``AsyncConnectionPool`` makes the store async.
            It stays the caller's.
        key: which state.
        table: the table, made if it is missing.
        durable: whether a commit waits for the disk.
        on_error: ``"raise"``, ``"allow"`` or ``"deny"``, as for `PostgresBucket`.
        call_timeout: as for `PostgresBucket`.

    Raises:
        WrongType: the pool is no pool, or another argument is of another type.
        MissingDriver: psycopg is not installed.
    """

    def __init__(
        self,
        pool: Pool,
        key: str,
        *,
        table: str = "ratelimit_states",
        durable: bool = False,
        on_error: str = "raise",
        call_timeout: float | None = None,
    ) -> None:
        for field, value in (("key", key), ("table", table)):
            if not isinstance(value, str):
                raise WrongType(field, value, "a string")
        self.pool: Pool = pool
        self.key: str = key
        self._session = Session(pool, call_timeout)
        breaker = breaker_of_pool(pool, f"Postgres state {short(key)!r}")
        self._outage = PostgresOutage(on_error, self._session, breaker, buckets=False)
        self.is_async: bool | None = self._session.is_async
        self.blocks: bool = not self.is_async
        self._row = StateRow(self._session, table, key, durable=durable)
        self.default_clock: AbstractClock = _Clock(self._session, self._place)
        self._ahead = 0
        if not self.is_async:
            self._session.run(self._place())

    @property
    def store_id(self) -> object:
        """What the stores of one pool have in common."""
        return id(self.pool)

    def transact(
        self,
        rules: StateRules,
        use: Callable[[StateRules], T],
        within_ms: int | None = None,
        instead: Callable[[Decision], T] | None = None,
        undo: Undo[T] | None = None,
    ) -> T | Awaitable[T]:
        """See `RecordStore.transact`. The server's clock counts, where that is the bucket's."""
        ruled = self._ruled(rules, use)

        def taking_back(answer: T) -> Use | None:
            take_back = None if undo is None else undo(answer)
            return take_back and self._ruled(rules, take_back)

        async def give_back(answer: T) -> None:
            take_back = taking_back(answer)
            if take_back is not None:
                given_back = self._session.run(self._giving_back(take_back))
                if not isinstance(given_back, bool):
                    await given_back

        limit_ms = 0 if within_ms is None else max(within_ms, LEAST_MS)
        program = self._row.step(ruled, limit_ms, taking_back)
        if instead is not None:
            rates = rules.rates
            program = _in_time(program, lambda: instead(Decision(rates[0], 0)))
            program = self._guarded(program, lambda: instead(self._without(rates)))
        return self._session.run(program, give_back)

    def cancel(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> bool | Awaitable[bool]:
        """See `StateStore.cancel`. Where that cannot be done now, a later call does it."""
        rules = StateRules(algorithm, rates, NO_CLOCK)
        take_back = self._ruled(rules, lambda rules: rules.cancel(reservation))
        return self._session.run(self._giving_back(take_back))

    def _unconfirmed(self, reservation: Reservation, verdict: Decision) -> Decision:
        """Admitted: the units are reserved, and it is the server that is away."""
        del verdict
        return reservation.with_wait()

    def ahead_ms(self) -> int:
        return self._ahead

    def reset(self) -> Awaitable[None] | None:
        return self._session.run(self._row.delete())

    def _ruled(
        self, rules: StateRules, use: Callable[[StateRules], R]
    ) -> Callable[[StateRecord, int], R]:
        began, by_server = time.monotonic(), rules.clock is self.default_clock

        def on_record(record: StateRecord, there: int) -> R:
            if by_server:
                rules.clock = Reading(there, int((time.monotonic() - began) * 1000))
            answer = use(rules.on(record))
            self._ahead = record._ahead
            return answer

        return on_record

    def _giving_back(self, take_back: Use) -> Program[bool]:
        later = partial(self._row.give_back_later, take_back)
        return self._guarded(self._row.give_back(take_back), later)

    def _place(self) -> Program[str]:
        return self._guarded(self._row.place(), str)

    def _without(self, rates: Sequence[Rate]) -> Decision:
        return self._outage.fallback.verdict(rates, self._outage.breaker.retry_ms())

    def _guarded(self, program: Program[T], instead: Callable[[], T]) -> Program[T]:
        if self._outage.raises:
            return program

        def without() -> Program[T]:
            yield from ()
            return instead()

        return self._outage.guard(program, without)


def _in_time(step: Program[T], refused: Callable[[], T]) -> Program[T]:
    """What the step gives; a refusal where others are at the state for as long as it may take."""
    try:
        return (yield from step)
    except Busy:
        return refused()
