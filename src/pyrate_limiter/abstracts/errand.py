"""Calls that an event loop must not wait for."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE_SECONDS = 0.1  # how long a cancellation waits for the worker thread


class Errand:
    """A call that may wait for a disk, a socket or a lock. ``result`` is there once it returned."""

    __slots__ = ("_afterwards", "_ended", "args", "call", "result")

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call: Callable[..., Any] = call
        self.args: tuple[Any, ...] = args
        self.result: Any = None
        self._afterwards: Callable[[Any], object] | None = None
        self._ended: Any = None  # a lock, held until a worker thread has returned

    def run(self) -> Any:
        """Do it, here."""
        self.result = self.call(*self.args)
        return self.result

    async def in_thread(self, grace_seconds: float | None = _GRACE_SECONDS) -> Any:
        """Do it in a worker thread.

        A cancellation is passed on when the thread has returned; or, if it takes longer than
        ``grace_seconds``, without it. None waits however long it takes.
        """
        import asyncio

        self._ended = threading.Lock()
        future = asyncio.get_running_loop().run_in_executor(None, self._run_in_thread)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):  # one is enough
                    await asyncio.wait([future], timeout=grace_seconds)
                if grace_seconds is not None:
                    break
            raise

    def afterwards(self, step: Callable[[Any], object]) -> bool:
        """Leave ``step``, called with the result, to the thread; False if none is at it."""
        if self._ended is None:
            return False
        with self._ended:
            if self._afterwards is _nothing:
                return False
            self._afterwards = step
            return True

    def _run_in_thread(self) -> Any:
        try:
            return self.run()
        finally:
            with self._ended:
                step, self._afterwards = self._afterwards, _nothing
            if step is not None:
                step(self.result)


def _nothing(_: Any) -> None:
    """Stands where it is too late to leave a step."""
