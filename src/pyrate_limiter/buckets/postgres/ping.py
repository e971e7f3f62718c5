"""Whether a server is there, when its pool has no connection to give.

A pool that has no connection to give may be busy, or be told a wrong password: then the server
answers, and waiting for it is waiting.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.driver import BlockingEffect
from pyrate_limiter._core.worker_threads import in_worker
from pyrate_limiter.buckets.postgres.exchange import comes_to_an_end
from pyrate_limiter.buckets.remote.helpers import run_within

if TYPE_CHECKING:
    from pyrate_limiter.buckets.postgres.protocols import Pool

PATIENCE_SECONDS = 0.5
_MARK = "_pyrate_server_is_there"


def mark(error: BaseException) -> None:
    """Note in an error of a pool that the server is there."""
    vars(error)[_MARK] = True


def is_there(error: BaseException) -> bool:
    """Whether that was noted."""
    return _MARK in vars(error)


class Ping(BlockingEffect[bool]):
    """Ask the server that a pool leads to for a sign of life; answers whether it gave one.

    Nobody waits longer than half a second for it.

    Args:
        pool: the pool.
        login: ask whether it is there and lets the pool's user not in, instead.
    """

    __slots__ = ("_pool", "_question")

    def __init__(self, pool: Pool, *, login: bool = False) -> None:
        self._pool = pool
        self._question = _refuses if login else _answers

    def block(self) -> bool:
        """Wait for the answer in this thread."""
        # Whoever looks up the name of a host blocks.
        try:
            return run_within(PATIENCE_SECONDS, lambda: self._question(self._pool), TimeoutError)
        except TimeoutError:
            return False

    async def wait(self) -> bool:
        """Wait for the answer in the event loop."""
        import asyncio

        answer: Future[bool] = Future()
        if not in_worker(lambda: answer.set_result(self._question(self._pool))):
            return False
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            return False


def _answers(pool: Pool) -> bool:
    where = _where(pool)
    if where is None:
        return False
    takes = _takes(where)
    return takes or (takes is False and _is_up(where))


def _refuses(pool: object) -> bool:
    where = _where(pool)
    return where is not None and _takes(where) is False and _is_up(where)


def _takes(where: bytes) -> bool | None:
    """Whether the server takes somebody who logs in; None if it does not say so in time."""
    from psycopg import pq

    deadline = time.monotonic() + PATIENCE_SECONDS
    connection = pq.PGconn.connect_start(where)
    try:
        if connection.status == pq.ConnStatus.BAD:
            return False
        if not comes_to_an_end(connection, connection.connect_poll, deadline):
            return None
        return connection.status == pq.ConnStatus.OK
    finally:
        connection.finish()


def _is_up(where: bytes) -> bool:
    """Whether a server that has just said no is one that lets people in, neither starts nor ends.

    The driver holds up all threads for as long as this takes, so do not ask one that is silent.
    """
    from psycopg import pq

    return pq.PGconn.ping(where) == pq.Ping.OK


def _where(pool: Any) -> bytes | None:  # another kind of pool may not have what is looked for
    """What the connections of a pool are made with, as far as libpq is concerned."""
    from psycopg import conninfo, pq

    try:
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        options = _made(pool.kwargs) or {}
        words = {word: value for word, value in options.items() if word in known}
        words["connect_timeout"] = 2
        return conninfo.make_conninfo(_made(pool.conninfo), **words).encode()
    except Exception:  # noqa: BLE001 - another kind of pool, or one whose maker cannot tell
        return None


def _made(value: Any) -> Any:  # a string or a dict, or what makes one
    """What a pool is given, or makes anew for each connection, as a password that changes."""
    made = value() if callable(value) else value
    if isinstance(made, Coroutine):
        import asyncio

        return asyncio.run(made)  # this thread has no event loop
    return made
