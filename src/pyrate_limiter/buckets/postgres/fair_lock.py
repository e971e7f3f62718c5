"""One at a time in this process, in order of arrival.

It is for those who read, decide, and write if nobody has written meanwhile: they would only send
each other back to the start.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.driver import BlockingEffect
from pyrate_limiter.buckets.postgres.exchange import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program

    T = TypeVar("T")


class Turns:
    """A lock that threads and tasks may have, and get in the order in which they came."""

    __slots__ = ("_mutex", "_taken", "_waiting")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._taken = False
        self._waiting: deque[Callable[[], object]] = deque()

    def enter(self, wake: Callable[[], object]) -> bool:
        """Whether it is free, and taken now; otherwise ``wake`` is called when it is one's turn."""
        with self._mutex:
            if self._taken:
                self._waiting.append(wake)
                return False
            self._taken = True
            return True

    def give_up(self, wake: Callable[[], object]) -> bool:
        """Wait no longer; False if one's turn has come meanwhile."""
        with self._mutex:
            try:
                self._waiting.remove(wake)
            except ValueError:
                return False
            return True

    def leave(self) -> None:
        """Let the next one in."""
        with self._mutex:
            if not self._waiting:
                self._taken = False
                return
            wake = self._waiting.popleft()
        wake()


def in_turn(
    turns: Turns,
    seconds: float | None,
    late: Callable[[float], Program[BaseException]],
    work: Callable[[float | None], Program[T]],
) -> Program[T]:
    """``work(seconds left)``, a program, when it is one's turn.

    Where that comes late, the error that the program ``late(when it began)`` gives.
    """
    began = time.monotonic()
    if not (yield Enter(turns, seconds)):
        raise (yield from late(began))
    try:
        left = None if seconds is None else max(0.001, began + seconds - time.monotonic())
        return (yield from work(left))
    finally:
        turns.leave()


class Enter(BlockingEffect[bool]):
    """A step of a program: wait for one's turn; answers whether it has come in time."""

    __slots__ = ("_deadline", "_turns")

    def __init__(self, turns: Turns, seconds: float | None) -> None:
        self._turns = turns
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def block(self) -> bool:
        """Wait in this thread."""
        event = threading.Event()
        wake = event.set
        if self._turns.enter(wake):
            return True
        try:
            event.wait(self._left())
        except BaseException:
            self._withdraw(wake)
            raise
        return not self._turns.give_up(wake)

    async def wait(self) -> bool:
        """Wait in the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        wake = partial(loop.call_soon_threadsafe, resolve, future, True)
        if self._turns.enter(wake):
            return True
        try:
            await asyncio.wait([future], timeout=self._left())
        except BaseException:
            self._withdraw(wake)
            raise
        return not self._turns.give_up(wake)

    def _withdraw(self, wake: Callable[[], object]) -> None:
        if not self._turns.give_up(wake):
            self._turns.leave()
