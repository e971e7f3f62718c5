"""The steps that a bucket takes in Postgres, each one round trip."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrate_limiter.buckets.postgres_link import driver
from pyrate_limiter.buckets.postgres_setup import find_or_make
from pyrate_limiter.buckets.postgres_text import literal, lock_key, number, numbers
from pyrate_limiter.buckets.postgres_turns import Turns
from pyrate_limiter.buckets.postgres_wire import silence

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.buckets.postgres_link import Attempt, Link
    from pyrate_limiter.buckets.postgres_setup import Place
    from pyrate_limiter.buckets.postgres_text import Limits

_LONGEST_LOCK_MS = (1 << 31) - 1
LEAST_MS = 500  # for a step at the end of a caller's time
_RELEASE_SECONDS = 1.0
_MOST_DOUBTS = 10_000
_LANES = 64  # names that share one wait for each other
_EXPIRED = -2
_LEASE_SECONDS = 2.0  # after which a statement that is still on its way stores nothing


class Busy(Exception):
    """The lock could not be had within the caller's time."""


class Doubt:
    """An acquisition that may be stored although its caller has been told otherwise."""

    __slots__ = ("due", "expires", "name", "token", "weight")

    def __init__(self, name: str, weight: int, token: int) -> None:
        self.name: str = name
        self.weight: int = weight
        self.token: int = token
        self.expires: int | None = None  # the server's ms after which it is not stored any more
        self.due: float = 0.0  # about the same on the clock of time.monotonic


class Ask(NamedTuple):
    """What somebody asks for.

    Attributes:
        name: the item's name.
        weight: the item's units.
        token: marks them.
        now: when they are asked for, in ms; None is the server's time.
        clock: the reading of another clock than the server's.
        patience: ms that the caller is willing to wait.
        limit: ms that it may take, 0 for no limit.
        buffer: ms after the earliest moment; None is the failing rate's pad.
        store: whether to store anything.
        look: whether to count what remains.
    """

    name: str
    weight: int
    token: int
    now: int | None
    clock: int | None
    patience: int
    limit: int
    buffer: int | None
    store: bool
    look: bool


