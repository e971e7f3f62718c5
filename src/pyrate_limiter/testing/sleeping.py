"""Waits on a manual clock: they take no time, and the clock shows them."""

from __future__ import annotations

import heapq
import itertools
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from pyrate_limiter.testing.clocks import ManualAsyncClock, ManualClock

_QUIET_ROUNDS = 20  # of an event loop that does not say whether anything is left to run


@contextmanager
def sleeping_advances(clock: ManualClock | ManualAsyncClock) -> Iterator[list[float]]:
    """While the context is open, every wait moves ``clock`` on instead of taking time.

    It replaces ``pyrate_limiter.limiter.sleep`` and ``asyncio.sleep``, and puts them back. Tasks
    that sleep at the same time wake in the order of their moments: the clock moves to the first of
    these when no task of their event loop has anything else to do. Fractions of a millisecond are
    rounded up. Timeouts of `Limiter` still count real time, so what they bound is one wait.

    It is meant for one thread: a second one that sleeps moves the same clock.

    Example:
        >>> from pyrate_limiter import InMemoryBucket, Limiter, Rate
        >>> from pyrate_limiter.testing import ManualClock, sleeping_advances
        >>> bucket = InMemoryBucket([Rate(1, 1000)])
        >>> bucket._clock = clock = ManualClock()
        >>> limiter = Limiter(bucket, buffer_ms=0)
        >>> with sleeping_advances(clock) as slept:
        ...     print(limiter.try_acquire("first"), limiter.try_acquire("second"))
        True True
        >>> clock.now()
        1001

    Args:
        clock: the clock of the buckets under test.

    Yields:
        The seconds of each wait so far, in the order in which they began.
    """
    import asyncio
    from unittest.mock import patch

    from pyrate_limiter import limiter as module

    slept: list[float] = []
    sleepers = _Sleepers(clock)
    real_async = asyncio.sleep

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(_ms(seconds))

    async def sleep_async(delay: float, result: object = None) -> object:
        if delay <= 0:
            return await real_async(0, result)
        slept.append(delay)
        await sleepers.until(clock.ms + _ms(delay))
        return result

    with patch.object(module, "sleep", sleep), patch.object(asyncio, "sleep", sleep_async):
        yield slept


def _ms(seconds: float) -> int:
    return max(0, math.ceil(round(seconds * 1000, 6)))


class _Sleepers:
    """The tasks that sleep, by the moment at which they wake."""

    def __init__(self, clock: ManualClock | ManualAsyncClock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pumping = False
        self._quiet = 0

    async def until(self, moment: int) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._heap, self._pumping = loop, [], False
        woken: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._heap, (moment, next(self._order), woken))
        if not self._pumping:
            self._pumping = True
            loop.call_soon(self._pump, loop)
        self._quiet = 0
        await woken

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the next sleeper once the loop has nothing else to do."""
        ready = getattr(loop, "_ready", None)
        self._quiet += 1
        if not ready if ready is not None else self._quiet > _QUIET_ROUNDS:
            self._quiet = 0
            self._wake_next()
        self._pumping = bool(self._heap)
        if self._pumping:
            loop.call_soon(self._pump, loop)

    def _wake_next(self) -> None:
        while self._heap:
            moment, _, woken = heapq.heappop(self._heap)
            if not woken.done():
                self._clock.set(max(moment, self._clock.ms))
                woken.set_result(None)
                return
