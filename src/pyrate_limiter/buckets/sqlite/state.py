"""A state in a row of a SQLite table: it outlives the process, and is shared by those of a host."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.clocks import AbstractClock, WallClock
from pyrate_limiter._core.process_lock import lock_seconds
from pyrate_limiter._core.timeline import LATEST_MS
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.buckets.sqlite.connections import file_name
from pyrate_limiter.buckets.sqlite.database import FOREVER_SECONDS, Database, Transaction
from pyrate_limiter.buckets.sqlite.errors import DatabaseLocked
from pyrate_limiter.buckets.sqlite.statements import quoted
from pyrate_limiter.buckets.state.record import StateRecord
from pyrate_limiter.buckets.state.store import BlockingRecordStore
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.buckets.state.rules import StateRules
    from pyrate_limiter.buckets.state.store import Undo

T = TypeVar("T")

_SWEEP_EVERY = 256  # writes of this process between two looks for keys with nothing owed
_SWEEP_AT_MOST = 1024  # keys removed at a time


class SQLiteStateStore(BlockingRecordStore):
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
    blocks = True

    def __init__(
        self,
        source: str | os.PathLike[str] | sqlite3.Connection,
        key: str,
        table: str = "pyrate_limiter_states",
    ) -> None:
        for field, text in (("key", key), ("table", table)):
            if not isinstance(text, str) or (field == "table" and not text) or "\0" in table:
                raise WrongType(field, text, "a text")
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
        self._ahead = 0

    @property
    def store_id(self) -> object:
        """What the stores of one file have in common."""
        return self._db.path or id(self._db)

    def transact(
        self,
        rules: StateRules,
        use: Callable[[StateRules], T],
        within_ms: int | None = None,
        instead: Callable[[Decision], T] | None = None,
        undo: Undo[T] | None = None,
    ) -> T:
        """See `RecordStore.transact`: one transaction of the database."""
        del undo
        seconds = None
        if within_ms is not None:
            seconds = lock_seconds(within_ms, within_ms)
            seconds = FOREVER_SECONDS if seconds is None else seconds
        try:
            with Transaction(self._db, seconds):
                record = self._stored()
                before = record.dump()
                answer = use(rules.on(record))
                if record.dump() != before:
                    self._keep(rules)
                self._ahead = record._ahead
        except DatabaseLocked:
            if within_ms is None or instead is None:
                raise
            return instead(Decision(rules.rates[0], 0))
        return answer

    def _stored(self) -> StateRecord:
        record = StateRecord()
        row = self._db.run(self._read, (self.key,)).fetchone()
        if row is not None:
            record.load(json.loads(row[0]))
        return record

    def _keep(self, rules: StateRules) -> None:
        """Write the record down, and when it may be removed."""
        record, latest = rules.record, rules.record._latest
        _, reset = rules.algorithm.remaining_and_reset(rules.rates, rules.state(), latest)
        # Kept for longer than it is owed: what time it last was tells whether the clock has stepped
        # back, and units stay reserved until their holder must have gone.
        kept_ms = FOREVER // 2
        if reset is not None:
            held_ms = record._held(latest) - latest
            kept_ms = max(reset, held_ms) + rules.rates[-1].interval + LATEST_MS
        now = latest - record._ahead
        dumped = json.dumps(record.dump(), separators=(",", ":"))
        self._db.run(self._save, (self.key, dumped, now + kept_ms))
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 1:
            self._db.run(self._sweep, (now,))

    def ahead_ms(self) -> int:
        return self._ahead

    def reset(self) -> None:
        """See `StateStore.reset`. A file that is gone is made anew."""
        self._db.start_anew()
        with Transaction(self._db):
            self._db.run(self._forget, (self.key,))

    def close(self) -> None:
        """Close the file that was opened here. May be called again."""
        self._db.close()
