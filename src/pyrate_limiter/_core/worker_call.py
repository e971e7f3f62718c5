"""Calls that an event loop must not wait for."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyrate_limiter._core.worker_threads import submit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pyrate_limiter.abstracts.bucket import AbstractBucket

R = TypeVar("R")

_NOT_IN_THREAD, _QUEUED, _RUNNING, _DONE, _WITHDRAWN = range(5)
_GRACE_SECONDS = 0.1  # how long a cancellation waits for the worker thread


class OutOfTime(Exception):
    """The caller's time was up before there was an answer."""


class WorkerCall(Generic[R]):
    """A call that may wait for a disk, a socket or a lock. ``result`` is there once it returned.

    Args:
        bucket: whose call it is; its calls are made one after the other.
        call: what to call.
        *args: with what.
    """

    __slots__ = (
        "_afterwards",
        "_bucket",
        "_error",
        "_lock",
        "_state",
        "args",
        "call",
        "must_run",
        "result",
    )

    def __init__(self, bucket: AbstractBucket, call: Callable[..., R], *args: object) -> None:
        self._bucket = bucket
        self.call: Callable[..., R] = call
        self.args: tuple[object, ...] = args
        self.result: Any = None  # what `call` returns, once it has
        self.must_run: bool = False
        """Whether it is made even where its caller has gone before a thread has begun."""
        self._error: BaseException | None = None
        self._afterwards: Callable[[R], object] | None = None
        self._lock = threading.Lock()
        self._state = _NOT_IN_THREAD

    def run(self) -> R:
        """Do it, here."""
        self.result = result = self.call(*self.args)
        return result

    async def in_thread(
        self, grace_seconds: float | None = _GRACE_SECONDS, seconds: float | None = None
    ) -> R:
        """Do it in a worker thread.

        A cancellation is passed on when the thread has returned; or, if it takes longer than
        ``grace_seconds``, without it. None waits however long it takes. A call that has not begun
        by then is not made, unless it must run.

        Raises:
            OutOfTime: it has not returned within ``seconds``, and goes on without the caller.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._state = _QUEUED
        submit(self._bucket.store_id, id(self._bucket), lambda: self._run_in_thread(loop, ended))
        try:
            if seconds is None:
                await asyncio.shield(ended)
            else:
                await asyncio.wait([ended], timeout=seconds)
        except asyncio.CancelledError:
            while not self._withdraw() and not ended.done():
                with suppress(asyncio.CancelledError):  # one is enough
                    await asyncio.wait([ended], timeout=grace_seconds)
                if grace_seconds is not None:
                    break
            raise
        if not ended.done():
            self._withdraw()
            raise OutOfTime
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # it holds this frame, and this frame holds it
        result: R = self.result
        return result

    def afterwards(self, step: Callable[[R], object]) -> bool:
        """Leave ``step``, called with the result, to the thread; False if none is at it."""
        with self._lock:
            if self._state != _RUNNING:
                return False
            self._afterwards = step
            return True

    def _withdraw(self) -> bool:
        with self._lock:
            if self._state == _QUEUED and not self.must_run:
                self._state = _WITHDRAWN
            return self._state == _WITHDRAWN

    def _run_in_thread(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        with self._lock:
            if self._state == _WITHDRAWN:
                return
            self._state = _RUNNING
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            self._error = error
        with self._lock:
            step, self._afterwards = self._afterwards, None
            self._state = _DONE
        if step is not None:
            with suppress(Exception):  # nobody is there to be told
                step(self.result)
        with suppress(RuntimeError):  # the event loop was closed
            loop.call_soon_threadsafe(_end, ended)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
