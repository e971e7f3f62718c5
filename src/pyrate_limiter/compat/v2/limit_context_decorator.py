"""The waiting of 2.x: a decorator and a context manager in one."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter.compat.awaiting import admitted
from pyrate_limiter.compat.exceptions import BucketFullException
from pyrate_limiter.compat.v2.request_rate import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable
    from typing import Protocol

    from typing_extensions import ParamSpec

    from pyrate_limiter.abstracts.rate import Duration

    class Acquires(Protocol):
        """The `Limiter` of 2.x."""

        def try_acquire(self, *identities: Hashable) -> None:
            """Take one unit for each identity, or raise."""

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["BucketFullException", "LimitContextDecorator", "sleep"]

_log = logging.getLogger("pyrate_limiter.limit_context_decorator")


class LimitContextDecorator:
    """Acquires at each call of a function, or on entering a block. See `Limiter.ratelimit`.

    Args:
        limiter: asks for room.
        identities: for whom; all of them, or none.
        delay: whether to wait for room instead of raising.
        max_delay: how long to wait at the most, in seconds and in total; None or 0 is for ever.
    """

    def __init__(
        self,
        limiter: Acquires,
        *identities: Hashable,
        delay: bool = False,
        max_delay: float | Duration | None = None,
    ) -> None:
        self.delay: bool = delay
        self.max_delay: float = seconds(max_delay or 0)
        self.try_acquire: Callable[[], None] = partial(limiter.try_acquire, *identities)

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """Make each call of a function, sync or async, pass through the limiter."""
        return admitted(
            func,
            lambda *_, **__: self.delayed_acquire(),
            lambda *_, **__: self.async_delayed_acquire(),
        )

    def __enter__(self) -> None:
        self.delayed_acquire()

    def __exit__(self, *exc: object) -> None:
        return

    async def __aenter__(self) -> None:
        await self.async_delayed_acquire()

    async def __aexit__(self, *exc: object) -> None:
        return

    def delayed_acquire(self) -> None:
        """Acquire, after as many waits as it takes.

        Raises:
            BucketFullException: there is no room, and `delay` or `max_delay` forbids the wait.
        """
        for pause in self._pauses():
            sleep(pause)  # looked up each time: programs' tests replace it in this module

    async def async_delayed_acquire(self) -> None:
        """`delayed_acquire` for asyncio."""
        for pause in self._pauses():
            await asyncio.sleep(pause)

    def _pauses(self) -> Generator[float, None, None]:
        waited = 0.0
        while True:
            try:
                self.try_acquire()
            except BucketFullException as error:
                pause = self.delay_or_reraise(error)
                waited += pause
                if self.max_delay and waited > self.max_delay:
                    raise
                yield pause
            else:
                return

    def delay_or_reraise(self, err: BucketFullException) -> float:
        """How long to wait after a refusal, in seconds; or raise it."""
        remaining = float(err.meta_info["remaining_time"])
        _log.debug("Rate limit reached; %.5f seconds remaining before next request", remaining)
        if self.delay and not (self.max_delay and remaining > self.max_delay):
            return remaining
        raise err
