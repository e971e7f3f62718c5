"""The steps that a bucket takes in Postgres, each one round trip."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrate_limiter.buckets.postgres.exchange import silence
from pyrate_limiter.buckets.postgres.fair_lock import FairLock
from pyrate_limiter.buckets.postgres.functions import NONE
from pyrate_limiter.buckets.postgres.literals import integers, literal, lock_key, numbers, texts
from pyrate_limiter.buckets.postgres.session import driver
from pyrate_limiter.buckets.postgres.table import Table
from pyrate_limiter.buckets.remote.in_doubt import InDoubt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.literals import Limits
    from pyrate_limiter.buckets.postgres.session import Attempt, Session

_LONGEST_LOCK_MS = (1 << 31) - 1
LEAST_MS = 500  # for a step at the end of a caller's time
GIVING_SECONDS = 1.0  # for what is given back
_LOCKS = 64  # names that share one wait for each other
_EXPIRED = -2
_LEASE_SECONDS = 2.0  # after which a statement that is still on its way stores nothing
_NEVER = 1 << 62
_ANSWER = 9  # numbers in the answer to a reservation


class Busy(Exception):
    """The lock could not be had within the caller's time."""


class UnitsInDoubt(NamedTuple):
    """Units that may be stored although nobody wants them.

    Attributes:
        name: the item's name.
        weight: how many of the item's units.
        token: marks them.
        since: the server's ms before which they are not.
        until: the server's ms after which they are not.
        expires: the server's ms after which they do not come to be stored any more.
        kept: how many of those stored together stay, which is the same when it is done again.
    """

    name: str
    weight: int
    token: int
    since: int
    until: int
    expires: int = NONE
    kept: int = 0


class Ask(NamedTuple):
    """What somebody asks for.

    Attributes:
        name: the item's name.
        weight: the item's units.
        token: marks them.
        now: when they are asked for, in ms; None is the server's time.
        clock: the reading of another clock than the server's.
        max_wait: ms that the caller is willing to wait.
        limit: ms that it may take, 0 for no limit.
        buffer: ms after the earliest moment; None is the failing rate's pad.
        store: whether to store anything.
        look: whether to count what remains.
        not_before: the earliest moment that is wanted, in ms.
    """

    name: str
    weight: int
    token: int
    now: int | None
    clock: int | None
    max_wait: int
    limit: int
    buffer: int | None
    store: bool
    look: bool
    not_before: int | None = None


