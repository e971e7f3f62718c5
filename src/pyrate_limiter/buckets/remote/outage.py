"""What a bucket does about outages of its server: no caller waits for one that is away."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.driver import run_async, run_blocking
from pyrate_limiter._core.worker_threads import in_worker
from pyrate_limiter.buckets.remote.fallback import Fallback, check_on_error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.remote.circuit import CircuitBreaker
    from pyrate_limiter.buckets.remote.fallback import OnError

    T = TypeVar("T")


class Outage:
    """Whether to ask the server, and which errors say that it is away.

    While it is away no caller asks it. It is probed beside them, now and then.

    Args:
        on_error: see `check_on_error`.
        breaker: what is known of the server by all who use it.
        is_async: whether calls to the server are awaited.
        buckets: see `check_on_error`.

    Raises:
        WrongType: ``on_error`` is nothing that can be done.
    """

    def __init__(
        self, on_error: OnError, breaker: CircuitBreaker, *, is_async: bool, buckets: bool = True
    ) -> None:
        self.on_error: OnError = check_on_error(on_error, is_async=is_async, buckets=buckets)
        self.raises: bool = isinstance(on_error, str) and on_error == "raise"
        self.breaker: CircuitBreaker = breaker
        self.fallback: Fallback = Fallback(self.on_error)
        self._is_async = is_async
        self._probe: asyncio.Task[None] | None = None  # a task that nobody else refers to

    @property
    def away(self) -> bool:
        """Whether to go on without the server, for it did not answer the last time."""
        return self.breaker.away and not self.raises

    def covers(self, error: BaseException) -> bool:
        """Whether this says that the server is away."""
        raise NotImplementedError

    def probe(self, key: str) -> Program[None]:
        """Ask whether the server is there, and tell the circuit breaker."""
        raise NotImplementedError

    def may_ask(self, key: str = "") -> bool:
        """Whether to ask the server about a key; where not, somebody may ask beside the caller."""
        if not self.away:
            return True
        if self.breaker.may_try():
            self._begin_probe(key)
        return False

    def failed(self, error: BaseException, key: str = "") -> bool:
        """Whether an error of a call says that the server is away, and to go on without it.

        Then that is known from now on, to all who use the client.
        """
        del key
        if self.raises or not self.covers(error):
            return False
        self.breaker.failed(error)
        return True

    def answered(self) -> None:
        """The server is there."""
        if self.away:
            self.breaker.answered()

    def guard(self, program: Program[T], instead: Callable[[], Program[T]]) -> Program[T]:
        """The program's result, or that of another one while the server is away."""
        if not self.may_ask():
            return (yield from instead())
        try:
            return (yield from program)
        except Exception as error:
            if not self.failed(error):
                raise
        return (yield from instead())

    def _begin_probe(self, key: str) -> None:
        """Ask the server again, without a caller who would have to wait for it."""
        if self._is_async:
            import asyncio

            # Not by the loop's factory: an eager one would begin it before this caller goes on.
            loop = asyncio.get_running_loop()
            self._probe = asyncio.Task(run_async(self.probe(key)), loop=loop)
            return
        ask = partial(run_blocking, self.probe(key))
        if not in_worker(ask):
            ask()  # no thread is to be had any more
