"""States in PostgreSQL: GCRA and token bucket for all programs that share the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.postgres_link import Link, driver, literal, uncancelled
from pyrate_limiter.buckets.postgres_setup import advisory_lock_id, quoted
from pyrate_limiter.buckets.state_record import StateRecord
from pyrate_limiter.clocks import PostgresClock
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.clocks import AbstractClock


class PostgresStateStore(StateStore):
    """One state, with the claims on it, in a row of a table that many keys share.

    A step is two round trips: the first locks the row and reads it, the second writes it.

    Args:
        pool: a ``psycopg_pool.ConnectionPool``; an ``AsyncConnectionPool`` makes the store async.
            It stays the caller's.
        key: which state.
        table: the table, made if it is missing.
        durable: whether a commit waits for the disk.

    Raises:
        WrongType: the pool is no pool, or the key or the table no string.
        MissingDriver: psycopg is not installed.
    """

    keeps_claims = True

    def __init__(
        self,
        pool: Any,
        key: str,
        *,
        table: str = "ratelimit_states",
        durable: bool = False,
    ) -> None:
        for field, value in (("key", key), ("table", table)):
            if not isinstance(value, str):
                raise WrongType(field, value, "a string")
        self.pool: Any = pool
        self.key: str = key
        self._link = Link(pool)
        self.is_async: bool | None = self._link.is_async
        self.blocks: bool = not self.is_async
        self.default_clock: AbstractClock = PostgresClock(pool)
        self._name = table
        self._table: str | None = None
        self._durable = durable
        if not self.is_async:
            self._link.run(self._place())

    def check(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int) -> Any:
        """See `StateStore.check`."""
        return self._step(
            lambda record: record._step(algorithm, rates, record._observe(now, rates), weight)
        )

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Any:
        """See `StateStore.claim`."""

        async def undo(decision: Decision) -> None:
            if decision.wait_ms:
                await self.release(algorithm, rates, item)

        stamp = item.timestamp

        def claim(record: StateRecord) -> Decision:
            item.timestamp = stamp  # of an earlier try, which was not committed
            return record._claim(algorithm, rates, item, patience_ms, buffer_ms)

        return self._step(claim, undo)

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
    ) -> Any:
        """See `StateStore.settle`."""
        stamp = item.timestamp

        def settle(record: StateRecord) -> Decision:
            item.timestamp = stamp
            return record._settle(algorithm, rates, item, now, patience_ms)

        return self._step(settle)

    def release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> Any:
        """See `StateStore.release`."""
        return self._step(lambda record: record._release(algorithm, rates, item))

    def forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Any:
        """See `StateStore.forecast`."""
        return self._look(lambda record: record._forecast(algorithm, rates, now, weight))

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> Any:
        """See `StateStore.read`."""

        def current(record: StateRecord) -> State:
            return record._current(algorithm, rates)

        return self._look(current)

    def reset(self) -> Any:
        """See `StateStore.reset`."""

        def delete() -> Program[None]:
            table = yield from self._place()
            yield from self._link.query(f"DELETE FROM {table} WHERE key = {literal(self.key)}")

        return self._run(delete())

    def _look(self, use: Callable[[StateRecord], Any]) -> Any:
        def look() -> Program[Any]:
            table = yield from self._place()
            row = yield from self._link.query(
                f"SELECT record FROM {table} WHERE key = {literal(self.key)}"
            )
            return use(_record(row))

        return self._run(look())

    def _step(self, use: Callable[[StateRecord], Any], undo: Any = None) -> Any:
        """``use`` on the record, while nobody else has it in hand."""

        def step() -> Program[Any]:
            table = yield from self._place()
            key = literal(self.key)
            # The row may not be there yet, so the lock is not the row's but the key's.
            lock = f"hashtextextended({literal(table)} || {key}, 0)"

            def work(connection: Any, _again: bool) -> Program[Any]:
                commit = "" if self._durable else "SET LOCAL synchronous_commit = off; "
                row = yield from self._link.fetch(
                    connection,
                    f"BEGIN ISOLATION LEVEL READ COMMITTED; {commit}"
                    f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE; "
                    f"DO $$BEGIN PERFORM pg_advisory_xact_lock({lock}); END$$; "
                    f"SELECT record FROM {table} WHERE key = {key}",
                )
                record = _record(row)
                before = record.dump()
                answer = use(record)
                after = record.dump()
                if after == before:
                    yield from self._link.fetch(connection, "COMMIT")
                    return answer
                yield from self._link.fetch(
                    connection,
                    f"INSERT INTO {table} (key, record) "
                    f"VALUES ({key}, {literal(json.dumps(after))}) "
                    "ON CONFLICT (key) DO UPDATE SET record = EXCLUDED.record; COMMIT",
                )
                return answer

            return (yield from self._link.transact(work))

        return self._run(step(), undo)

    def _run(self, program: Program[Any], undo: Any = None) -> Any:
        run = self._link.run(program)
        return uncancelled(run, undo) if self.is_async else run

    def _place(self) -> Program[str]:
        """The table with its schema; made if it is not there."""
        if self._table is not None:
            return self._table
        find = (
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.oid = to_regclass({literal(quoted(self._name))})"
        )
        row = yield from self._link.query(find)
        if row is None:
            errors = driver().errors
            try:
                yield from self._link.query(
                    f"BEGIN; SELECT pg_advisory_xact_lock({advisory_lock_id(self._name)}); "
                    f"CREATE TABLE IF NOT EXISTS {quoted(self._name)} "
                    "(key TEXT PRIMARY KEY, record TEXT NOT NULL); COMMIT"
                )
            except errors.InsufficientPrivilege:
                row = yield from self._link.query(find)  # somebody else has made it just now
                if row is None:
                    raise
            else:
                row = yield from self._link.query(find)
        self._table = f"{quoted(row[0])}.{quoted(self._name)}"
        return self._table


def _record(row: Any) -> StateRecord:
    record = StateRecord()
    if row is not None:
        record.load(json.loads(row[0]))
    return record
