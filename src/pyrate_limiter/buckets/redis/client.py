"""Calls to Redis: a client with its time limits, its outages, and those who share its calls."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.clocks import WallClock
from pyrate_limiter._core.driver import run_async, run_blocking
from pyrate_limiter._core.validation import check_seconds, check_whole
from pyrate_limiter.buckets.redis.batching import ThreadBatcher
from pyrate_limiter.buckets.redis.errors import driver_errors, name_key, too_slow
from pyrate_limiter.buckets.redis.outage import RedisOutage
from pyrate_limiter.buckets.redis.sending import AsyncSender, Sender
from pyrate_limiter.buckets.remote.helpers import run_within
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.redis.batching_async import LoopBatcher
    from pyrate_limiter.buckets.redis.protocols import RedisClient, Reply
    from pyrate_limiter.buckets.redis.request import Answer, Request
    from pyrate_limiter.buckets.remote.fallback import OnError

    T = TypeVar("T")

LAST_MS = 200  # also one whose time is up waits so long to learn what became of its reservation
_ON_ERROR_SECONDS = 1.0  # the `call_timeout` where there is something to go on with
_NO_LIMIT_MS = 1 << 50  # patience without end
_NS = 1_000_000  # nanoseconds in a millisecond


class ServerClock(WallClock):
    """Epoch milliseconds: this machine's, put right by what the server's replies said."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = 0

    def now(self) -> int:
        """The server's time, as far as it is known."""
        return time.time_ns() // _NS + self._offset

    def learn(self, sent_ns: int, server_ms: int) -> None:
        """Note that the server's clock read ``server_ms`` between ``sent_ns`` and now."""
        ahead = server_ms - sent_ns // _NS
        if ahead > 0:
            ahead = max(0, server_ms - time.time_ns() // _NS)
        self._offset = ahead


class Server:
    """A client, and how its calls are made; shared by the buckets of one prefix.

    Args:
        client: a client of ``redis``, sync or asyncio: standalone, Sentinel master or cluster.
        on_error: see `RedisBucket`.
        call_timeout: see `RedisBucket`.
        denial_memory_ms: see `RedisBucket`.
    """

    def __init__(
        self,
        client: RedisClient,
        on_error: OnError = "raise",
        call_timeout: float | None = None,
        denial_memory_ms: int = 0,
    ) -> None:
        execute = getattr(client, "execute_command", None)
        if execute is None:
            raise WrongType("redis", client, "a client of the redis package")
        call_timeout = check_seconds("call_timeout", call_timeout)
        memory_ms = check_whole("denial_memory_ms", denial_memory_ms, least=0, unit="milliseconds")
        driver_errors()  # it says so if the driver is missing
        self.client: RedisClient = client
        self.is_async: bool = _is_async(client, execute)
        self.outage: RedisOutage = RedisOutage(
            on_error, client, is_async=self.is_async, ask=self.ask
        )
        if call_timeout is None and not self.outage.raises:
            call_timeout = _ON_ERROR_SECONDS
        self.call_timeout: float | None = call_timeout
        self.denial_memory: float = memory_ms / 1000  # seconds
        self.clock: ServerClock = ServerClock()
        if self.is_async:
            from pyrate_limiter.buckets.redis.batching_async import LoopBatcher

            self.batcher: ThreadBatcher | LoopBatcher = LoopBatcher(AsyncSender(client))
        else:
            self.batcher = ThreadBatcher(Sender(client))
        # Each call of a script goes this way: it returns the answer, or an awaitable of it.
        self.call: Callable[[Request], Reply] = self.batcher.ask

    def limit(self, max_wait_ms: int = 0) -> float | None:
        """The seconds that a call for a caller of this patience may take; None is no limit."""
        if 0 < max_wait_ms < _NO_LIMIT_MS:
            seconds = max(LAST_MS, max_wait_ms) / 1000
            return seconds if self.call_timeout is None else min(seconds, self.call_timeout)
        return self.call_timeout

    @property
    def is_plain(self) -> bool:
        """Whether a call needs nothing but the client: it answers, and has no time limit."""
        return self.call_timeout is None and (self.outage.raises or not self.outage.away)

    def run(self, program: Program[T]) -> T | Awaitable[T]:
        """Run a program to its end, or return the coroutine that does, for an async client."""
        return run_async(program) if self.is_async else run_blocking(program)

    def ask(self, request: Request) -> Program[Answer]:
        """The answer to a request; an error says which key it was about."""
        try:
            answer: Answer = yield self.call(request)
        except Exception as error:
            name_key(error, request.head.key)
            raise
        return answer

    def command(
        self, method: str, first: str, *words: object, key: str | None = None, **options: object
    ) -> Program[Reply]:
        """The reply to a call of one of the client's methods.

        An error says that it was about ``key``; that is the first argument, where it is left out.
        """

        def call() -> Reply:
            return getattr(self.client, method)(first, *words, **options)

        limit = self.limit()
        try:
            if limit is None:
                return (yield call())
            if self.is_async:
                return (yield _await_within(limit, call()))
            return run_within(limit, call, lambda: too_slow(limit))
        except Exception as error:
            name_key(error, key or first)
            raise


def _is_async(client: RedisClient, execute: object) -> bool:
    from redis import asyncio

    # What traces a client may put a plain function that answers a coroutine in a method's place.
    known = isinstance(client, (asyncio.Redis, asyncio.RedisCluster))
    return known or inspect.iscoroutinefunction(execute)


async def _await_within(limit: float, call: Awaitable[T]) -> T:
    import asyncio

    try:
        return await asyncio.wait_for(call, limit)
    except asyncio.TimeoutError:
        raise too_slow(limit) from None
