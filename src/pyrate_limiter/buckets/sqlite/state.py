"""A state in a row of a SQLite table: it outlives the process, and is shared by those of a host."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from typing import TYPE_CHECKING

from pyrate_limiter._core.clocks import AbstractClock, WallClock
from pyrate_limiter._core.process_lock import LAST_SECONDS, has_end, lock_seconds
from pyrate_limiter._core.timeline import NO_CLOCK
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.sqlite.connections import file_name
from pyrate_limiter.buckets.sqlite.database import FOREVER_SECONDS, Database
from pyrate_limiter.buckets.sqlite.errors import DatabaseLocked
from pyrate_limiter.buckets.sqlite.statements import quoted
from pyrate_limiter.buckets.state.record import StateRecord
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem

_SWEEP_EVERY = 256  # writes of this process between two looks for keys with nothing owed
_LINGER_MS = 60_000
_SWEEP_AT_MOST = 1024  # keys removed at a time


class SQLiteStateStore(StateRecord, StateStore):
    """One state in a SQLite database, under a key; many keys share a table.

    Each step is one transaction, exact between threads and processes. Keys on which nothing is
    owed any more are removed from the table as it is used.

    Args:
        source: a file, made if missing, or a connection, which stays as it is and stays open; see
            `SQLiteBucket`.
        key: which state; any text.
        table: the table's name; it is made if missing.

    Raises:
        WrongType: ``key`` or ``table`` is no text, or ``source`` neither path nor connection.
        UnusableConnection: the connection cannot be used here.
        sqlite3.OperationalError: the file cannot be opened.
    """

    default_clock: AbstractClock = WallClock()
    keeps_claims = True
    asks_clock = True
    blocks = True
    bounds_claims = True

    def __init__(
        self,
        source: str | os.PathLike[str] | sqlite3.Connection,
        key: str,
        table: str = "pyrate_limiter_states",
    ) -> None:
        for field, text in (("key", key), ("table", table)):
            if not isinstance(text, str) or (field == "table" and not text) or "\0" in table:
                raise WrongType(field, text, "a text")
        super().__init__()
        self.key = key
        name = quoted(table)
        schema = (
            (
                f"CREATE TABLE IF NOT EXISTS {name} "
                "(key TEXT PRIMARY KEY, state TEXT NOT NULL, idle_at INTEGER NOT NULL) "
                "WITHOUT ROWID"
            ),
            f"CREATE INDEX IF NOT EXISTS {quoted(table + '_idle_at')} ON {name} (idle_at)",
        )
        self._read = f"SELECT state FROM {name} WHERE key = ?"
        self._save = f"INSERT OR REPLACE INTO {name} VALUES (?, ?, ?)"
        self._forget = f"DELETE FROM {name} WHERE key = ?"
        self._sweep = (
            f"DELETE FROM {name} WHERE key IN "
            f"(SELECT key FROM {name} WHERE idle_at < ? ORDER BY idle_at LIMIT {_SWEEP_AT_MOST})"
        )
        self._writes = 0
        if isinstance(source, sqlite3.Connection):
            self._db = Database(None, source, schema=schema)
        elif isinstance(source, (str, os.PathLike)):
            self._db = Database(file_name(source), schema=schema)
        else:
            raise WrongType("source", source, "a path or a sqlite3.Connection")
        self._kept: str | None = None

    def _within(self) -> _Step:
        return _Step(self, None)

    def _fetch(self) -> None:
        row = self._db.run(self._read, (self.key,)).fetchone()
        self._kept = None if row is None else row[0]
        if row is None:
            self._clear()
        else:
            self.load(json.loads(row[0]))

    def _keep(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> None:
        """Write the record down, and when it may be removed."""
        now = self._latest - self._ahead
        dumped = json.dumps(self.dump(), separators=(",", ":"))
        if dumped == self._kept:
            return
        self._kept = dumped
        _, reset = algorithm.outlook(rates, self._current(algorithm, rates), self._latest)
        held = self._held(self._latest) - self._latest
        # Kept for longer than it is owed: what time it last was tells whether the clock has stepped
        # back, and a claim is kept until its waiter must have gone.
        kept_ms = FOREVER // 2
        if reset is not None:
            kept_ms = max(reset, held) + rates[-1].interval + _LINGER_MS
        idle_at = now + kept_ms
        self._db.run(self._save, (self.key, dumped, idle_at))
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 1:
            self._db.run(self._sweep, (now,))

    def check(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision:
        """See `StateStore.check`."""
        with self._within():
            before, ahead = self._state, self._ahead
            decision = self._step(algorithm, rates, self._observe(now, rates, clock), weight)
            if decision.allowed or before is not self._state or ahead != self._ahead:
                self._keep(algorithm, rates)
            return decision

    @property
    def store_id(self) -> object:
        """What the stores of one file have in common."""
        return self._db.path or id(self._db)

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> Decision:
        """See `StateStore.claim`, and `AbstractBucket.claim_within`."""
        terms = (patience_ms, buffer_ms, None, clock, limit_ms)
        return self.claim_several(algorithm, rates, [item], *terms)[0]

    def claim_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        """See `StateStore.claim_several`."""
        seconds = lock_seconds(patience_ms, limit_ms, self._db.busy_seconds)
        try:
            with _Step(self, FOREVER_SECONDS if seconds is None else seconds):
                ahead = self._ahead
                decisions = self._claim_several(
                    algorithm, rates, items, patience_ms, buffer_ms, not_before, clock
                )
                if decisions[0].allowed or ahead != self._ahead:
                    self._keep(algorithm, rates)
                return decisions
        except DatabaseLocked:
            if not has_end(patience_ms, limit_ms):
                raise
            return [Decision(rates[0], 0)]

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision:
        """See `StateStore.settle`. The claim stays where the file stays locked."""
        seconds = lock_seconds(patience_ms, busy_seconds=LAST_SECONDS)
        try:
            with _Step(self, FOREVER_SECONDS if seconds is None else seconds):
                decision = self._settle(algorithm, rates, item, now, patience_ms, clock)
                self._keep(algorithm, rates)
                return decision
        except DatabaseLocked:
            return Decision(rates[0], 0)

    def release(self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem) -> bool:
        """See `StateStore.release`. The claim stays where the file stays locked."""
        try:
            with _Step(self, LAST_SECONDS):
                released = self._release(algorithm, rates, item)
                self._keep(algorithm, rates)
                return released
        except DatabaseLocked:
            return False

    def hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int | None,
        hold_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> int:
        """See `StateStore.hold`."""
        with self._within():
            held_ms = self._begin_hold(rates, now, hold_ms, clock)
            self._keep(algorithm, rates)
            return held_ms

    def release_hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int | None,
        clock: AbstractClock = NO_CLOCK,
    ) -> bool:
        """See `StateStore.release_hold`."""
        with self._within():
            released = self._release_hold(rates, now, clock)
            self._keep(algorithm, rates)
            return released

    def forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision:
        """See `StateStore.forecast`."""
        with self._within():
            ahead = self._ahead
            decision = self._forecast(algorithm, rates, now, weight, clock)
            if ahead != self._ahead:
                self._keep(algorithm, rates)
            return decision

    def ahead_ms(self) -> int:
        """See `StateStore.ahead_ms`."""
        return self._ahead

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State:
        """See `StateStore.read`."""
        with self._within():
            return self._current(algorithm, rates)

    def reset(self) -> None:
        """See `StateStore.reset`. A file that is gone is made anew."""
        self._db.start_anew()
        with self._within():
            self._db.run(self._forget, (self.key,))

    def close(self) -> None:
        """Close the file that was opened here. May be called again."""
        self._db.close()


class _Step:
    """A transaction in which the store is the record of its key."""

    __slots__ = ("_seconds", "_store")

    def __init__(self, store: SQLiteStateStore, seconds: float | None) -> None:
        self._store, self._seconds = store, seconds

    def __enter__(self) -> None:
        self._store._db.begin(self._seconds, sys._getframe(1))
        try:
            self._store._fetch()
        except BaseException as error:
            self._store._db.end(error)
            raise

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self._store._db.end(error)