class Steps(Table):
    """What a bucket asks of its table.

    Args:
        session: the way to the server.
        name: the table's name without its schema.
        keyed: whether each name is limited by itself.
        durable: whether a commit waits for the disk.
    """

    def __init__(self, session: Session, name: str, *, keyed: bool, durable: bool) -> None:
        super().__init__(session, name, keyed=keyed)
        self.is_durable = durable
        self.in_doubt: InDoubt[UnitsInDoubt] = InDoubt()
        self._fair_locks = [FairLock() for _ in range(_LOCKS if keyed else 1)]
        self._begins = False
        self._swept = NONE  # what is before that moment has been deleted
        psycopg = driver()
        self.busy: Any = psycopg.errors.LockNotAvailable
        self._errors = psycopg.Error
        self._away = (psycopg.OperationalError, psycopg.InterfaceError)
        self._gone = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)

    def fair_lock(self, name: str) -> FairLock:
        """Whose turn it is in this process, for a policy that runs in it."""
        return self._fair_locks[hash(name) % len(self._fair_locks)]

    def lock(self, name: str) -> str:
        """The advisory lock of the bucket, or of one name of it."""
        return lock_key(self._key, name) if self.keyed else self._key

    def reserve(
        self, limits: Limits, ask: Ask, *others: tuple[str, int, int]
    ) -> Program[list[Any]]:
        """See ``sql/reserve.sql``, and for others after it ``sql/reserve_several.sql``.

        Args:
            limits: what limits them.
            ask: what the first one asks for.
            others: name, weight and token of the others, who want the same.

        Raises:
            Busy: the lock could not be had within ``ask.limit`` ms.
        """
        seconds = seconds_of(ask.limit)
        if self._layout is None:
            yield from self.layout(seconds)
        if self.in_doubt:
            yield from self.make_good()
        begun = time.monotonic()
        since = int(begun * 1000 + self.session.behind) if ask.now is None else ask.now
        expires: int | None = None

        def text(attempt: Attempt) -> str:
            nonlocal expires
            tried = time.monotonic()
            waited = int((tried - begun) * 1000)  # for a connection, or by earlier tries
            expires = self.session.server_ms(min(attempt.deadline, tried + _LEASE_SECONDS))
            return self.reserve_text(attempt, limits, ask, others, waited, expires, since)

        def orphaned() -> None:
            until = _NEVER if expires is None or ask.now is not None else expires
            for name, weight, token in (ask[:3], *others):
                self.leave_in_doubt(
                    UnitsInDoubt(name, weight, token, since, until, expires or NONE)
                )

        try:
            if begun >= self.lookback.due:
                seconds = yield from self.note_lookback(seconds)
            (answer,) = yield from self._call(text, seconds, orphaned)
        except self.busy:
            if seconds is None:
                raise
            raise Busy from None
        return answer  # type: ignore[no-any-return]

    def reserve_several(
        self, limits: Limits, ask: Ask, *others: tuple[str, int, int]
    ) -> Program[list[list[Any]]]:
        """`reserve` with an answer to each; to the first alone where there is no function."""
        layout = yield from self.layout(seconds_of(ask.limit))
        if not layout.functions:
            others = ()
        answer = yield from self.reserve(limits, ask, *others)
        return [answer[k : k + _ANSWER] for k in range(0, len(answer), _ANSWER)]

    def leave_in_doubt(self, units: UnitsInDoubt) -> None:
        """Have it taken out later, if it is there."""
        if self._layout is None or self._layout.has_columns:
            self.in_doubt.extend([units])

    def make_good(self) -> Program[None]:
        """Take out what may have been stored for callers who have been told otherwise."""
        now = self.session.server_ms(time.monotonic()) or NONE
        ripe = self.in_doubt.take(lambda _, units: units.expires < now)
        if not ripe:
            return
        left = ripe
        try:
            units = yield from self.cancel(ripe)
            left = [doubt for doubt, count in zip(ripe, units) if count < 0]
        except self._away:
            pass  # whoever asks the server next is told
        except self._errors:
            left = []  # it may not be done; the units expire with their window
        finally:
            self.in_doubt.extend(left)

    def reserve_text(
        self,
        attempt: Attempt,
        limits: Limits,
        ask: Ask,
        others: Sequence[tuple[str, int, int]] = (),
        waited: int = 0,
        expires: int | None = None,
        since: int = NONE,
    ) -> str:
        """The statement of `reserve`.

        Args:
            attempt: for whom.
            limits: what limits them.
            ask: what is asked for.
            others: as for `reserve`.
            waited: ms of the caller's time that are over.
            expires: the server's ms after which nobody waits for an answer.
            since: the server's ms before which no try was made.
        """
        name, weight, token, now, clock, max_wait, limit, buffer, store, look, not_before = ask
        again = attempt.again
        unusual = again or now is not None or clock is not None or not_before is not None
        max_wait = max_wait if now is not None else max(0, max_wait - waited)
        limit = attempt.left_ms() if seconds_of(limit) is None else max(1, limit - waited)
        terms = (
            f"'{{{self.is_durable:d},{unusual:d},{_number(now)},{_number(clock)},{max_wait},"
            f"{_number(buffer)},{store:d},{look:d},{again:d},{limit},"
            f"{_NEVER if expires is None else expires},{limits.fixed:d},{since},"
            f"{_number(not_before)},{self._swept}}}'"
        )
        lock = self.lock(name)
        if others:
            names, weights, tokens = zip(ask[:3], *others)
            several = lock, texts(names), integers(weights), integers(tokens)
            return self.call("reserve_several") % (*several, terms, limits.rates)
        one = lock, literal(name), int(weight), token
        return self.call("reserve") % (*one, terms, limits.rates)

    def confirm(
        self,
        limits: Limits,
        units: Sequence[tuple[str, int, int]],
        *,
        now: int | None,
        max_wait: int,
    ) -> Program[list[list[Any]]]:
        """See ``sql/confirm.sql``; for several reservations of one name, in one transaction.

        Each of them is a name, a weight and a token.
        """
        yield from self.layout()

        def text(attempt: Attempt) -> str:
            terms = (
                f"'{{{self.is_durable:d},{_number(now)},{max_wait},{limits.fixed:d},"
                f"{attempt.left_ms()}}}'"
            )
            return "; ".join(
                self.call("confirm")
                % (self.lock(name), literal(name), int(weight), token, terms, limits.rates)
                for name, weight, token in units
            )

        # It is at the end of its time that a waiter wakes.
        seconds = seconds_of(max(max_wait, LEAST_MS) if max_wait < _LONGEST_LOCK_MS else max_wait)
        return (yield from self._call(text, seconds))

    def cancel(self, doubts: Sequence[UnitsInDoubt]) -> Program[list[int]]:
        """See ``sql/cancel.sql``. Returns units; -2 where they may still come."""
        layout = yield from self.layout()
        if not layout.has_columns:
            units = []
            for name, weight, _, since, *_ in doubts:
                units.append((yield from self._cancel_rows(name, weight, since)))
            return units

        def text(attempt: Attempt) -> Iterable[str]:
            left = attempt.left_ms()
            for name, _, token, since, until, expires, kept in doubts:
                terms = f"'{{{self.is_durable:d},{expires},{since},{until},{left}}}'"
                units = self.lock(name), literal(name), kept, token
                yield self.call("cancel") % (*units, terms, "'{}'")

        def one_by_one(attempt: Attempt) -> Program[list[int]]:
            # Each in a transaction of its own, so that no lock is held while another is awaited.
            begin = "BEGIN ISOLATION LEVEL READ COMMITTED; "
            rows = yield from attempt.fetch(
                "".join(f"{begin}{statement}; COMMIT; " for statement in text(attempt))
            )
            return [int(numbers(answer[0][0])[0]) for answer in rows]

        cancelled: list[int] = yield from self.session.transact(one_by_one, GIVING_SECONDS)
        return cancelled

    def _call(
        self, text: object, seconds: float | None, orphaned: object = None
    ) -> Program[list[Any]]:
        """What statements of ours answer: numbers, the last of which is the server's clock."""
        try:
            return (yield from self._exchange(text, seconds, orphaned))
        except self._gone:
            # Somebody has dropped the functions, or has taken the right to call them away.
            self._layout = None
            yield from self.layout(seconds)
            return (yield from self._exchange(text, seconds, orphaned))

    def _exchange(self, text: Any, seconds: float | None, orphaned: Any) -> Program[list[Any]]:
        def once(attempt: Attempt) -> Program[list[Any]]:
            while True:
                statement = text(attempt)
                sent = time.monotonic()
                begins = self._begins or not (self._layout and self._layout.functions)
                if begins:
                    statement = f"BEGIN ISOLATION LEVEL READ COMMITTED; {statement}; COMMIT"
                rows = yield from attempt.fetch(statement)
                answers = [numbers(answer[0][0]) for answer in rows]
                answer = answers[-1]
                if answer[0] == -1 and not begins:
                    # The session's isolation level does not see what a lock waits for.
                    self._begins = True
                    continue
                self.session.learn(sent, answer[-1])
                if answer[0] != _EXPIRED or orphaned is None:
                    return answers
                if time.monotonic() >= attempt.deadline:
                    raise silence()

        answers: list[object] = yield from self.session.transact(once, seconds, orphaned)
        return answers

    def call(self, step: str) -> str:
        """SQL that takes a step, with a ``%s`` for each parameter."""
        layout: Any = self._layout
        return layout.calls[step]  # type: ignore[no-any-return]

    def note_sweep(self, swept: int | None, now: int) -> None:
        """All that was before ``swept`` is deleted by now, unless the clock has stepped back."""
        if swept is not None:
            self._swept = swept
        elif now < self._swept:
            self._swept = NONE


def seconds_of(max_wait: int) -> float | None:
    """So many ms as a time limit; None for those who do not wait, or beyond measure."""
    return max_wait / 1000 if 0 < max_wait <= _LONGEST_LOCK_MS else None


def _number(value: int | None) -> int:
    return NONE if value is None else int(value)
