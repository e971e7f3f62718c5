"""Periodic leaking: one daemon thread for the whole process, however many factories there are."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.awaiting import discard, is_awaitable

if TYPE_CHECKING:
    import asyncio

    from pyrate_limiter.abstracts.bucket import AbstractBucket


class Leaker:
    """The buckets of one factory that are leaked every ``leak_interval`` ms.

    The process's sweeper holds the leaker weakly: when the factory goes, so does the sweeping.
    """

    name = "PyrateLimiter's Leaker"
    leak_interval: int = 10_000
    aio_leak_task: asyncio.Task[None] | None = None
    """The sweep of the async buckets that is under way, if any."""

    def __init__(self, leak_interval: int) -> None:
        self.leak_interval = leak_interval
        self.sync_buckets: dict[int, AbstractBucket] = {}
        self.async_buckets: dict[int, AbstractBucket] = {}
        self._stop_event = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = 0.0

    @property
    def ident(self) -> int | None:
        """The number of the thread that sweeps, which is one for the whole process."""
        thread: threading.Thread | None = _sweeper._thread
        return None if thread is None else thread.ident

    @property
    def clocks(self) -> dict[int, Any]:
        """The clocks of the buckets, by the ``id`` of the bucket."""
        buckets = {**self.sync_buckets, **self.async_buckets}
        return {number: bucket._clock for number, bucket in buckets.items()}

    def join(self, timeout: float | None = None) -> None:
        """Wait until sync buckets are swept no more, or for so many seconds."""
        if self.is_alive():
            self._stop_event.wait(timeout)

    def register(self, bucket: AbstractBucket, clock: Any = None) -> None:
        """Add a bucket. Whether it is async is asked of itself; ``leak(0)`` is the last resort.

        See `AbstractBucket.follow` for a clock, which programs for 3.x give.
        """
        if clock is not None:
            bucket.follow(clock)
        is_async = bucket.is_async
        if is_async is None:
            probe = bucket.leak(0)
            is_async = is_awaitable(probe)
            discard(probe)
        if is_async:
            self.async_buckets[id(bucket)] = bucket
            self.bind()
        else:
            self.sync_buckets[id(bucket)] = bucket

    def deregister(self, bucket_id: int) -> bool:
        """Forget a bucket; False if it was not there."""
        known = self.sync_buckets.pop(bucket_id, None) or self.async_buckets.pop(bucket_id, None)
        _sweeper.nudge()
        return known is not None

    def bind(self) -> None:
        """Leak the async buckets on the event loop that runs here, if one does."""
        import asyncio

        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return

    def start(self) -> None:
        """Sweep from now on."""
        if not self._stop_event.is_set():
            due = time.monotonic() + self.leak_interval / 1000
            self._due = min(self._due, due) if _sweeper.is_watching(self) else due
            _sweeper.watch(self)

    def is_alive(self) -> bool:
        """Whether sync buckets are being swept."""
        return (
            bool(self.sync_buckets) and not self._stop_event.is_set() and _sweeper.is_watching(self)
        )

    def close(self) -> None:
        """Stop, and forget the buckets."""
        self._stop_event.set()
        self.sync_buckets.clear()
        self.async_buckets.clear()
        task, self.aio_leak_task = self.aio_leak_task, None
        if task is not None and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)
        _sweeper.nudge()

    def leak_async(self) -> None:
        """Leak the async buckets once, on their event loop, if it is running."""
        loop = self._loop
        if self.async_buckets and loop is not None and loop.is_running():
            loop.call_soon_threadsafe(self._start_leaking)

    def _start_leaking(self) -> None:
        import asyncio

        if self.aio_leak_task is None or self.aio_leak_task.done():
            self.aio_leak_task = asyncio.ensure_future(_leak_all(list(self.async_buckets.values())))

    def _sweep(self) -> None:
        for bucket in list(self.sync_buckets.values()):
            try:
                discard(bucket.leak())  # with a clock to be awaited it is cleaned as it is used
            except Exception as error:  # noqa: BLE001 - a user's bucket may raise anything
                _report(bucket, error)
        self.leak_async()


async def _leak_all(buckets: list[AbstractBucket]) -> None:
    for bucket in buckets:
        try:
            leaked = bucket.leak()
            if is_awaitable(leaked):  # a bucket that has nothing to leak says so at once
                await leaked  # type: ignore[misc] # it is awaitable
        except Exception as error:  # noqa: BLE001 - a user's bucket may raise anything
            _report(bucket, error)


def _report(bucket: AbstractBucket, error: Exception) -> None:
    import logging

    logging.getLogger("pyrate_limiter").error(
        "leaking %r failed, it will be tried again", bucket, exc_info=error
    )


class _Sweeper:
    """The thread and what it watches."""

    def __init__(self) -> None:
        self._leakers: dict[int, weakref.ref[Leaker]] = {}
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # SimpleQueue.put may be called where a garbage collection has interrupted any other line.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def watch(self, leaker: Leaker) -> None:
        with self._lock:
            if id(leaker) not in self._leakers:
                self._leakers[id(leaker)] = weakref.ref(leaker, self.nudge)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=Leaker.name, daemon=True)
                self._thread.start()
        self.nudge()

    def is_watching(self, leaker: Leaker) -> bool:
        return self._thread is not None and id(leaker) in self._leakers

    def nudge(self, _: object = None) -> None:
        self._wake.put(None)

    def after_fork(self) -> None:
        self._reset()
        for reference in list(self._leakers.values()):
            leaker = reference()
            if leaker is not None:
                leaker._stop_event = threading.Event()  # its lock may have been held elsewhere
                leaker.start()

    def _run(self) -> None:
        wake = self._wake
        while True:
            with self._lock:
                pause = self._next()
                if pause is None:
                    self._thread = None
                    return
            if pause > 0:
                with suppress(queue.Empty):
                    wake.get(timeout=pause)
                continue
            self._sweep_due()

    def _next(self) -> float | None:
        """Seconds until the next sweep, None when there is nothing left to sweep."""
        soonest = None
        for key, reference in list(self._leakers.items()):
            leaker = reference()
            if leaker is None or not (leaker.sync_buckets or leaker.async_buckets):
                del self._leakers[key]
            elif soonest is None or leaker._due < soonest:
                soonest = leaker._due
        return None if soonest is None else soonest - time.monotonic()

    def _sweep_due(self) -> None:
        for reference in list(self._leakers.values()):
            leaker = reference()
            if leaker is not None and leaker._due <= time.monotonic():
                leaker._sweep()
                # At least 1 ms apart: an interval of 0 must not keep a core busy.
                leaker._due = time.monotonic() + max(leaker.leak_interval, 1) / 1000


_sweeper: Any = _Sweeper()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sweeper.after_fork)
