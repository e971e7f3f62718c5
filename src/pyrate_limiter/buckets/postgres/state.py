"""States in PostgreSQL: GCRA and token bucket for all programs that share the database."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.postgres.literals import short
from pyrate_limiter.buckets.postgres.outage import PostgresOutage, breaker_of_pool
from pyrate_limiter.buckets.postgres.session import Link, uncancelled
from pyrate_limiter.buckets.postgres.state_row import StateRow
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Busy
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.postgres.protocols import Pool
    from pyrate_limiter.buckets.state.record import StateRecord

    T = TypeVar("T")


class _Moment(int):
    """The moment of a claim by the server's clock; ``due`` is the same on ``time.monotonic``."""

    due: float


class _Clock(AbstractClock):
    """The server's clock, as far as its answers tell; asked for where there was none yet.

    While there is no answer, and the policy is to go on without, it is this machine's.
    """

    __slots__ = ("_link", "_place")

    def __init__(self, link: Link, place: Callable[[], Program[str]]) -> None:
        self._link, self._place = link, place

    def now(self) -> int | Awaitable[int]:
        """See `AbstractClock.now`."""
        now = self._link.server_ms(time.monotonic())
        return self._link.run(self._ask()) if now is None else now

    def _ask(self) -> Program[int]:
        yield from self._place()
        now = self._link.server_ms(time.monotonic())
        return time.time_ns() // 1_000_000 if now is None else now


