"""States in PostgreSQL: GCRA and token bucket for all programs that share the database."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.postgres_link import Link, driver, first, literal, uncancelled
from pyrate_limiter.buckets.postgres_outage import OUTAGE_SECONDS, PostgresOutage
from pyrate_limiter.buckets.postgres_setup import advisory_lock_id, quoted
from pyrate_limiter.buckets.postgres_steps import LEAST_MS, seconds_of
from pyrate_limiter.buckets.postgres_wire import silence
from pyrate_limiter.buckets.state_record import StateRecord
from pyrate_limiter.clocks import AbstractClock
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.postgres_link import Attempt

    Use = Callable[[StateRecord, int], Any]

_WRITERS = 64  # how many of the last writers a row knows, for those whose answer was lost
_MOST_DOUBTS = 1000
_RELEASE_MS = 1000


class _Moment(int):
    """The moment of a claim by the server's clock; ``due`` is the same on ``time.monotonic``."""

    due: float


class _Doubt:
    """A write that may be there although its caller has been told otherwise."""

    __slots__ = ("due", "take_back", "writer")

    def __init__(self, writer: int, take_back: Use | None) -> None:
        self.writer: int = writer
        self.take_back: Use | None = take_back
        self.due: float = 0.0  # on time.monotonic; later it is not made any more


