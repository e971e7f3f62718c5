"""One statement on a caller's pool, sync or asyncio: written once, as generators.

A program yields what may have to be awaited and is sent the result. Nothing is kept in the session,
so that a pooler in transaction mode may stand between.
"""

from __future__ import annotations

import math
import sys
import time
from importlib import import_module
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.driver import Sleep, run_async, run_blocking
from pyrate_limiter._core.validation import check_seconds
from pyrate_limiter.buckets.postgres.exchange import exchange, silence
from pyrate_limiter.buckets.postgres.ping import Ping, mark
from pyrate_limiter.errors import MissingDriver, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType
    from typing import TypeAlias

    from pyrate_limiter._core.driver import Program
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


def driver() -> ModuleType:
    """The psycopg module.

    Raises:
        MissingDriver: it is not installed, or the library of PostgreSQL that it needs is not.
    """
    try:
        return import_module("psycopg")
    except ModuleNotFoundError as error:
        raise MissingDriver("psycopg", "postgres") from error
    except ImportError as error:
        why = f"cannot be loaded, since psycopg found no libpq ({error})"
        raise MissingDriver("psycopg[binary]", "postgres", why) from error


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

    def bounds(self, *, own_path: bool = True) -> str:
        """SQL that has a transaction end with its caller, whatever the role's settings are.

        Nothing of anybody else's is looked up by its name alone, unless ``own_path`` is false.
        """
        left = self.left_ms()
        path = "SET LOCAL search_path = pg_catalog, pg_temp; " if own_path else ""
        return f"{path}SET LOCAL lock_timeout = {left}; SET LOCAL statement_timeout = {left}; "

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
        self._error = psycopg.Error
        self.conflicts: Errors = (
            psycopg.errors.SerializationFailure,
            psycopg.errors.DeadlockDetected,
        )
        self.lost: Errors = (psycopg.OperationalError, psycopg.InterfaceError)
        self.timeouts: Errors = (
            psycopg.errors.LockNotAvailable,
            psycopg.errors.QueryCanceled,
        )

    def run(self, program: Program[T]) -> Any:  # whether it has to be awaited is the pool's affair
        """The program's result, or an awaitable of it."""
        # The async one goes on to its end, whatever happens to the caller meanwhile.
        return run_async(program) if self.is_async else run_blocking(program)

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

    def late(self, since: float, busy: BaseException | None = None) -> Program[BaseException]:
        """The error of a caller that has waited too long for a fair lock.

        Args:
            since: when he began to wait for it, on the clock of ``time.monotonic``.
            busy: what it is where the server is there, and those before him take their time.
        """
        if self.heard < since and self.longest_wait is not None and not (yield Ping(self.pool)):
            return silence()
        return busy or at_work()

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
        retries = _Retries(self.lost, self.conflicts)
        give_up, answer_by = self._ends(time.monotonic(), seconds)
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

    def _ends(self, started: float, seconds: float | None) -> tuple[float | None, float | None]:
        """When to stop asking the pool for a connection, and when to stop waiting for an answer."""
        limit, answer = self.call_timeout, self.call_timeout
        if seconds is not None and (limit is None or seconds < limit):
            # The server has its own eye on the caller's time, and its word may be under way.
            limit, answer = seconds, seconds + GRACE_SECONDS
            if self.call_timeout is not None:
                answer = min(answer, self.call_timeout)
        return (
            None if limit is None else started + limit,
            None if answer is None else started + answer,
        )

    def _connect(self, deadline: float | None) -> Program[Connection]:
        """A connection of the pool; where none comes soon, as long as the server is there."""
        if deadline is None and self.longest_wait is None:
            connection = self.pool.getconn()
            return (yield connection) if self.is_async else connection  # type: ignore[no-any-return] # as the pool says
        give_up = min(time.monotonic() + self.pool.timeout, deadline or math.inf)
        while True:
            left = max(0.001, give_up - time.monotonic())
            try:
                connection = self.pool.getconn(timeout=min(left, self.longest_wait or left))
                return (yield connection) if self.is_async else connection  # type: ignore[no-any-return] # as the pool says
            except self.lost as error:
                if self.longest_wait is None or not is_of_pool(error, "PoolTimeout"):
                    raise
                if not (yield Ping(self.pool)):
                    raise
                if time.monotonic() >= give_up:
                    mark(error)
                    raise

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


def at_work() -> Exception:
    """The error of one whose time was over while a server that is there worked for others."""
    error = silence()
    mark(error)
    return error


def first(attempt: Attempt, text: str) -> Program[Any]:
    """The first row of the last statement that has rows; None where there is none."""
    found = yield from attempt.fetch(text)
    return found[-1][0] if found and found[-1] else []


async def uncancelled(
    work: Awaitable[T], undo: Callable[[T], Awaitable[object]] | None = None
) -> T:
    """Await ``work`` to its end; where the caller is cancelled meanwhile, ``undo(result)`` too.

    A cancelled caller is not held for long: a server that does not answer is left.
    """
    import asyncio

    task = asyncio.ensure_future(work)
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