class PostgresStateStore(StateStore):
    """One state, with the claims on it, in a row of a table that many keys share.

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

    keeps_claims = True
    keeps_time = True
    bounds_claims = True

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
        self._link = Link(pool, call_timeout)
        breaker = breaker_of_pool(pool, f"Postgres state {short(key)!r}")
        self._outage = PostgresOutage(on_error, self._link, breaker, buckets=False)
        self.is_async: bool | None = self._link.is_async
        self.blocks: bool = not self.is_async
        row = StateRow(self._link, table, key, durable=durable)
        self._row = row
        self.default_clock: AbstractClock = _Clock(self._link, self._place)
        if not self.is_async:
            self._link.run(self._place())

    def check(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int) -> Any:
        """See `StateStore.check`. ``now`` counts, not the server's clock."""

        def step(record: StateRecord, _: int) -> Decision:
            return record._step(algorithm, rates, record._observe(now, rates), weight)

        return self._run(self._guarded(self._row.step(step), lambda: self._without(rates)))

    @property
    def store_id(self) -> object:
        """What the stores of one pool have in common."""
        return id(self.pool)

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        limit_ms: int | None = None,
    ) -> Any:
        """See `StateStore.claim`. The item's timestamp counts, not the server's clock."""
        return self._claim(algorithm, rates, item, item.timestamp, patience_ms, buffer_ms, limit_ms)

    def claim_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None,
        limit_ms: int | None = None,
    ) -> Any:
        """See `StateStore.claim_several`. The items' timestamps count, not the server's clock."""
        stamps = [int(item.timestamp) for item in items]

        def claim(record: StateRecord, _: int) -> list[Decision]:
            for item, stamp in zip(items, stamps):  # it may be tried again
                item.timestamp = stamp
            decisions = record._claim_several(
                algorithm, rates, items, patience_ms, buffer_ms, not_before
            )
            for item, decision in zip(items, decisions):
                _note_due(item, decision)
            return decisions

        def take_back(record: StateRecord, _: int) -> bool:
            waits = [item for item in items if isinstance(item.timestamp, _Moment)]
            return any([record._release(algorithm, rates, item) for item in waits])  # noqa: C419 - all of them

        async def undo(decisions: list[Decision]) -> None:
            for item, decision in zip(items, decisions):
                if decision.wait_ms:
                    await self.release(algorithm, rates, item)

        limit = patience_ms if limit_ms is None else max(patience_ms, limit_ms, LEAST_MS)
        program = _in_time(self._row.step(claim, limit, take_back), [Decision(rates[0], 0)])
        return self._run(self._guarded(program, lambda: [self._without(rates)]), undo)

    def claim_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        limit_ms: int | None = None,
    ) -> Any:
        """See `StateStore.claim_at`."""
        return self._claim(algorithm, rates, item, None, patience_ms, buffer_ms, limit_ms)

    def _claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        stamp: int | None,
        patience_ms: int,
        buffer_ms: int,
        limit_ms: int | None,
    ) -> Any:
        began = time.monotonic()

        def claim(record: StateRecord, now: int) -> Decision:
            patience = patience_ms
            if stamp is None:
                patience = max(0, patience - int((time.monotonic() - began) * 1000))
            item.timestamp = now if stamp is None else stamp
            decision = record._claim(algorithm, rates, item, patience, buffer_ms)
            _note_due(item, decision)
            return decision

        def take_back(record: StateRecord, _: int) -> bool:
            # What goes at once leaves nothing that could be told from what others have taken.
            waits = isinstance(item.timestamp, _Moment)
            return waits and record._release(algorithm, rates, item)

        async def undo(decision: Decision) -> None:
            if decision.wait_ms:
                await self.release(algorithm, rates, item)

        if limit_ms is not None:
            limit_ms = max(patience_ms, limit_ms, LEAST_MS)
        step = self._row.step(claim, limit_ms or patience_ms, take_back)
        program = _in_time(step, Decision(rates[0], 0))
        return self._run(self._guarded(program, lambda: self._without(rates)), undo)

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
    ) -> Any:
        """See `StateStore.settle`."""
        return self._settle(algorithm, rates, item, now, patience_ms)

    def settle_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem, patience_ms: int
    ) -> Any:
        """See `StateStore.settle_at`."""
        return self._settle(algorithm, rates, item, None, patience_ms)

    def _settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int | None,
        patience_ms: int,
    ) -> Any:
        stamp = item.timestamp

        def settle(record: StateRecord, there: int) -> Decision:
            item.timestamp = int(stamp)
            here = there if now is None else now
            decision = record._settle(algorithm, rates, item, here, patience_ms)
            _note_due(item, decision)
            return decision

        # It is at the end of its time that a waiter wakes.
        step = self._row.step(settle, max(patience_ms, LEAST_MS))
        program = _in_time(step, Decision(rates[0], 0))
        return self._run(self._guarded(program, lambda: ADMITTED))

    def release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> Any:
        """See `StateStore.release`."""

        def take_back(record: StateRecord, _: int) -> bool:
            return record._release(algorithm, rates, item)

        later = partial(self._row.give_back_later, take_back)
        return self._run(self._guarded(self._row.give_back(take_back), later))

    def hold(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int | None, hold_ms: int
    ) -> Any:
        """See `StateStore.hold`. An outage is an error, whatever ``on_error`` says."""

        def held(record: StateRecord, there: int) -> int:
            here = record._latest = record._observe(there if now is None else now, rates)
            return record._hold_for(here, hold_ms)

        del algorithm
        return self._run(self._row.step(held))

    def release_hold(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int | None
    ) -> Any:
        """See `StateStore.release_hold`, and of an outage `hold`."""

        def release(record: StateRecord, there: int) -> bool:
            return record._end_hold(record._observe(there if now is None else now, rates))

        del algorithm
        return self._run(self._row.step(release))

    def seconds_left(self, item: RateItem) -> float:
        """See `StateStore.seconds_left`."""
        moment = item.timestamp
        return max(0.0, moment.due - time.monotonic()) if isinstance(moment, _Moment) else 0.0

    def forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Any:
        """See `StateStore.forecast`."""

        def forecast(record: StateRecord) -> Decision:
            return record._forecast(algorithm, rates, now, weight)

        return self._run(self._guarded(self._row.read(forecast), lambda: self._without(rates)))

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> Any:
        """See `StateStore.read`."""

        def current(record: StateRecord) -> State:
            return record._current(algorithm, rates)

        return self._run(self._row.read(current))

    def reset(self) -> Any:
        """See `StateStore.reset`."""
        return self._run(self._row.delete())

    def _run(self, program: Program[Any], undo: Any = None) -> Any:
        run = self._link.run(program)
        return uncancelled(run, undo) if self.is_async else run

    def _place(self) -> Program[str]:
        return self._guarded(self._row.place(), str)

    def _guarded(self, program: Program[Any], instead: Callable[[], Any]) -> Program[Any]:
        if self._outage.raises:
            return program

        def without() -> Program[Any]:
            yield from ()
            return instead()

        return self._outage.guard(program, without)

    def _without(self, rates: Sequence[Rate]) -> Decision:
        return self._outage.fallback.verdict(rates, self._outage.breaker.retry_ms())


def _in_time(step: Program[T], refusal: T) -> Program[T]:
    """What the step gives; the refusal where others are at the state for as long as it may take."""
    try:
        return (yield from step)
    except Busy:
        return refusal


def _note_due(item: RateItem, decision: Decision) -> None:
    if decision.wait_ms:
        moment = _Moment(item.timestamp)
        moment.due = time.monotonic() + decision.wait_ms / 1000
        item.timestamp = moment
