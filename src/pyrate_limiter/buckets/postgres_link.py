"""One statement on a caller's pool, sync or asyncio: written once, as generators.

A program yields what may have to be awaited and is sent the result. Nothing is kept in the session,
so that a pooler in transaction mode may stand between.
"""

from __future__ import annotations

import time
from importlib import import_module
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.abstracts.awaiting import is_awaitable
from pyrate_limiter.abstracts.programs import drive, drive_async
from pyrate_limiter.errors import MissingDriver, WrongType

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyrate_limiter.abstracts.programs import Program

    T = TypeVar("T")

_NUL = "\N{SYMBOL FOR NULL}"
FIRST_NAP_SECONDS = 0.002
LONGEST_NAP_SECONDS = 0.1
_TUPLES_OK = 2  # of libpq's ExecStatusType; and those of a statement without rows
_FINE = (0, 1)
RETRY_SECONDS = 2.0
"""How long a call without a timeout of its own tries again after a lost connection."""


def driver() -> Any:
    """The psycopg module.

    Raises:
        MissingDriver: it is not installed.
    """
    try:
        return import_module("psycopg")
    except ImportError as error:
        raise MissingDriver("psycopg", "postgres") from error


def literal(text: str) -> str:
    """A string in SQL, whatever characters it has. See `stored` for those that have no place."""
    text = stored(text).replace("\\", "\\\\").replace("'", "''")
    return f"E'{text}'".replace("$", "\\x24")  # a dollar could end what it is quoted in


def stored(text: str) -> str:
    """The text with a symbol for NUL, and with escapes for halves of surrogate pairs."""
    text = str(text).replace("\0", _NUL)
    return text.encode("utf-8", "backslashreplace").decode()


def restored(text: str) -> str:
    """The text that was `stored`."""
    return text.replace(_NUL, "\0")


def numbers(array: str) -> list[Any]:
    """The numbers of an array in SQL's own writing."""
    return [None if word == "NULL" else int(word) for word in array[1:-1].split(",")]


class Nap:
    """A step of a program: sleep."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds


class Link:
    """The way to the server over a pool that belongs to the caller.

    Raises:
        MissingDriver: psycopg is not installed.
        WrongType: it is no pool.
    """

    def __init__(self, pool: Any) -> None:
        psycopg = driver()
        if not callable(getattr(pool, "getconn", None)):
            raise WrongType("pool", pool, "a psycopg_pool.ConnectionPool or AsyncConnectionPool")
        self.pool = pool
        self.is_async: bool = iscoroutinefunction(pool.getconn)
        self._execute = import_module("psycopg.generators").execute
        self._error_from_result = psycopg.errors.error_from_result
        self._error = psycopg.Error
        self._conflicts = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
        self._lost = (psycopg.OperationalError, psycopg.InterfaceError)

    def run(self, program: Program[T]) -> Any:
        """The program's result, or an awaitable of it."""
        # The async one goes on to its end, whatever happens to the caller meanwhile.
        return drive_async(program, _step_async) if self.is_async else drive(program, _step)

    def query(self, text: Any, seconds: float | None = None) -> Program[Any]:
        """The first row of the last statement that has rows, in a transaction of its own.

        A lost connection, a serialization failure and a deadlock are tried again.

        Args:
            text: SQL with literals, of several statements if need be; or a function that gives it,
                called with "is this another try?".
            seconds: how long the caller is willing to wait; None is as long as the pool says.
        """

        def once(connection: Any, again: bool) -> Program[Any]:
            return (yield from self.fetch(connection, text(again) if callable(text) else text))

        return (yield from self.transact(once, seconds))

    def transact(self, work: Any, seconds: float | None = None) -> Program[Any]:
        """Run ``work(connection, again)``, a program, on a connection of the pool."""
        started, nap, failure = time.monotonic(), FIRST_NAP_SECONDS, None
        deadline = None if seconds is None else started + seconds
        while True:
            try:
                connection = yield self._connect(deadline)
            except self._lost:
                if failure is None:
                    raise
                raise failure from None
            try:
                return (yield from self._with(connection, work, failure is not None))
            except self._error as error:
                lost = connection.closed and isinstance(error, self._lost)
                if not lost and not isinstance(error, self._conflicts):
                    raise
                failure = error
                if deadline is None:
                    deadline = started + RETRY_SECONDS
                if time.monotonic() + nap >= deadline:
                    raise
            if not lost:
                yield Nap(nap)
                nap = min(2 * nap, LONGEST_NAP_SECONDS)

    def _connect(self, deadline: float | None) -> Any:
        if deadline is None:
            return self.pool.getconn()
        left = max(0.001, deadline - time.monotonic())
        return self.pool.getconn(timeout=min(left, self.pool.timeout))

    def _with(self, connection: Any, work: Any, again: bool) -> Program[Any]:
        try:
            return (yield from work(connection, again))
        finally:
            try:
                if not connection.closed and connection.info.transaction_status:
                    yield connection.rollback()
            finally:
                yield self.pool.putconn(connection)

    def fetch(self, connection: Any, text: str, *, rows: bool = False) -> Program[Any]:
        """The first row, or all rows, of the last of the statements that has any, as text.

        It goes below psycopg's cursors, which would begin a transaction in a round trip of its own,
        and cost as much time as the server takes.
        """
        sent = _round_trip(self._execute, connection.pgconn, text.encode(connection.info.encoding))
        found = None
        for result in (yield connection.wait(sent)):
            status = result.status
            if status == _TUPLES_OK:
                places = range(result.ntuples if rows else min(1, result.ntuples))
                width = range(result.nfields)
                found = [
                    [_text(result.get_value(place, k), connection) for k in width]
                    for place in places
                ]
            elif status not in _FINE:
                raise self._error_from_result(result, encoding=connection.info.encoding)
        if rows or found is None:
            return found
        return found[0] if found else None


def _round_trip(execute: Any, pgconn: Any, text: bytes) -> Generator[Any, Any, Any]:
    pgconn.send_query(text)
    return (yield from execute(pgconn))


def _text(value: bytes | None, connection: Any) -> str | None:
    return None if value is None else value.decode(connection.info.encoding)


def _step(step: Any) -> Any:
    if isinstance(step, Nap):
        time.sleep(step.seconds)
        return None
    return step


async def _step_async(step: Any) -> Any:
    if isinstance(step, Nap):
        import asyncio

        await asyncio.sleep(step.seconds)
        return None
    return await step if is_awaitable(step) else step


async def uncancelled(work: Any, undo: Any = None) -> Any:
    """Await ``work`` to its end; where the caller is cancelled meanwhile, ``undo(result)`` too."""
    import asyncio

    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if undo is not None and not task.cancelled() and task.exception() is None:
            await undo(task.result())
        raise
