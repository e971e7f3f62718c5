"""One exchange with the server, which ends by a deadline: a generator, and a waiter of each kind.

It stands on ``psycopg.Connection.pgconn``, which psycopg documents for what its cursors cannot do,
and on ``psycopg.errors.error_from_result``, by which it makes its own errors. A cursor waits for as
long as the server likes: only a thread of its own would leave a server that hangs in time, and so
an acquisition takes 29 % longer (323 us instead of 250; 14 % without the thread, and without the
round trip in which a cursor begins a transaction).
"""

from __future__ import annotations

import math
import select
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING

from pyrate_limiter._core.driver import BlockingEffect
from pyrate_limiter._core.worker_threads import in_worker
from pyrate_limiter.errors import MissingDriver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import ModuleType

    from psycopg import Error
    from psycopg.pq.abc import PGcancelConn, PGconn, PGresult

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.protocols import Connection, Rows

_TUPLES_OK = 2  # of libpq's ExecStatusType
_FATAL_ERROR = 7
_SHUTDOWN = "57P0"  # SQLSTATEs of a session or a server that ends
_ACTIVE = 1  # of libpq's PGTransactionStatusType
_READING, _WRITING = 1, 2  # of libpq's PostgresPollingStatusType
_CANCEL_SECONDS = 1.0
_encodings: dict[bytes | None, str] = {}
_refunding = threading.Semaphore(8)  # a server that hangs is not sent more than so many requests


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


class Ready(BlockingEffect[bool]):
    """Wait until a socket can be read, or written; answered by whether it can in time."""

    __slots__ = ("deadline", "socket", "writing")

    def __init__(self, socket: int, deadline: float, *, writing: bool = False) -> None:
        self.socket: int = socket
        self.deadline: float = deadline  # on the clock of time.monotonic
        self.writing: bool = writing

    def block(self) -> bool:
        """Wait in this thread."""
        seconds = max(0.0, self.deadline - time.monotonic())
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self.socket, select.POLLIN | (select.POLLOUT if self.writing else 0))
            return bool(poll.poll(math.ceil(seconds * 1000)))
        sockets = [self.socket]
        return any(select.select(sockets, sockets if self.writing else [], [], seconds))

    async def wait(self) -> bool:
        """Wait in the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(max(0.0, self.deadline - time.monotonic()), resolve, future, False)
        loop.add_reader(self.socket, resolve, future, True)
        if self.writing:
            loop.add_writer(self.socket, resolve, future, True)
        try:
            return await future
        finally:
            timer.cancel()
            loop.remove_reader(self.socket)
            if self.writing:
                loop.remove_writer(self.socket)


def resolve(future: asyncio.Future[bool], value: bool) -> None:
    """Give a future its result, unless it has one."""
    if not future.done():
        future.set_result(value)


def exchange(connection: Connection, text: str, deadline: float) -> Program[list[Rows]]:
    """The rows, as text, of each of the statements that gives rows.

    Args:
        connection: nobody else uses it.
        text: SQL with literals, of several statements if need be.
        deadline: on the clock of ``time.monotonic``. Where it is missed, and where this is ended
            before the answer is there, the connection is closed: it is of no use to anybody.

    Raises:
        psycopg.Error: what the server says, or that it did not answer.
    """
    pgconn, encoding = connection.pgconn, _encoding(connection)
    found: list[Rows] = []
    failed: PGresult | None = None
    try:
        pgconn.send_query(text.encode(encoding))
        writing = bool(pgconn.flush())
        while True:
            if writing or pgconn.is_busy():
                _check((yield Ready(pgconn.socket, deadline, writing=writing)))
                pgconn.consume_input()
                writing = writing and bool(pgconn.flush())
                continue
            result = pgconn.get_result()
            if result is None:
                break
            if result.status == _TUPLES_OK:
                found.append(_rows(result, encoding))
            elif result.status == _FATAL_ERROR:
                failed = result
    except BaseException:
        _close_unless_idle(pgconn)
        if failed is None:  # else it was a last word, and says more
            raise
    if failed is not None:
        error: Error = driver().errors.error_from_result(failed, encoding=encoding)
        if (error.sqlstate or "").startswith(_SHUTDOWN):
            pgconn.finish()  # it was the session's last word
        raise error
    return found


def _encoding(connection: Connection) -> str:
    """Python's name of the encoding that the server and we speak."""
    there = connection.pgconn.parameter_status(b"client_encoding")
    found = _encodings.get(there)
    if found is None:  # it may change with each statement, but has a few values only
        found = connection.info.encoding
        # A database without an encoding takes any bytes; psycopg sends it UTF-8 as well.
        found = _encodings[there] = "utf-8" if found == "ascii" else found
    return found


def _close_unless_idle(pgconn: PGconn) -> None:
    """Close a connection that waits for an answer, and have the server end what it is at."""
    if pgconn.transaction_status == _ACTIVE:
        canceller = _canceller(pgconn)
        pgconn.finish()
        if canceller is None or not _refunding.acquire(blocking=False):
            return
        # It needs a connection of its own, which a server that hangs does not take.
        if not in_worker(lambda: _cancel(canceller)):
            _refunding.release()


def _canceller(pgconn: PGconn) -> PGcancelConn | None:
    """What asks the server to end a connection's work without blocking; from libpq 17 on."""
    try:
        return pgconn.cancel_conn()
    except driver().Error:
        # Then that work ends by its own time limit. What there is before, `get_cancel`, holds up
        # all threads: it waits for the server with the lock of the interpreter.
        return None


def _cancel(canceller: PGcancelConn) -> None:
    deadline = time.monotonic() + _CANCEL_SECONDS
    try:
        canceller.start()
        comes_to_an_end(canceller, canceller.poll, deadline)
    except driver().Error:
        pass  # the server is not there
    finally:
        canceller.finish()
        _refunding.release()


def comes_to_an_end(
    connecting: PGconn | PGcancelConn, poll: Callable[[], int], deadline: float
) -> bool:
    """Block until a connection of libpq is made, or fails; answers whether that is in time.

    Args:
        connecting: what has been started and has a socket.
        poll: gets it on, and says what it waits for.
        deadline: on the clock of ``time.monotonic``.
    """
    while (status := poll()) in {_READING, _WRITING}:
        if not Ready(connecting.socket, deadline, writing=status == _WRITING).block():
            return False
    return True


def _check(in_time: bool) -> None:
    if not in_time:
        raise silence()


def silence() -> Exception:
    """The error of a server that has not answered in time."""
    text = "Postgres did not answer in the time it was given"
    error: Exception = driver().OperationalError(text)
    return error


def _rows(result: PGresult, encoding: str) -> Rows:
    value, width = result.get_value, range(result.nfields)
    return [[_text(value(row, k), encoding) for k in width] for row in range(result.ntuples)]


def _text(value: bytes | None, encoding: str) -> str | None:
    return None if value is None else value.decode(encoding, "replace")
