"""Talking to Redis: scripts, time limits, outages, and many asyncio callers in one call."""

from __future__ import annotations

import hashlib
import inspect
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._files import text_of
from pyrate_limiter.abstracts.checks import check_seconds, check_whole
from pyrate_limiter.abstracts.programs import drive, drive_async
from pyrate_limiter.buckets.redis_calls import run_within
from pyrate_limiter.buckets.redis_crews import Crews
from pyrate_limiter.buckets.redis_outage import RedisOutage
from pyrate_limiter.buckets.redis_wire import Wire
from pyrate_limiter.clocks import WallClock
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
        return cls(text_of(*place))


class Request:
    """One call of a script.

    Args:
        head: the script, the key, and what all steps of a kind share.
        steps: what comes after that.
        limit: seconds that the call may take; None is no limit.
        orphaned: given the request and an answer that nobody waits for any more: what undoes it.
        shared: whether steps of others may follow in the same call.
    """

    __slots__ = ("_orphaned", "head", "limit", "shared", "steps")

    def __init__(
        self,
        head: tuple[Any, ...],
        steps: list[Any],
        limit: float | None,
        orphaned: Callable[[Request, list[int]], Request | None] | None = None,
        shared: bool = True,
    ) -> None:
        self.head: tuple[Any, ...] = head
        self.steps: list[Any] = steps
        self.limit: float | None = limit
        self._orphaned = orphaned
        self.shared: bool = shared

    def undone(self, answer: list[int]) -> Request | None:
        """What undoes it, if anything, when its answer came and nobody waits for it any more."""
        return None if self._orphaned is None else self._orphaned(self, answer)


class Command:
    """A call of one of the client's methods."""

    __slots__ = ("args", "limit", "method", "options")

    def __init__(self, limit: float | None, method: str, *args: Any, **options: Any) -> None:
        self.limit: float | None = limit
        self.method: str = method
        self.args: tuple[Any, ...] = args
        self.options: dict[str, Any] = options


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
        call_timeout = check_seconds("call_timeout", call_timeout)
        memory_ms = check_whole("denial_memory_ms", denial_memory_ms, least=0, unit="milliseconds")
        self.client = client
        self.errors: Any = _driver_errors()
        self.is_async: bool = inspect.iscoroutinefunction(execute)
        self.outage: RedisOutage = RedisOutage(on_error, self.errors, is_async=self.is_async)
        self.call_timeout: float | None = call_timeout
        self.denial_memory: float = memory_ms / 1000
        self.clock: ServerClock = ServerClock()
        self.wire: Wire | None = None if self.is_async else Wire.of(client)
        self.crews: Crews = Crews(
            lambda: self.errors.ConnectionError("The thread that called Redis was interrupted"),
        )
        if self.is_async:
            from pyrate_limiter.buckets.redis_lanes import Lanes

            self.lanes: Lanes = Lanes(self)

    def limit(self, patience_ms: int = 0) -> float | None:
        """The seconds that a call for a caller of this patience may take; None is no limit."""
        if 0 < patience_ms < 1 << 50:
            seconds = patience_ms / 1000
            return seconds if self.call_timeout is None else min(seconds, self.call_timeout)
        return self.call_timeout

    def is_plain(self, patience_ms: int) -> bool:
        """Whether a call needs nothing but the client: it answers, and has no time limit."""
        return not self.outage.away and self.limit(patience_ms) is None

    def run(self, program: Program[T]) -> T | Coroutine[Any, Any, T]:
        """Run a program to its end, or return the coroutine that does, for an async client."""
        if self.is_async:
            return drive_async(program, self._ask_async)
        return drive(program, self._ask)

    async def _ask_async(self, step: Any) -> Any:
        if isinstance(step, Request):
            return await self.lanes.ask(step)
        if isinstance(step, Command):
            return await self.lanes.within(step.limit, self.command(step))
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
        if isinstance(step, Command):
            return self.command(step)
        return self.evaluate(*step.head, *step.steps)

    def _undo(self, step: Any, answer: Any) -> None:
        undo = step.undone(answer) if isinstance(step, Request) else None
        if undo is not None:
            self._execute(undo)

    def command(self, step: Command) -> Any:
        """Make the call; an async client gives a coroutine."""
        return getattr(self.client, step.method)(*step.args, **step.options)

    def evaluate(self, script: Script, key: str, *args: Any) -> list[Any]:
        """Run a script by its name, or load it by its text where the server has lost it."""
        try:
            reply = self.client.evalsha(script.sha, 1, key, *args)
        except self.errors.NoScriptError:
            reply = self.client.eval(script.text, 1, key, *args)
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
    return reply if isinstance(reply, list) else list(map(int, reply.split()))
