"""A state and its claims in a row of PostgreSQL: read, and written if nobody has meanwhile."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.postgres.fair_lock import Turns, in_turn
from pyrate_limiter.buckets.postgres.literals import literal, lock_key, short, unique
from pyrate_limiter.buckets.postgres.schema import (
    advisory_lock_id,
    as_the_server_cuts,
    find_table,
    quoted,
)
from pyrate_limiter.buckets.postgres.session import at_work, driver, first
from pyrate_limiter.buckets.postgres.statements import GIVING_SECONDS, Busy, seconds_of
from pyrate_limiter.buckets.remote.in_doubt import InDoubt
from pyrate_limiter.buckets.state.record import StateRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.session import Attempt, Link

    Use = Callable[[StateRecord, int], Any]

_WRITERS = 64  # how many of the last writers a row knows, for those whose answer was lost


class _Write:
    """A write that may be there although its caller has been told otherwise.

    It is undone, or where it gives something back done, unless that has happened already.
    """

    __slots__ = ("due", "take_back", "undoing", "writer")

    def __init__(self, take_back: Use | None, *, undoing: bool) -> None:
        self.writer: int = unique()
        self.take_back: Use | None = take_back
        self.undoing = undoing
        self.due: float = 0.0  # on time.monotonic; later it is not made any more


class StateRow:
    """The row of one key.

    Its version is in the index, newest first: the versions that an old snapshot of somebody else
    keeps are not walked through.

    Args:
        link: the way to the server.
        name: the table's name without its schema.
        key: which state.
        durable: whether a commit waits for the disk.
    """

    def __init__(self, link: Link, name: str, key: str, *, durable: bool) -> None:
        self._link, self._durable = link, durable
        self._name, self._key = as_the_server_cuts(name), literal(short(key))
        self._turns, self._setup = Turns(), Turns()
        self._table: str | None = None
        self._in_doubt: InDoubt[_Write] = InDoubt()

    def read(self, use: Callable[[StateRecord], Any]) -> Program[Any]:
        """``use`` on the record."""
        table = yield from self.place()
        row = yield from self._link.query(self._reading(table, 0))
        return use(_record(row[1]))

    def delete(self) -> Program[None]:
        """Forget the state."""
        table = yield from self.place()
        yield from self._link.query(f"DELETE FROM {table} WHERE key = {self._key}")

    def step(self, use: Use, patience_ms: int = 0, take_back: Use | None = None) -> Program[Any]:
        """``use`` on the record and the server's time, and what it makes of the record stored."""
        if self._in_doubt:
            yield from self._settle_doubt()
        write = _Write(take_back, undoing=True)

        def orphaned() -> None:
            if take_back is not None:
                self._in_doubt.extend([write])

        return (yield from self._swap(use, write, seconds_of(patience_ms), orphaned))

    def give_back(self, take_back: Use) -> Program[bool]:
        """What ``take_back`` answers, done now; or False, and a later caller has to do it."""
        if self._in_doubt:
            yield from self._settle_doubt()
        write, done = _Write(take_back, undoing=False), False
        try:
            given = yield from self._swap(take_back, write, GIVING_SECONDS)
            done = True
        except (driver().Error, Busy):
            return False  # it comes in the place of another error or a cancellation
        finally:
            if not done:
                self._in_doubt.extend([write])
        return bool(given)

    def give_back_later(self, take_back: Use) -> bool:
        """Have a later caller do what `give_back` does; answers False."""
        self._in_doubt.extend([_Write(take_back, undoing=False)])
        return False

    def _settle_doubt(self) -> Program[None]:
        for write in self._in_doubt.take(lambda _, write: time.monotonic() >= write.due, 1):
            done = False
            try:
                yield from self._swap(write.take_back, write, GIVING_SECONDS, undoing=write.undoing)
                done = True
            except (driver().Error, Busy):
                pass  # whoever asks the server next is told
            finally:
                if not done:
                    self._in_doubt.extend([write])

    def _swap(
        self,
        use: Any,
        write: _Write,
        seconds: float | None,
        orphaned: Any = None,
        *,
        undoing: bool = False,
    ) -> Program[Any]:
        table = yield from self.place(seconds)
        reading = self._reading(table, write.writer)
        writer = unique() if undoing else write.writer
        answer: Any = None

        def work(attempt: Attempt) -> Program[Any]:
            nonlocal answer
            write.due = attempt.deadline
            sent = time.monotonic()
            row = yield from first(attempt, f"{attempt.bounds()}{reading}")
            while True:
                now, text, written = int(row[0]), row[1], row[3] == "t"
                last = None if row[4] is None else (row[2], row[4])
                self._link.learn(sent, now)
                # If there is something to undo; or an earlier try has done it, its answer was lost.
                if written is not undoing:
                    return answer
                left = attempt.deadline - time.monotonic()
                if left <= 0:  # others have written each time
                    raise at_work() if seconds is None else Busy
                record = _record(text)
                before = record.dump()
                answer = use(record, now)
                after = record.dump()
                if after[1:] == before[1:]:  # all but the largest time seen
                    return answer
                expires = now + int(left * 1000)
                sent = time.monotonic()
                writing = self._writing(table, after, last, writer, expires)
                statement = f"{attempt.bounds()}{writing}; {reading}"
                if last is None:  # what waits for the lock has to see what was stored meanwhile
                    statement = f"BEGIN ISOLATION LEVEL READ COMMITTED; {statement}; COMMIT"
                *_, stored, rows = yield from attempt.fetch(statement)
                if stored[0][0] != "0":
                    return answer
                row = rows[0]

        def late(since: float) -> Program[BaseException]:
            return self._link.late(since, None if seconds is None else Busy())

        def transact(left: float | None) -> Program[Any]:
            return self._link.transact(work, left, orphaned)

        return (yield from in_turn(self._turns, self._link.within(seconds), late, transact))

    def _reading(self, table: str, writer: int) -> str:
        return (
            "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, record, "
            f"writers[1], coalesce({writer} = ANY (writers), false), version "
            f"FROM (SELECT 1) one LEFT JOIN (SELECT * FROM {table} WHERE key = {self._key} "
            "ORDER BY version DESC LIMIT 1) row ON true"
        )

    def _writing(
        self, table: str, after: Any, last: tuple[str, str] | None, writer: int, expires: int
    ) -> str:
        key, record = self._key, literal(json.dumps(after))
        commit = "" if self._durable else "SET LOCAL synchronous_commit = off; "
        in_time = f"extract(epoch FROM clock_timestamp()) * 1000 <= {expires}"
        if last is None:
            # The first version is newer than those of a state that was reset.
            commit += f"SELECT pg_advisory_xact_lock({lock_key(table, key)}); "
            change = (
                f"INSERT INTO {table} (key, version, record, writers) SELECT {key}, "
                "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, "
                f"{record}, ARRAY[{writer}]::bigint[] WHERE {in_time} "
                f"AND NOT EXISTS (SELECT 1 FROM {table} WHERE key = {key})"
            )
        else:
            change = (
                f"UPDATE {table} SET record = {record}, version = version + 1, "
                f"writers = {writer}::bigint || writers[1:{_WRITERS - 1}] WHERE key = {key} "
                f"AND version = {last[1]} AND writers[1] = {last[0]} AND {in_time}"
            )
        return f"{commit}WITH stored AS ({change} RETURNING 1) SELECT count(*) FROM stored"

    def place(self, seconds: float | None = None) -> Program[str]:
        """The table with its schema; made if it is not there."""
        if self._table is not None:
            return self._table
        limit = self._link.within(seconds)
        return (yield from in_turn(self._setup, limit, self._link.late, self._find))

    def _find(self, seconds: float | None) -> Program[str]:
        if self._table is not None:  # somebody before has found it
            return self._table
        schema, oid = yield from find_table(self._link, self._name, seconds)
        if oid is None:
            name = f"{quoted(schema)}.{quoted(self._name)}"
            try:
                yield from self._link.query(
                    f"BEGIN; SELECT pg_advisory_xact_lock({advisory_lock_id(self._name)}); "
                    f"CREATE TABLE IF NOT EXISTS {name} (key TEXT, version BIGINT, "
                    "record TEXT NOT NULL, writers BIGINT[] NOT NULL, "
                    "PRIMARY KEY (key, version)); COMMIT",
                    seconds,
                )
            except driver().errors.InsufficientPrivilege:
                # Somebody else may have made it just now.
                schema, oid = yield from find_table(self._link, self._name, seconds)
                if oid is None:
                    raise
            else:
                schema, oid = yield from find_table(self._link, self._name, seconds)
        sent = time.monotonic()
        place, now = yield from self._link.query(
            "SELECT nspname, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint "
            f"FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE c.oid = {oid}",
            seconds,
        )
        self._link.learn(sent, int(now))
        self._table = f"{quoted(place)}.{quoted(self._name)}"
        return self._table


def _record(text: str | None) -> StateRecord:
    record = StateRecord()
    if text is not None:
        record.load(json.loads(text))
    return record
