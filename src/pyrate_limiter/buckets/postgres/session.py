"""One statement on a caller's pool, sync or asyncio: written once, as generators.

A program yields what may have to be awaited and is sent the result. Nothing is kept in the session,
so that a pooler in transaction mode may stand between.
"""

from __future__ import annotations

import math
import sys
import time
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.driver import Sleep, run_async, run_blocking
from pyrate_limiter._core.validation import check_seconds
from pyrate_limiter.buckets.postgres.exchange import driver, exchange, silence
from pyrate_limiter.buckets.postgres.fair_lock import Acquire
from pyrate_limiter.buckets.postgres.ping import Ping, mark
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.fair_lock import FairLock
    from pyrate_limiter.buckets.postgres.protocols import Connection, Pool, Row, Rows

    T = TypeVar("T")
    Errors: TypeAlias = tuple[type[Exception], ...]

FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.1
RETRY_SECONDS = 2.0
"""How long a call without a timeout of its own tries again after a lost connection."""
GRACE_SECONDS = 0.25
"""How long the answer may take on its way after the caller's time is over."""
CANCELLED_SECONDS = 0.5
"""How long a cancelled caller waits for the end of what it has begun."""


def is_of_pool(error: BaseException, kind: str) -> bool:
    """Whether it is that error of psycopg_pool, which nobody has imported if it is no such pool."""
    package = sys.modules.get("psycopg_pool")
    return package is not None and isinstance(error, getattr(package, kind))


class Attempt:
    """One try to do something on a connection of the pool."""

    __slots__ = ("again", "connection", "deadline")

    def __init__(self, connection: Connection, deadline: float, *, again: bool) -> None:
        self.connection: Connection = connection
        self.deadline: float = deadline  # for the answer, on the clock of time.monotonic
        self.again: bool = again  # an earlier try may have been carried out, unanswered

    def left_ms(self) -> int:
        """For how long the server may work on it: its word has to be here by the deadline."""
        return max(1, int((self.deadline - time.monotonic()) * 900))

    def bounds(self, *, own_path: bool = True, durable: bool = True) -> str:
        """SQL that has a transaction end with its caller, whatever the role's settings are.

        Nothing of anybody else's is looked up by its name alone, unless ``own_path`` is false.
        Its commit does not wait for the disk, unless it has to be ``durable``.
        """
        left = self.left_ms()
        path = "SET LOCAL search_path = pg_catalog, pg_temp; " if own_path else ""
        commit = "" if durable else "SET LOCAL synchronous_commit = off; "
        limits = f"SET LOCAL lock_timeout = {left}; SET LOCAL statement_timeout = {left}; "
        return f"{path}{limits}{commit}"

    def fetch(self, text: str) -> Program[list[Rows]]:
        """The rows of each of the statements that gives rows."""
        return exchange(self.connection, text, self.deadline)


