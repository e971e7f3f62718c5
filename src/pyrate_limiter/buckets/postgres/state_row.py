"""A state and its reservations in a row of Postgres: read, and written if nobody has meanwhile."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter.buckets.postgres.exchange import driver
from pyrate_limiter.buckets.postgres.fair_lock import FairLock
from pyrate_limiter.buckets.postgres.literals import CLOCK, literal, lock_key, short, unique
from pyrate_limiter.buckets.postgres.schema import (
    advisory_lock_id,
    as_the_server_cuts,
    find_table,
    quoted,
)
from pyrate_limiter.buckets.postgres.session import at_work, first, whole
from pyrate_limiter.buckets.postgres.statements import REFUND_SECONDS, Busy, seconds_of
from pyrate_limiter.buckets.remote.in_doubt import InDoubt
from pyrate_limiter.buckets.state.record import StateRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.session import Attempt, Session
    from pyrate_limiter.buckets.state.record import Numbers

    T = TypeVar("T")
    Use = Callable[[StateRecord, int], object]

_WRITERS = 64  # how many of the last writers a row knows, for those whose answer was lost


class _Write:
    """A write that may be there although its caller has been told otherwise.

    It is undone, or where it gives something back done, unless that has happened already.
    """

    __slots__ = ("due", "take_back", "undoing", "writer")

    def __init__(self, take_back: Use = lambda *_: None, *, undoing: bool) -> None:
        self.writer: int = unique()
        self.take_back: Use = take_back
        self.undoing: bool = undoing
        self.due: float = 0.0  # on time.monotonic; later it is not made any more


class StateRow:
    """The row of one key.

    Its version is in the index, newest first: the versions that an old snapshot of somebody else
    keeps are not walked through.

    Args:
        session: the way to the server.
        name: the table's name without its schema.
        key: which state.
        durable: whether a commit waits for the disk.
    """

    def __init__(self, session: Session, name: str, key: str, *, durable: bool) -> None:
        self._session, self._durable = session, durable
        self._name, self._key = as_the_server_cuts(name), literal(short(key))
        self._lock, self._setup = FairLock(), FairLock()
        self._table: str | None = None
        self._in_doubt: InDoubt[_Write] = InDoubt()

    def delete(self) -> Program[None]:
        """Forget the state."""
        table = yield from self.place()
        yield from self._session.query(f"DELETE FROM {table} WHERE key = {self._key}")

    def step(
        self,
        use: Callable[[StateRecord, int], T],
        within_ms: int = 0,
        undo: Callable[[T], Use | None] | None = None,
    ) -> Program[T]:
        """``use`` on the record and the server's time, and what it makes of the record stored.

        Args:
            use: what to do; again, where somebody else has written meanwhile.
            within_ms: how long the caller waits; 0 is as long as that takes.
            undo: of an answer, what takes back what was stored with it, if there is such a thing.

        Raises:
            Busy: others were at the row for as long as the caller waits.
        """
        if self._in_doubt:
            yield from self._make_good()
        write = _Write(undoing=True)
        answers: list[T] = []

        def orphaned() -> None:
            take_back = undo(answers[-1]) if undo and answers else None
            if take_back is not None:
                write.take_back = take_back
                self._in_doubt.extend([write])

        yield from self._swap(use, answers, write, seconds_of(within_ms), orphaned)
        return answers[-1]

    def give_back(self, take_back: Use) -> Program[bool]:
        """Whether ``take_back`` says so, done now; or False, and a later caller has to do it."""
        if self._in_doubt:
            yield from self._make_good()
        return (yield from self._try(_Write(take_back, undoing=False)))

    def give_back_later(self, take_back: Use) -> bool:
        """Have a later caller do what `give_back` does; answers False."""
        self._in_doubt.extend([_Write(take_back, undoing=False)])
        return False

    def _make_good(self) -> Program[None]:
        for write in self._in_doubt.take(lambda _, write: time.monotonic() >= write.due, 1):
            yield from self._try(write)

    def _try(self, write: _Write) -> Program[bool]:
        """Whether a write says so, done now; what cannot be done now is in doubt."""
        done, undoing = False, write.undoing
        answers: list[object] = []
        try:
            yield from self._swap(write.take_back, answers, write, REFUND_SECONDS, undoing=undoing)
            done = True
        except (driver().Error, Busy):
            pass  # it comes in the place of another error; whoever asks next is told
        finally:
            if not done:
                self._in_doubt.extend([write])
        return bool(answers and answers[-1])

    def _swap(
        self,
        use: Callable[[StateRecord, int], T],
        answers: list[T],
        write: _Write,
        seconds: float | None,
        orphaned: Callable[[], None] | None = None,
        *,
        undoing: bool = False,
    ) -> Program[None]:
        """``use`` on the record, once or again; its last answer is the one that counts."""
        table = yield from self.place(seconds)
        reading = self._reading(table, write.writer)
        writer = unique() if undoing else write.writer

        def work(attempt: Attempt) -> Program[None]:
            write.due = attempt.deadline
            sent = time.monotonic()
            row = yield from first(attempt, f"{attempt.bounds()}{reading}")
            while True:
                read, text, last_writer, is_written, version = row
                now, written = int(read), is_written == "t"
                last = None if version is None else (last_writer, version)
                self._session.learn(sent, now)
                # If there is something to undo; or an earlier try has done it, its answer was lost.
                if written is not undoing:
                    return
                left = attempt.deadline - time.monotonic()
                if left <= 0:  # others have written each time
                    raise at_work() if seconds is None else Busy
                record = _record(text)
                before = record.dump()
                answers.append(use(record, now))
                after = record.dump()
                if after[1:] == before[1:]:  # all but the largest time seen
                    return
                expires = now + int(left * 1000)
                sent = time.monotonic()
                writing = self._writing(table, after, last, writer, expires)
                statement = f"{attempt.bounds(durable=self._durable)}{writing}; {reading}"
                if last is None:  # what waits for the lock has to see what was stored meanwhile
                    statement = whole(statement)
                *_, stored, rows = yield from attempt.fetch(statement)
                if stored[0][0] != "0":
                    return
                row = rows[0]

        def transact(left: float | None) -> Program[None]:
            return self._session.transact(work, left, orphaned)

        busy = None if seconds is None else Busy()
        yield from self._session.in_turn(self._lock, seconds, transact, busy)

    def _reading(self, table: str, writer: int) -> str:
        return (
            f"SELECT {CLOCK}, record, "
            f"writers[1], coalesce({writer} = ANY (writers), false), version "
            f"FROM (SELECT 1) one LEFT JOIN (SELECT * FROM {table} WHERE key = {self._key} "
            "ORDER BY version DESC LIMIT 1) row ON true"
        )

    def _writing(
        self,
        table: str,
        after: Numbers,
        last: tuple[str, str] | None,
        writer: int,
        expires: int,
    ) -> str:
        key, record = self._key, literal(json.dumps(after))
        lock, in_time = "", f"extract(epoch FROM clock_timestamp()) * 1000 <= {expires}"
        if last is None:
            # The first version is newer than those of a state that was reset.
            lock = f"SELECT pg_advisory_xact_lock({lock_key(table, key)}); "
            change = (
                f"INSERT INTO {table} (key, version, record, writers) SELECT {key}, {CLOCK}, "
                f"{record}, ARRAY[{writer}]::bigint[] WHERE {in_time} "
                f"AND NOT EXISTS (SELECT 1 FROM {table} WHERE key = {key})"
            )
        else:
            change = (
                f"UPDATE {table} SET record = {record}, version = version + 1, "
                f"writers = {writer}::bigint || writers[1:{_WRITERS - 1}] WHERE key = {key} "
                f"AND version = {last[1]} AND writers[1] = {last[0]} AND {in_time}"
            )
        return f"{lock}WITH stored AS ({change} RETURNING 1) SELECT count(*) FROM stored"

    def place(self, seconds: float | None = None) -> Program[str]:
        """The table with its schema; made if it is not there."""
        if self._table is not None:
            return self._table
        return (yield from self._session.in_turn(self._setup, seconds, self._find))

    def _find(self, seconds: float | None) -> Program[str]:
        if self._table is not None:  # somebody before has found it
            return self._table
        schema, oid = yield from find_table(self._session, self._name, seconds)
        if oid is None:
            name = f"{quoted(schema)}.{quoted(self._name)}"
            refused = None
            try:
                yield from self._session.query(
                    f"BEGIN; SELECT pg_advisory_xact_lock({advisory_lock_id(self._name)}); "
                    f"CREATE TABLE IF NOT EXISTS {name} (key TEXT, version BIGINT, "
                    "record TEXT NOT NULL, writers BIGINT[] NOT NULL, "
                    "PRIMARY KEY (key, version)); COMMIT",
                    seconds,
                )
            except driver().errors.InsufficientPrivilege as error:
                refused = error  # somebody else may have made it just now
            schema, oid = yield from find_table(self._session, self._name, seconds)
            if oid is None and refused is not None:
                raise refused
        sent = time.monotonic()
        place, now = yield from self._session.query(
            f"SELECT nspname, {CLOCK} FROM pg_namespace n "
            f"JOIN pg_class c ON c.relnamespace = n.oid WHERE c.oid = {oid}",
            seconds,
        )
        self._session.learn(sent, int(now))
        self._table = f"{quoted(place)}.{quoted(self._name)}"
        return self._table


def _record(text: str | None) -> StateRecord:
    record = StateRecord()
    if text is not None:
        record.load(json.loads(text))
    return record
