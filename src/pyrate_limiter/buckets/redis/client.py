"""Talking to Redis: scripts, time limits, outages, and many asyncio callers in one call."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.clocks import WallClock
from pyrate_limiter._core.driver import drive, drive_async
from pyrate_limiter._core.validation import check_seconds, check_whole
from pyrate_limiter.buckets.redis.batching import Crews
from pyrate_limiter.buckets.redis.deadline import run_within
from pyrate_limiter.buckets.redis.outage import RedisOutage, is_no_connection, name_key
from pyrate_limiter.buckets.redis.request import Command, Request, numbers_of, words_of
from pyrate_limiter.errors import MissingDriver, WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from pyrate_limiter._core.driver import Program

    T = TypeVar("T")

LAST_MS = 200  # also one whose time is up waits so long to learn what became of its claim
_ON_ERROR_SECONDS = 1.0  # the `call_timeout` where there is something to go on with
NO_CONNECTION_SECONDS = 20  # the longest wait for a free one, as in the driver's blocking pool
_NO_LIMIT_MS = 1 << 50  # patience without end
_NS = 1_000_000  # nanoseconds in a millisecond


class ServerClock(WallClock):
    """Epoch milliseconds: this machine's, put right by what the server's replies said."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = 0

    def now(self) -> int:
        """See `AbstractClock.now`."""
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
        client: Any,
        on_error: Any = "raise",
        call_timeout: float | None = None,
        denial_memory_ms: int = 0,
    ) -> None:
        execute = getattr(client, "execute_command", None)
        if execute is None:
            raise WrongType("redis", client, "a client of the redis package")
        call_timeout = check_seconds("call_timeout", call_timeout)
        memory_ms = check_whole("denial_memory_ms", denial_memory_ms, least=0, unit="milliseconds")
        self.client = client
        self.errors: Any = _driver_errors()
        self.is_async: bool = inspect.iscoroutinefunction(execute)
        self.outage: RedisOutage = RedisOutage(self, on_error)
        if call_timeout is None and not self.outage.raises:
            call_timeout = _ON_ERROR_SECONDS
        self.call_timeout: float | None = call_timeout
        self.denial_memory: float = memory_ms / 1000
        self.clock: ServerClock = ServerClock()
        self.crews: Crews = Crews(self)
        # When the client's pool was last found to have no connection left, and its error.
        self._used_up: tuple[float, Exception] | None = None
        if self.is_async:
            from pyrate_limiter.buckets.redis.batching_async import Lanes

            self.lanes: Lanes = Lanes(self)

    def limit(self, patience_ms: int = 0) -> float | None:
        """The seconds that a call for a caller of this patience may take; None is no limit."""
        if 0 < patience_ms < _NO_LIMIT_MS:
            seconds = max(LAST_MS, patience_ms) / 1000
            return seconds if self.call_timeout is None else min(seconds, self.call_timeout)
        return self.call_timeout

    def is_plain(self, patience_ms: int) -> bool:
        """Whether a call needs nothing but the client: it answers, and has no time limit."""
        unlimited = self.call_timeout is None and not 0 < patience_ms < _NO_LIMIT_MS
        return unlimited and not self.outage.away

    def run(self, program: Program[T]) -> T | Coroutine[Any, Any, T]:
        """Run a program to its end, or return the coroutine that does, for an async client."""
        if self.is_async:
            return drive_async(program, self._ask_async)
        return drive(program, self._ask)

    async def _ask_async(self, step: Any) -> Any:
        try:
            if isinstance(step, Request):
                return await self.lanes.ask(step)
            if isinstance(step, Command):
                return await self.lanes.within(step, self.command(step))
            return await step
        except Exception as error:
            _name_key_of(step, error)
            raise

    def _ask(self, step: Any) -> Any:
        try:
            if not isinstance(step, Request):
                return self._within(step, lambda: self.command(step))
            if step.shared:
                return self.crews.ask(step)
            try:
                return self._within(step, lambda: self.evaluate([step]))
            finally:
                step.gone = True
        except Exception as error:
            _name_key_of(step, error)
            raise

    def _within(self, step: Any, call: Callable[[], Any]) -> Any:
        if step.limit is None:
            return call()
        return run_within(step.limit, call, lambda: self.too_slow(step))

    def undo(self, request: Request, answer: list[int]) -> None:
        """Give back what a request has stored by an answer that came too late."""
        undo = request.undone(answer)
        if undo is not None:
            self.evaluate([undo])

    def command(self, step: Command) -> Any:
        """Make the call; an async client gives a coroutine."""
        return getattr(self.client, step.method)(*step.args, **step.options)

    def evaluate(self, requests: list[Request]) -> list[Any]:
        """Run a script by its name, or load it by its text where the server has lost it.

        Where the client's pool has no connection left it waits for one, unless nobody is left who
        waits for the answer.

        Args:
            requests: what to ask for in one call.
        """
        script, *args = requests[0].head
        words = words_of([step for request in requests for step in request.steps])
        end, pause = None, 0.001
        while True:
            began = time.monotonic()
            for request in requests:
                request.asked = began
            try:
                try:
                    reply = self.client.evalsha(script.sha, 1, *args, *words)
                except self.errors.NoScriptError:
                    reply = self.client.eval(script.text, 1, *args, *words)
                return numbers_of(reply)
            except self.errors.ConnectionError as error:
                if not is_no_connection(error):
                    raise
                self.not_sent(requests, error)
                end = end or began + NO_CONNECTION_SECONDS
                time.sleep(pause)
                if began > end or all(request.gone for request in requests):
                    raise
            pause = min(0.02, 2 * pause)

    def not_sent(self, requests: Iterable[Request], error: Exception) -> None:
        """Note that the client's pool had no connection for them, which is what the error says."""
        self._used_up = time.monotonic(), error
        for request in requests:
            request.asked = None

    def too_slow(self, step: Any) -> Exception:
        """The error of a call that took too long: its own, or that there was no connection."""
        if self._used_up is not None and isinstance(step, Request):
            lately = time.monotonic() - LAST_MS / 1000
            if self._used_up[0] > lately and (step.asked is None or step.asked > lately):
                return self._used_up[1]
        error: Exception = self.errors.TimeoutError(
            f"Redis did not answer within {step.limit:g} s, the time that the caller gave"
        )
        return error


def _name_key_of(step: Any, error: Exception) -> None:
    if isinstance(step, (Request, Command)) and step.key is not None:
        name_key(error, step.key)


def _driver_errors() -> Any:
    try:
        from redis import exceptions
    except ImportError as error:
        raise MissingDriver("redis", "redis") from error
    return exceptions
