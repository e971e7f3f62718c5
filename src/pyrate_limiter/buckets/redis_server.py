"""Talking to Redis: scripts, time limits, outages, and many asyncio callers in one call."""

from __future__ import annotations

import hashlib
import inspect
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.abstracts.programs import drive, drive_async
from pyrate_limiter.buckets.redis_calls import Lanes, run_within
from pyrate_limiter.buckets.redis_outage import RedisOutage
from pyrate_limiter.clocks import AbstractClock
from pyrate_limiter.errors import MissingDriver, WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pyrate_limiter.abstracts.programs import Program

    T = TypeVar("T")

LAST_MS = 200  # also one whose time is up waits so long to learn what became of its claim
_NS = 1_000_000  # nanoseconds in a millisecond


class Script:
    """A Lua script and the name that Redis knows it by."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, text: str) -> Script:
        """The script of that text."""
        return cls(text)

    @classmethod
    def read(cls, *place: str) -> Script:
        """The script in a file of this package."""
        return cls(Path(__file__).parent.parent.joinpath(*place).read_text(encoding="utf-8"))


class Request:
    """One call of a script: what all steps of a kind share, then the steps themselves."""

    __slots__ = ("header", "key", "limit", "orphaned", "script", "steps", "width")

    def __init__(
        self,
        script: Script,
        key: str,
        header: tuple[Any, ...],
        steps: list[Any],
        *,
        limit: float | None,
        orphaned: Callable[[list[int]], Request | None],
        width: int = 3,
    ) -> None:
        self.script: Script = script
        self.key: str = key
        self.header: tuple[Any, ...] = header
        self.steps: list[Any] = steps
        self.limit: float | None = limit
        # Given the answer that nobody waits for any more: what undoes it.
        self.orphaned: Callable[[list[int]], Request | None] = orphaned
        self.width: int = width  # fields of a step; 0: the script takes one step at a time


class Command:
    """A call of one of the client's methods."""

    __slots__ = ("args", "limit", "method", "options")

    def __init__(self, limit: float | None, method: str, *args: Any, **options: Any) -> None:
        self.limit: float | None = limit
        self.method: str = method
        self.args: tuple[Any, ...] = args
        self.options: dict[str, Any] = options


class ServerClock(AbstractClock):
    """Epoch milliseconds: this machine's, put right by what the server's replies said."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = 0

    def now(self) -> int:
        """See `AbstractClock.now`."""
        return time.time_ns() // _NS + self._offset

    def learn(self, sent_ns: int, server_ms: int) -> None:
        """Note that the server's clock read ``server_ms`` between ``sent_ns`` and now."""
        early, late = sent_ns // _NS, time.time_ns() // _NS
        self._offset = min(0, server_ms - early) or max(0, server_ms - late)


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
        if call_timeout is not None and (
            not isinstance(call_timeout, (int, float)) or not call_timeout > 0
        ):
            raise WrongType("call_timeout", call_timeout, "a number of seconds above 0, or None")
        if not isinstance(denial_memory_ms, int) or denial_memory_ms < 0:
            raise WrongType("denial_memory_ms", denial_memory_ms, "a whole number, 0 or more")
        self.client = client
        self.errors: Any = _driver_errors()
        self.is_async: bool = inspect.iscoroutinefunction(execute)
        self.outage: RedisOutage = RedisOutage(on_error, self.errors, is_async=self.is_async)
        self.call_timeout = call_timeout
        self.denial_memory: float = denial_memory_ms / 1000
        self.clock: ServerClock = ServerClock()
        self._lanes = Lanes(self)

    def limit(self, patience_ms: int = 0) -> float | None:
        """The seconds that a call for a caller of this patience may take; None is no limit."""
        if 0 < patience_ms < 1 << 50:
            seconds = patience_ms / 1000
            return seconds if self.call_timeout is None else min(seconds, self.call_timeout)
        return self.call_timeout

    def run(self, program: Program[T]) -> T | Coroutine[Any, Any, T]:
        """Run a program to its end, or return the coroutine that does, for an async client."""
        if self.is_async:
            return drive_async(program, self._ask_async)
        return drive(program, self._ask)

    async def _ask_async(self, step: Any) -> Any:
        if isinstance(step, Request):
            return await self._lanes.ask(step)
        if isinstance(step, Command):
            return await self._lanes.within(step.limit, self.command(step))
        return await step

    def _ask(self, step: Any) -> Any:
        if step.limit is None:
            return self._execute(step)
        return run_within(
            step.limit,
            lambda: self._execute(step),
            self.too_slow,
            lambda answer: self._undo(step, answer),
        )

    def _execute(self, step: Any) -> Any:
        return self.command(step) if isinstance(step, Command) else self.evaluate(step)

    def _undo(self, step: Any, answer: Any) -> None:
        undo = step.orphaned(answer) if isinstance(step, Request) else None
        if undo is not None:
            self.evaluate(undo)

    def command(self, step: Command) -> Any:
        """Make the call; an async client gives a coroutine."""
        return getattr(self.client, step.method)(*step.args, **step.options)

    def evaluate(self, step: Request) -> list[Any]:
        """Run the script by its name, or load it by its text where the server has lost it."""
        args = (*step.header, *step.steps)
        try:
            reply = self.client.evalsha(step.script.sha, 1, step.key, *args)
        except self.errors.NoScriptError:
            reply = self.client.eval(step.script.text, 1, step.key, *args)
        return numbers_of(reply)

    def too_slow(self, limit: float) -> Exception:
        """The error of a call that took too long."""
        error: Exception = self.errors.TimeoutError(
            f"Redis did not answer within {limit:g} s, the time that the caller gave"
        )
        return error


def _driver_errors() -> Any:
    try:
        from redis import exceptions
    except ImportError as error:
        raise MissingDriver("redis", "redis") from error
    return exceptions


def numbers_of(reply: Any) -> list[Any]:
    """A reply as a list, also where it is a line of numbers, which is faster to read."""
    return reply if isinstance(reply, list) else [int(word) for word in reply.split()]