class Session:
    """The way to the server over a pool that belongs to the caller.

    Args:
        pool: see `PostgresBucket`.
        call_timeout: see `PostgresBucket`.

    Raises:
        MissingDriver: psycopg is not installed.
        WrongType: it is no pool, or no number of seconds.
    """

    longest_wait: float | None = None
    """Seconds without a connection after which it is asked whether the server is there."""

    ahead: float | None = None
    """The server's clock less this process's ``time.monotonic``, in ms; not too small."""

    behind: float = 0.0
    """The same, not too large."""

    heard: float = 0.0
    """When the server's clock was read last, on that of ``time.monotonic``."""

    def __init__(self, pool: Pool, call_timeout: float | None = None) -> None:
        psycopg = driver()
        if not callable(getattr(pool, "getconn", None)):
            raise WrongType("pool", pool, "a psycopg_pool.ConnectionPool or AsyncConnectionPool")
        self.pool = pool
        self.call_timeout: float | None = check_seconds("call_timeout", call_timeout)
        self.is_async: bool = iscoroutinefunction(pool.getconn)
        errors = psycopg.errors
        self.conflicts: Errors = (errors.SerializationFailure, errors.DeadlockDetected)
        self.lost: Errors = (psycopg.OperationalError, psycopg.InterfaceError)
        self.timeouts: Errors = (errors.LockNotAvailable, errors.QueryCanceled)

    def run(
        self, program: Program[T], undo: Callable[[T], Awaitable[object]] | None = None
    ) -> T | Awaitable[T]:
        """The program's result; over an asyncio pool an awaitable of it, see `uncancelled`."""
        return uncancelled(program, undo) if self.is_async else run_blocking(program)

    def learn(self, sent: float, server_ms: int) -> None:
        """Note that the server's clock read so many ms after ``sent``."""
        self.heard = time.monotonic()
        self.ahead = server_ms - sent * 1000
        self.behind = server_ms - self.heard * 1000

    def server_ms(self, moment: float) -> int | None:
        """What the server's clock reads at a moment of ``time.monotonic``, as far as is known."""
        return None if self.ahead is None else int(moment * 1000 + self.ahead)

    def within(self, seconds: float | None) -> float | None:
        """How long a caller with so much time may take, for whom ``call_timeout`` holds as well."""
        limit = self.call_timeout
        return limit if seconds is None or (limit is not None and limit < seconds) else seconds

    def in_turn(
        self,
        lock: FairLock,
        seconds: float | None,
        work: Callable[[float | None], Program[T]],
        busy: Exception | None = None,
    ) -> Program[T]:
        """Run ``work(seconds left)``, a program, under a fair lock.

        Args:
            lock: the lock.
            seconds: how long the caller is willing to wait.
            work: what to run.
            busy: the error where the server is there, and those before him take their time.
        """
        began, seconds = time.monotonic(), self.within(seconds)
        if not (yield Acquire(lock, seconds)):
            away = self.heard < began and self.longest_wait is not None
            if away and not (yield Ping(self.pool)):
                raise silence()
            raise busy or at_work()
        try:
            left = None if seconds is None else max(0.001, began + seconds - time.monotonic())
            return (yield from work(left))
        finally:
            lock.release()

    def query(
        self, text: str, seconds: float | None = None, *, own_path: bool = True
    ) -> Program[Row]:
        """The first row of the last statement that has rows, in a transaction of its own.

        A lost connection, a serialization failure and a deadlock are tried again, and so is what
        the server gives up too soon: its clock has stepped ahead.

        Args:
            text: SQL with literals, of several statements if need be.
            seconds: how long the caller is willing to wait; None is as long as the pool says.
            own_path: whether names are looked up where only the server's own are.
        """

        def work(attempt: Attempt) -> Program[Row]:
            return first(attempt, f"{attempt.bounds(own_path=own_path)}{text}")

        return (yield from self.transact(work, seconds))

    def transact(
        self,
        work: Callable[[Attempt], Program[T]],
        seconds: float | None = None,
        orphaned: Callable[[], object] | None = None,
    ) -> Program[T]:
        """Run ``work(attempt)``, a program, until it is answered.

        Args:
            work: one transaction at the most.
            seconds: how long the caller is willing to wait.
            orphaned: called where this ends without an answer, although a try may have been
                carried out.
        """
        retries, limit = _Retries(self.lost, self.conflicts), self.within(seconds)
        give_up = answer_by = None
        if limit is not None:
            give_up = time.monotonic() + limit
            # The server has its own eye on the caller's time, and its word may be under way.
            answer_by = give_up - limit + (self.within(limit + GRACE_SECONDS) or limit)
        try:
            while True:
                try:
                    connection = yield from self._connect(retries.give_up or give_up)
                except self.lost:
                    if retries.failure is None:
                        raise
                    raise retries.failure from None
                tried = time.monotonic()
                deadline = answer_by or tried + self.pool.timeout
                attempt = Attempt(connection, deadline, again=retries.unanswered)
                try:
                    return (yield from self._with(attempt, work))
                except BaseException as error:
                    time_limit = min(tried + 0.9 * (deadline - tried), give_up or math.inf)
                    early = isinstance(error, self.timeouts) and time.monotonic() < time_limit
                    pause = retries.after(error, give_up, lost=connection.closed, early=early)
                    if pause is None:
                        raise
                if pause:
                    yield Sleep(pause)
        except BaseException:
            if retries.unanswered and orphaned is not None:
                orphaned()
            raise

    def _connect(self, deadline: float | None) -> Program[Connection]:
        """A connection of the pool; where none comes soon, as long as the server is there."""
        give_up = min(time.monotonic() + self.pool.timeout, deadline or math.inf)
        while True:
            left = max(0.001, give_up - time.monotonic())
            try:
                found = self.pool.getconn(timeout=min(left, self.longest_wait or left))
                connection: Connection = (yield found) if self.is_async else found
            except self.lost as error:
                if self.longest_wait is None or not is_of_pool(error, "PoolTimeout"):
                    raise
                if not (yield Ping(self.pool)):
                    raise
                if time.monotonic() >= give_up:
                    mark(error)
                    raise
            else:
                return connection

    def _with(self, attempt: Attempt, work: Callable[[Attempt], Program[T]]) -> Program[T]:
        connection = attempt.connection
        try:
            return (yield from work(attempt))
        finally:
            try:
                if not connection.closed and connection.info.transaction_status:
                    yield from attempt.fetch("ROLLBACK")
            finally:
                returned = self.pool.putconn(connection)
                if self.is_async:
                    yield returned


class _Retries:
    """Whether to try again, and how soon."""

    give_up: float | None = None
    failure: BaseException | None = None
    unanswered: bool = False
    _pause = FIRST_PAUSE_SECONDS

    def __init__(self, lost: Errors, conflicts: Errors) -> None:
        self._lost, self._conflicts = lost, conflicts

    def after(
        self, error: BaseException, give_up: float | None, *, lost: bool, early: bool
    ) -> float | None:
        """Seconds to sleep before the next try; None if there is none.

        ``early``: it is the end of a time limit that is not over by this process's clock.
        """
        again, self.unanswered = self.unanswered and lost, self.unanswered or lost
        if not (early or isinstance(error, self._lost if lost else self._conflicts)):
            return None
        self.failure = error
        self.give_up = give_up or self.give_up or time.monotonic() + RETRY_SECONDS
        if time.monotonic() + self._pause >= self.give_up:
            return None
        if lost and not again:  # the pool may have others that still work
            return 0
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return pause


def whole(statements: str) -> str:
    """The statements as a transaction of their own that sees what a lock has waited for."""
    return f"BEGIN ISOLATION LEVEL READ COMMITTED; {statements}; COMMIT"


def at_work() -> Exception:
    """The error of one whose time was over while a server that is there worked for others."""
    error = silence()
    mark(error)
    return error


def first(attempt: Attempt, text: str) -> Program[Row]:
    """The first row of the last statement that has rows; an empty one where there is none."""
    found = yield from attempt.fetch(text)
    return found[-1][0] if found and found[-1] else []


async def uncancelled(program: Program[T], undo: Callable[[T], Awaitable[object]] | None) -> T:
    """Run it to its end; where the caller is cancelled meanwhile, ``undo(result)`` too.

    A cancelled caller is not held for long: a server that does not answer is left.
    """
    import asyncio

    task = asyncio.ensure_future(run_async(program))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=CANCELLED_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if undo is not None and not task.cancelled() and task.exception() is None:
            await undo(task.result())
        raise