class Steps:
    """What a bucket asks of its table.

    Args:
        link: the way to the server.
        name: the table's name without its schema.
        keyed: whether each name is limited by itself.
        durable: whether a commit waits for the disk.
    """

    def __init__(self, link: Link, name: str, *, keyed: bool, durable: bool) -> None:
        self.link = link
        self.name = name
        self.keyed = keyed
        self.is_durable = durable
        self.doubts: deque[Doubt] = deque(maxlen=_MOST_DOUBTS)
        self._turns = [Turns() for _ in range(_LANES if keyed else 1)]
        self._place: Place | None = None
        self._begins = False
        self._lock = ""
        psycopg = driver()
        self.busy: Any = psycopg.errors.LockNotAvailable
        self._errors = psycopg.Error

    def place(self, seconds: float | None = None) -> Program[Place]:
        """Where the units are; made if it is not there, see `find_or_make`."""
        place = self._place
        if place is None:
            place = yield from find_or_make(self.link, self.name, self.keyed, seconds)
            self._lock = lock_key(place.table)
            self._place = place
        return place

    def turns(self, name: str) -> Turns:
        """Whose turn it is in this process, for a policy that runs in it."""
        return self._turns[hash(name) % len(self._turns)]

    def lock(self, name: str) -> str:
        """The advisory lock of the bucket, or of one name of it."""
        return lock_key(self._lock, name) if self.keyed else self._lock

    def claim(self, limits: Limits, ask: Ask) -> Program[list[Any]]:
        """See ``sql/postgres_claim.sql``.

        Raises:
            Busy: the lock could not be had within ``ask.limit`` ms.
        """
        seconds = seconds_of(ask.limit)
        place = self._place or (yield from self.place(seconds))
        if self.doubts:
            yield from self.settle_doubts(1)
        doubt = Doubt(ask.name, ask.weight, ask.token)
        begun = time.monotonic()

        def text(attempt: Attempt) -> str:
            tried = time.monotonic()
            waited = int((tried - begun) * 1000)  # for a connection, or by earlier tries
            doubt.due = min(attempt.deadline, tried + _LEASE_SECONDS)
            doubt.expires = self.link.server_ms(doubt.due)
            return self.claim_text(place, limits, ask, waited, doubt.expires, again=attempt.again)

        try:
            return (yield from self._call(text, seconds, lambda: self.doubt(doubt)))
        except self.busy:
            if seconds is None:
                raise
            raise Busy from None

    def doubt(self, doubt: Doubt) -> None:
        """Have it taken out later, if it is there."""
        if self._place is None or self._place.has_columns:
            self.doubts.append(doubt)

    def settle_doubts(self, most: int) -> Program[None]:
        """Take out what may have been stored for callers who have been told otherwise."""
        for _ in range(min(most, len(self.doubts))):
            try:
                doubt = self.doubts.popleft()
            except IndexError:  # another thread has them in hand
                return
            if doubt.due > time.monotonic():
                self.doubts.append(doubt)
                continue
            try:
                units = yield from self.release(
                    doubt.name, doubt.weight, doubt.token, None, expires=doubt.expires
                )
            except BaseException as error:
                self.doubts.append(doubt)
                if isinstance(error, self._errors):
                    return  # whoever asks the server next is told
                raise
            if units < 0:
                self.doubts.append(doubt)

    def claim_text(
        self,
        place: Place,
        limits: Limits,
        ask: Ask,
        waited: int = 0,
        expires: int | None = None,
        *,
        again: bool = False,
    ) -> str:
        """The statement of `claim`.

        Args:
            place: where the units are.
            limits: what holds them.
            ask: what is asked for.
            waited: ms of the caller's time that are over.
            expires: the server's ms after which nobody waits for an answer.
            again: whether an earlier try may have stored the units.
        """
        name, weight, token, now, clock, patience, limit, buffer, store, look = ask
        unusual = again or now is not None or clock is not None
        patience = patience if now is not None else max(0, patience - waited)
        limit = 0 if seconds_of(limit) is None else max(1, limit - waited)
        terms = (
            f"'{{{self.is_durable:d},{unusual:d},{number(now)},{number(clock)},{patience},"
            f"{number(buffer)},{store:d},{look:d},{again:d},{limit},{number(expires)},"
            f"{limits.fixed:d}}}'"
        )
        lock = self.lock(name)
        return place.calls["claim"] % (lock, literal(name), int(weight), token, terms, limits.rates)

    def settle(
        self,
        limits: Limits,
        name: str,
        weight: int,
        token: int,
        *,
        now: int | None,
        slack: int,
        patience: int,
    ) -> Program[list[Any]]:
        """See ``sql/postgres_settle.sql``."""
        place = yield from self.place()
        terms = f"'{{{self.is_durable:d},{number(now)},{slack},{patience},{limits.fixed:d}}}'"
        units = self.lock(name), literal(name), int(weight), token
        text = place.calls["settle"] % (*units, terms, limits.rates)
        # It is at the end of its time that a waiter wakes.
        seconds = seconds_of(max(patience, LEAST_MS) if patience < _LONGEST_LOCK_MS else patience)
        return (yield from self._call(lambda _: text, seconds))

    def release(
        self,
        name: str,
        weight: int,
        token: int | None,
        moment: int | None,
        *,
        expires: int | None = None,
    ) -> Program[int]:
        """See ``sql/postgres_release.sql``. Returns units; -2 if they may still come."""
        place = yield from self.place()
        if not place.has_columns:
            row = yield from self.link.query(
                f"WITH gone AS (DELETE FROM {place.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
                f"{place.table} WHERE name = {literal(name)} AND item_timestamp = "
                f"to_timestamp({moment} / 1000.0) LIMIT {weight})) RETURNING 1) "
                "SELECT count(*) FROM gone"
            )
            return int(row[0])
        terms = f"'{{{self.is_durable:d},{number(moment)},{number(expires)}}}'"
        units = self.lock(name), literal(name), int(weight), number(token)
        text = place.calls["release"] % (*units, terms, "'{}'")
        answer = yield from self._call(lambda _: text, _RELEASE_SECONDS)
        return int(answer[0])

    def _call(self, text: Any, seconds: float | None, orphaned: Any = None) -> Program[list[Any]]:
        """What a statement of ours answers: numbers, the last of which is the server's clock."""

        def once(attempt: Attempt) -> Program[list[Any]]:
            while True:
                statement = text(attempt)
                sent = time.monotonic()
                begins = self._begins or not (self._place and self._place.functions)
                if begins:
                    statement = f"BEGIN ISOLATION LEVEL READ COMMITTED; {statement}; COMMIT"
                rows = yield from attempt.fetch(statement)
                answer = numbers(rows[-1][0][0])
                if answer[0] == -1 and not begins:
                    # The session's isolation level does not see what a lock waits for.
                    self._begins = True
                    continue
                self.link.learn(sent, answer[-1])
                if answer[0] != _EXPIRED or orphaned is None:
                    return answer
                if time.monotonic() >= attempt.deadline:
                    raise silence()

        answer: list[Any] = yield from self.link.transact(once, seconds, orphaned)
        return answer

    def count(self) -> Program[int]:
        """Stored units."""
        place = yield from self.place()
        return int((yield from self.link.query(f"SELECT count(*) FROM {place.table}"))[0])

    def flush(self) -> Program[None]:
        """Delete all units."""
        place = yield from self.place()
        yield from self.link.query(f"DELETE FROM {place.table}")

    def peek(self, index: int) -> Program[Any]:
        """Name and ms of a unit, or None. What 4.5.1 wrote since the last step is newest."""
        place = yield from self.place()
        stored = "floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint"
        order = "item_timestamp DESC, ctid DESC"
        if place.has_columns:
            stored = f"coalesce(at_ms, {stored})"
            order = f"{'at_ms DESC,' if self.keyed else ''} seq DESC, item_timestamp DESC"
        return (
            yield from self.link.query(
                f"SELECT name, {stored} FROM {place.table} ORDER BY {order} OFFSET {index} LIMIT 1"
            )
        )

    def leak(self, bound: int | None, longest: int) -> Program[int]:
        """Delete the units before ``bound`` ms; None is ``longest`` ms before the server's time."""
        place = yield from self.place()
        yield from self.settle_doubts(len(self.doubts))
        if bound is None:
            ms = f"(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - {longest})"
        else:
            ms = f"{bound}::bigint"
        old = f"item_timestamp < to_timestamp({ms} / 1000.0)"
        if place.has_columns:
            old = f"at_ms < {ms} OR (seq IS NULL AND {old})"
        row = yield from self.link.query(
            f"WITH gone AS (DELETE FROM {place.table} WHERE {old} RETURNING 1) "
            "SELECT count(*) FROM gone"
        )
        return int(row[0])


def seconds_of(patience: int) -> float | None:
    """A patience in ms as a time limit; None for those without, or with one beyond measure."""
    return patience / 1000 if 0 < patience <= _LONGEST_LOCK_MS else None
