"""The steps that a bucket takes in Postgres, each one round trip."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter.buckets.postgres.exchange import driver, silence
from pyrate_limiter.buckets.postgres.fair_lock import FairLock
from pyrate_limiter.buckets.postgres.literals import (
    NEVER,
    NONE,
    integers,
    literal,
    lock_key,
    numbers,
    texts,
)
from pyrate_limiter.buckets.postgres.rows import (
    EXPIRED,
    STALE,
    Answer,
    Cancelled,
    CancelRequest,
    Confirmed,
    ConfirmRequest,
    Try,
    Units,
    as_array,
    reserve_array,
)
from pyrate_limiter.buckets.postgres.session import whole
from pyrate_limiter.buckets.postgres.table import Table
from pyrate_limiter.buckets.remote.in_doubt import InDoubt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.literals import Limits
    from pyrate_limiter.buckets.postgres.rows import Ask
    from pyrate_limiter.buckets.postgres.schema import Layout
    from pyrate_limiter.buckets.postgres.session import Attempt, Session

_LONGEST_LOCK_MS = (1 << 31) - 1
LEAST_MS = 500  # for a step at the end of a caller's time
REFUND_SECONDS = 1.0  # for what is given back
_LOCKS = 64  # names that share one wait for each other
_LEASE_SECONDS = 2.0  # after which a statement that is still on its way stores nothing


class Busy(Exception):
    """The lock could not be had within the caller's time."""


class UnitsInDoubt(NamedTuple):
    """Units that may be stored although nobody wants them, and how they are found."""

    units: Units
    told: CancelRequest