class _Clock(AbstractClock):
    """The server's clock, as far as its answers tell; asked for where there was none yet."""

    __slots__ = ("_link", "_place")

    def __init__(self, link: Link, place: Callable[[], Program[str]]) -> None:
        self._link, self._place = link, place

    def now(self) -> int | Awaitable[int]:
        """See `AbstractClock.now`."""
        now = self._link.server_ms(time.monotonic())
        return self._link.run(self._ask()) if now is None else now

    def _ask(self) -> Program[int]:
        yield from self._place()
        return self._link.server_ms(time.monotonic()) or 0


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

    def __init__(
        self,
        pool: Any,
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
        if on_error not in {"raise", "allow", "deny"}:
            raise WrongType("on_error", on_error, "'raise', 'allow' or 'deny'")
        self.pool: Any = pool
        self.key: str = key
        self._link = Link(pool, call_timeout)
        self._outage = None
        if on_error != "raise":
            self._outage = PostgresOutage(on_error, f"Postgres state {key!r}")
            self._link.longest_wait = OUTAGE_SECONDS
        self.is_async: bool | None = self._link.is_async
        self.blocks: bool = not self.is_async
        self.default_clock: AbstractClock = _Clock(self._link, self._place)
        self._name = table
        self._table: str | None = None
        self._durable = durable
        self._doubts: deque[_Doubt] = deque(maxlen=_MOST_DOUBTS)
        if not self.is_async:
            self._link.run(self._guarded(self._place(), str))

    def check(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int) -> Any:
        """See `StateStore.check`. ``now`` counts, not the server's clock."""

        def step(record: StateRecord, _: int) -> Decision:
            return record._step(algorithm, rates, record._observe(now, rates), weight)

        return self._run(self._guarded(self._step(step), lambda: self._without(rates)))

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Any:
        """See `StateStore.claim`. The item's timestamp counts, not the server's clock."""
        return self._claim(algorithm, rates, item, item.timestamp, patience_ms, buffer_ms)

    def claim_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Any:
        """See `StateStore.claim_at`."""
        return self._claim(algorithm, rates, item, None, patience_ms, buffer_ms)

    def _claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        stamp: int | None,
        patience_ms: int,
        buffer_ms: int,
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
            return record._release(algorithm, rates, item)

        async def undo(decision: Decision) -> None:
            if decision.wait_ms:
                await self.release(algorithm, rates, item)

        program = self._step(claim, patience_ms, take_back)
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
        program = self._step(settle, max(patience_ms, LEAST_MS))
        return self._run(self._guarded(program, lambda: ADMITTED))

    def release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> Any:
        """See `StateStore.release`."""

        def take_back(record: StateRecord, _: int) -> bool:
            return record._release(algorithm, rates, item)

        return self._run(self._guarded(self._step(take_back, _RELEASE_MS), bool))

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

        return self._run(self._guarded(self._look(forecast), lambda: self._without(rates)))

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> Any:
        """See `StateStore.read`."""

        def current(record: StateRecord) -> State:
            return record._current(algorithm, rates)

        return self._run(self._look(current))

    def reset(self) -> Any:
        """See `StateStore.reset`."""

        def delete() -> Program[None]:
            table = yield from self._place()
            yield from self._link.query(f"DELETE FROM {table} WHERE key = {literal(self.key)}")

        return self._run(delete())

    def _run(self, program: Program[Any], undo: Any = None) -> Any:
        run = self._link.run(program)
        return uncancelled(run, undo) if self.is_async else run

    def _guarded(self, program: Program[Any], instead: Callable[[], Any]) -> Program[Any]:
        return program if self._outage is None else self._outage.guard(program, instead)

    def _without(self, rates: Sequence[Rate]) -> Any:
        outage: Any = self._outage
        return outage.verdict(rates[0])

    def _look(self, use: Callable[[StateRecord], Any]) -> Program[Any]:
        table = yield from self._place()
        row = yield from self._link.query(self._reading(table, 0))
        return use(_record(row[1]))

    def _step(self, use: Use, patience_ms: int = 0, take_back: Use | None = None) -> Program[Any]:
        """``use`` on the record and the server's time, and what it makes of the record stored."""
        if self._doubts:
            yield from self._settle_doubt()
        doubt = _Doubt(_number(), take_back)

        def orphaned() -> None:
            if take_back is not None:
                self._doubts.append(doubt)

        return (yield from self._swap(use, doubt, seconds_of(patience_ms), orphaned))

    def _settle_doubt(self) -> Program[None]:
        doubt = self._doubts.popleft()
        try:
            if time.monotonic() >= doubt.due:
                yield from self._swap(doubt.take_back, doubt, None, undoing=True)
                return
        except BaseException:
            self._doubts.append(doubt)
            raise
        self._doubts.append(doubt)

    def _swap(
        self,
        use: Any,
        doubt: _Doubt,
        seconds: float | None,
        orphaned: Any = None,
        *,
        undoing: bool = False,
    ) -> Program[Any]:
        table = yield from self._place()
        reading = self._reading(table, doubt.writer)
        writer = _number() if undoing else doubt.writer
        answer: Any = None

        def work(attempt: Attempt) -> Program[Any]:
            nonlocal answer
            doubt.due = attempt.deadline
            sent = time.monotonic()
            row = yield from first(attempt, reading)
            while True:
                now, text, last, written = int(row[0]), row[1], row[2], row[3] == "t"
                self._link.learn(sent, now)
                # If there is something to undo; or an earlier try has done it, its answer was lost.
                if written is not undoing:
                    return answer
                left = attempt.deadline - time.monotonic()
                if left <= 0:
                    raise silence()
                record = _record(text)
                before = record.dump()
                answer = use(record, now)
                after = record.dump()
                if after[1:] == before[1:]:  # all but the largest time seen
                    return answer
                expires = now + int(left * 1000)
                sent = time.monotonic()
                stored, rows = yield from attempt.fetch(
                    f"{self._writing(table, after, last, writer, expires)}; {reading}"
                )
                if stored[0][0] != "0":
                    return answer
                row = rows[0]

        return (yield from self._link.transact(work, seconds, orphaned))

    def _reading(self, table: str, writer: int) -> str:
        return (
            "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, record, "
            f"writers[1], coalesce({writer} = ANY (writers), false) FROM (SELECT 1) one "
            f"LEFT JOIN {table} ON key = {literal(self.key)}"
        )

    def _writing(self, table: str, after: Any, last: str | None, writer: int, expires: int) -> str:
        key, record = literal(self.key), literal(json.dumps(after))
        commit = "" if self._durable else "SET LOCAL synchronous_commit = off; "
        in_time = f"extract(epoch FROM clock_timestamp()) * 1000 <= {expires}"
        if last is None:
            change = (
                f"INSERT INTO {table} (key, record, writers) "
                f"SELECT {key}, {record}, ARRAY[{writer}]::bigint[] WHERE {in_time} "
                "ON CONFLICT (key) DO NOTHING"
            )
        else:
            change = (
                f"UPDATE {table} SET record = {record}, "
                f"writers = {writer}::bigint || writers[1:{_WRITERS - 1}] "
                f"WHERE key = {key} AND writers[1] = {last} AND {in_time}"
            )
        return f"{commit}WITH stored AS ({change} RETURNING 1) SELECT count(*) FROM stored"

    def _place(self) -> Program[str]:
        """The table with its schema; made if it is not there."""
        if self._table is not None:
            return self._table
        find = (
            "SELECT n.nspname, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.oid = to_regclass({literal(quoted(self._name))})"
        )
        sent = time.monotonic()
        row = yield from self._link.query(find)
        if row is None:
            errors = driver().errors
            try:
                yield from self._link.query(
                    f"BEGIN; SELECT pg_advisory_xact_lock({advisory_lock_id(self._name)}); "
                    f"CREATE TABLE IF NOT EXISTS {quoted(self._name)} (key TEXT PRIMARY KEY, "
                    "record TEXT NOT NULL, writers BIGINT[] NOT NULL); COMMIT"
                )
            except errors.InsufficientPrivilege:
                row = yield from self._link.query(find)  # somebody else has made it just now
                if row is None:
                    raise
            else:
                sent = time.monotonic()
                row = yield from self._link.query(find)
        self._link.learn(sent, int(row[1]))
        self._table = f"{quoted(row[0])}.{quoted(self._name)}"
        return self._table


def _number() -> int:
    return int.from_bytes(os.urandom(8), "big") >> 1


def _note_due(item: RateItem, decision: Decision) -> None:
    if decision.wait_ms:
        moment = _Moment(item.timestamp)
        moment.due = time.monotonic() + decision.wait_ms / 1000
        item.timestamp = moment


def _record(text: str | None) -> StateRecord:
    record = StateRecord()
    if text is not None:
        record.load(json.loads(text))
    return record
