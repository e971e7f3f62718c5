"""Periodic leaking: the buckets of a factory, and when they are leaked."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.fork_safe_locks import shared_lock
from pyrate_limiter._core.leaking_thread import has_started, leaking_thread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter._core.clocks import AbstractClock

_serials = itertools.count()


class Leakable(Protocol):
    """A bucket, as its leaker knows it."""

    is_async: bool | None
    _clock: AbstractClock

    def leak(self, current_timestamp: int | None = None) -> int | Awaitable[int]:
        """Drop the units that are outside every window at that time, and say how many."""

    def follow(self, clock: AbstractClock) -> None:
        """Tell the time by this clock from now on."""


BucketT = TypeVar("BucketT", bound=Leakable)


class Leaker(Generic[BucketT]):
    """The buckets of one factory that are leaked every ``leak_interval`` ms.

    The process's sweeper holds the leaker weakly: when the factory goes, so does the sweeping.
    Where no thread can be had for it, the buckets are cleaned as they are used.
    """

    name = "PyrateLimiter's Leaker"
    leak_interval: int = 10_000
    aio_leak_task: asyncio.Task[None] | None = None
    """The sweep of the async buckets that is under way, if any."""

    def __init__(self, leak_interval: int) -> None:
        self.leak_interval = leak_interval
        self.lock: threading.RLock = shared_lock()
        """Of the stock buckets that `BucketFactory.create` makes: one each takes much memory."""
        # No lock for the sync buckets: a garbage collection may come back here at any line. New
        # ones stand in a row, a tenth of the memory, until somebody asks for one by its id.
        self._by_id: dict[int, BucketT] = {}
        self._new: deque[BucketT] = deque()
        self.async_buckets: dict[int, BucketT] = {}
        self._stop_event = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.serial: int = next(_serials)
        self.due: float = 0.0
        self._slow: threading.Thread | None = None  # at the buckets that may take long

    @property
    def ident(self) -> int | None:
        """The number of the thread that sweeps, which is one for the whole process."""
        thread = leaking_thread.thread
        return None if thread is None else thread.ident

    @property
    def sync_buckets(self) -> dict[int, BucketT]:
        """The sync buckets, by their ``id``."""
        by_id, new = self._by_id, self._new
        with suppress(IndexError):  # it is empty, perhaps by the help of another thread
            while new:
                bucket = new.popleft()
                by_id[id(bucket)] = bucket
        return by_id

    @sync_buckets.setter
    def sync_buckets(self, buckets: dict[int, BucketT]) -> None:
        self._forget_sync()
        self._by_id.update(buckets)

    def _forget_sync(self) -> None:
        self._new.clear()
        self._by_id.clear()

    def _all_sync(self) -> list[BucketT]:
        return [*self._by_id.values(), *self._new]

    def buckets(self) -> list[BucketT]:
        """All buckets, the sync ones first."""
        return [*self._all_sync(), *self.async_buckets.values()]

    @property
    def clocks(self) -> dict[int, AbstractClock]:
        """The clocks of the buckets, by the ``id`` of the bucket."""
        return {id(bucket): bucket._clock for bucket in self.buckets()}

    def join(self, timeout: float | None = None) -> None:
        """Wait until sync buckets are swept no more, or for so many seconds."""
        if self.is_alive():
            self._stop_event.wait(timeout)

    def register(self, bucket: BucketT, clock: AbstractClock | None = None) -> None:
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

    def sweep_new(self, bucket: BucketT) -> None:
        """Sweep a sync bucket from now on that was just made."""
        is_swept = bool(self._new) and leaking_thread.is_watching(self)
        self._new.append(bucket)
        if not is_swept:
            self.start()

    def deregister(self, bucket_id: int) -> bool:
        """Forget a bucket; False if it was not there."""
        known = [
            buckets.pop(bucket_id, None) for buckets in (self.sync_buckets, self.async_buckets)
        ]
        if not self.has_buckets():
            leaking_thread.forget(self.serial)
        return any(bucket is not None for bucket in known)

    def bind(self) -> None:
        """Leak the async buckets on the event loop that runs here, if one does."""
        import asyncio

        try:  # `suppress` would cost each call of an async bucket 0.3 us
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return

    def start(self) -> None:
        """Sweep from now on."""
        if not self._stop_event.is_set():
            due = time.monotonic() + self.pause()
            self.due = min(self.due, due) if leaking_thread.is_watching(self) else due
            leaking_thread.watch(self)

    def is_alive(self) -> bool:
        """Whether sync buckets are being swept."""
        has_sync = bool(self._new or self._by_id)
        return has_sync and not self._stop_event.is_set() and leaking_thread.is_watching(self)

    def close(self) -> None:
        """Stop, and forget the buckets."""
        self._stop_event.set()
        self._forget_sync()
        self.async_buckets.clear()
        leaking_thread.forget(self.serial)
        task, self.aio_leak_task = self.aio_leak_task, None
        if task is not None:
            with suppress(RuntimeError):  # its loop was closed
                task.get_loop().call_soon_threadsafe(task.cancel)

    def leak_async(self) -> None:
        """Leak the async buckets once, on their event loop, if it is running."""
        loop = self._loop
        if self.async_buckets and loop is not None and loop.is_running():
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._start_leaking)

    def _start_leaking(self) -> None:
        import asyncio

        if self.aio_leak_task is None or self.aio_leak_task.done():
            self.aio_leak_task = asyncio.ensure_future(_leak_all(list(self.async_buckets.values())))

    def after_fork(self) -> None:
        """Go on in a forked child, where neither the threads are nor who held the lock."""
        self._slow = None
        self._stop_event = threading.Event()
        self.start()

    def pause(self) -> float:
        """Seconds from one sweep to the next: an interval of 0 must not keep a core busy."""
        return max(self.leak_interval, 1) / 1000

    def has_buckets(self) -> bool:
        """Whether there is anything to sweep."""
        return bool(self._new or self._by_id or self.async_buckets)

    def sweep(self) -> None:
        """Leak all buckets once; those that may hang do so in a thread of their own."""
        slow = []
        for bucket in self._all_sync():
            if _is_quick(bucket):
                _leak(bucket)
            else:
                slow.append(bucket)
        # One that hangs, with a server of its own for example, must not hold up the others.
        if slow and (self._slow is None or not self._slow.is_alive()):
            name = f"{self.name}, slow"
            thread = threading.Thread(target=_leak_slow, args=(slow,), name=name, daemon=True)
            self._slow = thread if has_started(thread) else None
        self.leak_async()


def _is_quick(bucket: Leakable) -> bool:
    """Whether its `leak` is our own, and works in memory alone."""
    module = getattr(getattr(type(bucket), "leak", None), "__module__", "")
    return not getattr(bucket, "blocks", True) and module.startswith("pyrate_limiter.")


def _leak(bucket: Leakable) -> None:
    try:
        discard(bucket.leak())  # with a clock to be awaited it is cleaned as it is used
    except BaseException as error:  # noqa: BLE001 - a user's bucket may raise anything, and exit
        _report(bucket, error)


def _leak_slow(buckets: Sequence[Leakable]) -> None:
    for bucket in buckets:
        _leak(bucket)


async def _leak_all(buckets: Sequence[Leakable]) -> None:
    for bucket in buckets:
        try:
            leaked = bucket.leak()
            if is_awaitable(leaked):  # a bucket that has nothing to leak says so at once
                await leaked
        except Exception as error:  # noqa: BLE001 - a user's bucket may raise anything
            _report(bucket, error)


def _report(bucket: Leakable, error: BaseException) -> None:
    import logging

    with suppress(BaseException):  # so may a log handler, or the bucket's repr
        logging.getLogger("pyrate_limiter").error(
            "leaking %r failed, it will be tried again", bucket, exc_info=error
        )