class Steps(Table):
    """What a bucket asks of its table; ``durable``: a commit waits for the disk."""

    def __init__(
        self, session: Session, name: str, limits: Limits, *, keyed: bool, durable: bool
    ) -> None:
        super().__init__(session, name, limits, keyed=keyed)
        self.is_durable = durable
        self.in_doubt: InDoubt[UnitsInDoubt] = InDoubt()
        self._fair_locks = [FairLock() for _ in range(_LOCKS if keyed else 1)]
        self._begins = False
        self._swept = NONE  # what is before that moment has been deleted
        psycopg = driver()
        self.errors: tuple[type[Exception], ...] = (psycopg.Error, Busy)
        self._locked = psycopg.errors.LockNotAvailable
        self._gone = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)

    def fair_lock(self, name: str) -> FairLock:
        """Whose turn it is in this process, for a policy that runs in it."""
        return self._fair_locks[hash(name) % len(self._fair_locks)]

    def lock(self, name: str) -> str:
        """The advisory lock of the bucket, or of one name of it."""
        return lock_key(self._key, name) if self.keyed else self._key

    def is_busy(self, error: BaseException, limit: int) -> bool:
        """Whether it says that others were at work for all of the ms that a caller has."""
        return isinstance(error, (Busy, self._locked)) and seconds_of(limit) is not None

    def reserve(self, ask: Ask, units: Sequence[Units]) -> Program[list[Answer]]:
        """See ``sql/reserve.sql``, and for several ``sql/reserve_several.sql``.

        All want the same. Where there is no function, the first alone is answered.
        """
        seconds = seconds_of(ask.limit)
        if self._layout is None:
            yield from self.layout(seconds)
        if self.in_doubt:
            yield from self.make_good()
        begun = time.monotonic()
        since = int(begun * 1000 + self.session.behind) if ask.now is None else ask.now
        expires: int | None = None

        def text(attempt: Attempt, layout: Layout) -> str:
            nonlocal expires
            tried = time.monotonic()
            waited = int((tried - begun) * 1000)  # for a connection, or by earlier tries
            expires = self.session.server_ms(min(attempt.deadline, tried + _LEASE_SECONDS))
            until = NEVER if expires is None else expires
            return self.reserve_text(attempt, layout, ask, units, (waited, since, until))

        def orphaned() -> None:
            until = NEVER if expires is None or ask.now is not None else expires
            for one in units:
                told = CancelRequest(since, until, expires or NONE)
                self.leave_in_doubt(UnitsInDoubt(one, told))

        if begun >= self.lookback.due:
            seconds = yield from self.note_lookback(seconds)
        (row,) = yield from self._call(text, seconds, orphaned)
        width = len(Answer._fields)
        answers = [Answer._make(row[k : k + width]) for k in range(0, len(row), width)]
        for answer in answers:
            if answer.swept is not None:
                self._swept = answer.swept
            elif answer.now < self._swept:  # the clock has stepped back
                self._swept = NONE
        return answers

    def leave_in_doubt(self, units: UnitsInDoubt) -> None:
        """Have it taken out later, if it is there."""
        if self._layout is None or self._layout.has_columns:
            self.in_doubt.extend([units])

    def make_good(self) -> Program[None]:
        """Take out what may have been stored for callers who have been told otherwise."""
        now = self.session.server_ms(time.monotonic()) or NONE
        ripe = self.in_doubt.take(lambda _, units: units.told.expires < now)
        if not ripe:
            return
        left = ripe
        try:
            units = yield from self.cancel(ripe)
            left = [stored for stored, count in zip(ripe, units) if count < 0]
        except self.session.lost:
            pass  # whoever asks the server next is told
        except self.errors:
            left = []  # it may not be done; the units expire with their window
        finally:
            self.in_doubt.extend(left)

    def reserve_text(
        self,
        attempt: Attempt,
        layout: Layout,
        ask: Ask,
        units: Sequence[Units],
        times: tuple[int, int, int] = (0, NONE, NEVER),
    ) -> str:
        """The statement of `reserve`.

        Of the times, the first is how many ms ago it was called; for the others see `Try`.
        """
        now, limit, again = ask.now, ask.limit, attempt.again
        waited, since, expires = times
        is_plain = now is None and ask.clock is None and ask.not_before is None and ask.at is None
        told = reserve_array(
            ask,
            Try(
                max_wait=ask.max_wait if now is not None else max(0, ask.max_wait - waited),
                limit=attempt.left_ms() if seconds_of(limit) is None else max(1, limit - waited),
                unusual=again or not is_plain,
                again=again,
                since=since,
                expires=expires,
                swept=self._swept,
                fixed=self.limits.fixed,
                durable=self.is_durable,
            ),
        )
        name, weight, token = units[0]
        lock = self.lock(name)
        if len(units) == 1 or not layout.functions:
            one = lock, literal(name), int(weight), token
            return layout.calls["reserve"] % (*one, told, self.limits.sql)
        names, weights, tokens = zip(*units)
        several = lock, texts(names), integers(weights), integers(tokens)
        return layout.calls["reserve_several"] % (*several, told, self.limits.sql)

    def confirm(self, ask: ConfirmRequest, units: Sequence[Units]) -> Program[list[Confirmed]]:
        """See ``sql/confirm.sql``; for several reservations of one name, in one transaction."""
        # It is at the end of its time that a waiter wakes.
        seconds = seconds_of(max(ask.max_wait, LEAST_MS))

        def text(attempt: Attempt, layout: Layout) -> str:
            limit, limits = attempt.left_ms(), self.limits
            told = as_array(ask._replace(limit=limit, fixed=limits.fixed, durable=self.is_durable))
            return "; ".join(
                layout.calls["confirm"]
                % (self.lock(name), literal(name), int(weight), token, told, limits.sql)
                for name, weight, token in units
            )

        return [Confirmed._make(row) for row in (yield from self._call(text, seconds))]

    def cancel(self, doubts: Sequence[UnitsInDoubt]) -> Program[list[int]]:
        """See ``sql/cancel.sql``. Returns units, or a code below 0 where they may still come."""
        layout = yield from self.layout()
        if not layout.has_columns:
            units = []
            for one, told in doubts:
                units.append((yield from self._cancel_rows(one.name, one.weight, told.since)))
            return units

        def one_by_one(attempt: Attempt) -> Program[list[int]]:
            # Each in a transaction of its own, so that no lock is held while another is awaited.
            left, statements = attempt.left_ms(), []
            for (name, weight, token), told in doubts:
                options = as_array(told._replace(limit=left, durable=self.is_durable))
                one = self.lock(name), literal(name), int(weight), token
                statements.append(whole(layout.calls["cancel"] % (*one, options, "'{}'")))
            rows = yield from attempt.fetch("; ".join(statements))
            return [Cancelled._make(numbers(row[0][0])).units for row in rows]

        return (yield from self.session.transact(one_by_one, REFUND_SECONDS))

    def _call(
        self,
        text: Callable[[Attempt, Layout], str],
        seconds: float | None,
        orphaned: Callable[[], object] | None = None,
    ) -> Program[list[list[int | None]]]:
        """What statements of ours answer: rows, the last number of which is the server's clock."""

        def once(attempt: Attempt) -> Program[list[list[int | None]]]:
            while True:
                statement = text(attempt, layout)
                sent = time.monotonic()
                begins = self._begins or not layout.functions
                rows = yield from attempt.fetch(whole(statement) if begins else statement)
                answers = [numbers(answer[0][0]) for answer in rows]
                code, *_, read = answers[-1]
                if code == STALE and not begins:
                    # The session's isolation level does not see what a lock waits for.
                    self._begins = True
                    continue
                self.session.learn(sent, read or 0)
                if code != EXPIRED:
                    return answers
                if time.monotonic() >= attempt.deadline:
                    raise silence()

        layout = self._layout or (yield from self.layout(seconds))
        try:
            return (yield from self.session.transact(once, seconds, orphaned))
        except self._gone:
            # Somebody has dropped the functions, or has taken the right to call them away.
            self._layout = None
            layout = yield from self.layout(seconds)
            return (yield from self.session.transact(once, seconds, orphaned))


def seconds_of(max_wait: int) -> float | None:
    """So many ms as a time limit; None for those who do not wait, or beyond measure."""
    return max_wait / 1000 if 0 < max_wait <= _LONGEST_LOCK_MS else None
