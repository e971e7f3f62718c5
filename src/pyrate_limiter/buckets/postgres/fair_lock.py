"""A fair lock for the threads and tasks of this process.

It serves callers that read, decide, and write unless somebody has written meanwhile: without it
they would make each other begin anew.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from pyrate_limiter._core.driver import BlockingEffect
from pyrate_limiter.buckets.postgres.exchange import resolve

if TYPE_CHECKING:
    from collections.abc import Callable


class FairLock:
    """A lock that threads and tasks get in the order in which they asked for it."""

    __slots__ = ("_mutex", "_taken", "_waiting")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._taken = False
        self._waiting: deque[Callable[[], object]] = deque()

    def acquire(self, wake: Callable[[], object]) -> bool:
        """Take the lock if it is free; otherwise ``wake`` is called once it is the caller's."""
        with self._mutex:
            if self._taken:
                self._waiting.append(wake)
                return False
            self._taken = True
            return True

    def give_up(self, wake: Callable[[], object]) -> bool:
        """Wait no longer; False if the lock has become the caller's meanwhile."""
        with self._mutex:
            try:
                self._waiting.remove(wake)
            except ValueError:
                return False
            return True

    def release(self) -> None:
        """Hand the lock to the caller that has waited longest."""
        with self._mutex:
            if not self._waiting:
                self._taken = False
                return
            wake = self._waiting.popleft()
        wake()


class Acquire(BlockingEffect[bool]):
    """Wait for a fair lock; answered by whether it was to be had in time."""

    __slots__ = ("_deadline", "_lock")

    def __init__(self, lock: FairLock, seconds: float | None) -> None:
        self._lock = lock
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def block(self) -> bool:
        """Wait in this thread."""
        event = threading.Event()
        wake = event.set
        if self._lock.acquire(wake):
            return True
        try:
            event.wait(self._left())
        except BaseException:
            self._withdraw(wake)
            raise
        return not self._lock.give_up(wake)

    async def wait(self) -> bool:
        """Wait in the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        wake = partial(loop.call_soon_threadsafe, resolve, future, True)
        if self._lock.acquire(wake):
            return True
        try:
            await asyncio.wait([future], timeout=self._left())
        except BaseException:
            self._withdraw(wake)
            raise
        return not self._lock.give_up(wake)

    def _withdraw(self, wake: Callable[[], object]) -> None:
        if not self._lock.give_up(wake):
            self._lock.release()
