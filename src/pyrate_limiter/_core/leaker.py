"""Periodic leaking: one daemon thread for the whole process, however many factories there are."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.fork_safe_locks import shared_lock
from pyrate_limiter._core.leaked import Swept

if TYPE_CHECKING:
    import asyncio

    from pyrate_limiter.abstracts.bucket import AbstractBucket

_serials = itertools.count()
_LONGEST_PAUSE = 3600.0  # seconds; what is due later is looked at on the way


class Leaker:
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
        self.lock: Any = shared_lock()
        """Of the stock buckets that `BucketFactory.create` makes: one each takes much memory."""
        self._swept = Swept()
        self.async_buckets: dict[int, AbstractBucket] = {}
        self._stop_event = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serial = next(_serials)
        self._due = 0.0
        self._slow: threading.Thread | None = None  # at the buckets that may take long

    @property
    def ident(self) -> int | None:
        """The number of the thread that sweeps, which is one for the whole process."""
        thread: threading.Thread | None = _sweeper._thread
        return None if thread is None else thread.ident

    @property
    def sync_buckets(self) -> dict[int, AbstractBucket]:
        """The sync buckets, by their ``id``."""
        return self._swept.by_id

    @sync_buckets.setter
    def sync_buckets(self, buckets: dict[int, AbstractBucket]) -> None:
        self._swept.clear()
        self._swept.by_id.update(buckets)

    def buckets(self) -> list[AbstractBucket]:
        """All buckets, the sync ones first."""
        return [*self._swept.all(), *self.async_buckets.values()]

    @property
    def clocks(self) -> dict[int, Any]:
        """The clocks of the buckets, by the ``id`` of the bucket."""
        return {id(bucket): bucket._clock for bucket in self.buckets()}

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

    def sweep_new(self, bucket: AbstractBucket) -> None:
        """Sweep a sync bucket from now on that was just made."""
        new = self._swept.new
        is_swept = bool(new) and _sweeper.is_watching(self)
        new.append(bucket)
        if not is_swept:
            self.start()

    def deregister(self, bucket_id: int) -> bool:
        """Forget a bucket; False if it was not there."""
        known = [
            buckets.pop(bucket_id, None) for buckets in (self.sync_buckets, self.async_buckets)
        ]
        if not self._has_buckets():
            _sweeper.forget(self._serial)
        return any(bucket is not None for bucket in known)

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
            due = time.monotonic() + self._pause()
            self._due = min(self._due, due) if _sweeper.is_watching(self) else due
            _sweeper.watch(self)

    def is_alive(self) -> bool:
        """Whether sync buckets are being swept."""
        return bool(self._swept) and not self._stop_event.is_set() and _sweeper.is_watching(self)

    def close(self) -> None:
        """Stop, and forget the buckets."""
        self._stop_event.set()
        self._swept.clear()
        self.async_buckets.clear()
        _sweeper.forget(self._serial)
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

    def _pause(self) -> float:
        """Seconds from one sweep to the next: an interval of 0 must not keep a core busy."""
        return max(self.leak_interval, 1) / 1000

    def _has_buckets(self) -> bool:
        return bool(self._swept or self.async_buckets)

    def _sweep(self) -> None:
        slow = []
        for bucket in self._swept.all():
            if _is_quick(bucket):
                _leak(bucket)
            else:
                slow.append(bucket)
        # One that hangs, with a server of its own for example, must not hold up the others.
        if slow and (self._slow is None or not self._slow.is_alive()):
            name = f"{self.name}, slow"
            thread = threading.Thread(target=_leak_slow, args=(slow,), name=name, daemon=True)
            self._slow = thread if _has_started(thread) else None
        self.leak_async()


def _is_quick(bucket: AbstractBucket) -> bool:
    """Whether its `leak` is our own, and works in memory alone."""
    module = getattr(getattr(type(bucket), "leak", None), "__module__", "")
    return not getattr(bucket, "blocks", True) and module.startswith("pyrate_limiter.")


def _leak(bucket: AbstractBucket) -> None:
    try:
        discard(bucket.leak())  # with a clock to be awaited it is cleaned as it is used
    except BaseException as error:  # noqa: BLE001 - a user's bucket may raise anything, and exit
        _report(bucket, error)


def _leak_slow(buckets: list[AbstractBucket]) -> None:
    for bucket in buckets:
        _leak(bucket)


async def _leak_all(buckets: list[AbstractBucket]) -> None:
    for bucket in buckets:
        try:
            leaked = bucket.leak()
            if is_awaitable(leaked):  # a bucket that has nothing to leak says so at once
                await leaked  # type: ignore[misc] # it is awaitable
        except Exception as error:  # noqa: BLE001 - a user's bucket may raise anything
            _report(bucket, error)


def _report(bucket: AbstractBucket, error: BaseException) -> None:
    import logging

    with suppress(BaseException):  # so may a log handler, or the bucket's repr
        logging.getLogger("pyrate_limiter").error(
            "leaking %r failed, it will be tried again", bucket, exc_info=error
        )


def _has_started(thread: threading.Thread) -> bool:
    """Start it; False where no thread can be had."""
    try:
        thread.start()
    except RuntimeError:  # there are too many, or the interpreter is about to end
        return False
    return True


class _Watched(weakref.ref[Leaker]):
    """A leaker that may go at any time."""

    __slots__ = ("serial",)

    serial: int


class _Sweeper:
    """The thread and what it watches.

    Nothing here takes a lock: a garbage collection may call it at any line, and gevent may have
    replaced all locks and threads since the module was imported.
    """

    def __init__(self) -> None:
        self._leakers: dict[int, _Watched] = {}  # by a number that is never used again
        self._reset()

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._wake: Any = None  # what the thread waits on
        self._news: deque[int] = deque()  # leakers that the thread does not know, or too late
        self._wakes_at = 0.0
        self._read_at = 0.0  # what the clock said when the thread looked last

    def watch(self, leaker: Leaker) -> None:
        """Sweep a leaker when it is due; also one that is watched, and due earlier now."""
        if leaker._serial not in self._leakers:
            reference = _Watched(leaker, self._gone)
            reference.serial = leaker._serial
            self._leakers[leaker._serial] = reference
        self._news.append(leaker._serial)
        if self._thread is None:
            self._start()
        elif not time.monotonic() <= self._wakes_at <= leaker._due:
            self._nudge()  # it sleeps too long, or by a time that a test has frozen or thawed since

    def forget(self, serial: int) -> None:
        """Sweep a leaker no more."""
        self._leakers.pop(serial, None)
        if not self._leakers:
            self._nudge()

    def is_watching(self, leaker: Leaker) -> bool:
        return self._thread is not None and leaker._serial in self._leakers

    def after_fork(self) -> None:
        self._reset()
        for reference in list(self._leakers.values()):
            leaker = reference()
            if leaker is not None:
                leaker._slow = None
                leaker._stop_event = threading.Event()  # its lock may have been held elsewhere
                leaker.start()

    def _gone(self, reference: Any) -> None:
        self.forget(reference.serial)

    def _nudge(self) -> None:
        wake = self._wake
        if wake is not None:
            wake.put(None)

    def _start(self) -> None:
        # SimpleQueue.put may be called where a garbage collection has interrupted any other line.
        wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, args=(wake,), name=Leaker.name, daemon=True)
        if self._thread is None:
            self._thread, self._wake = thread, wake
            if not _has_started(thread) and self._wake is wake:
                self._thread = self._wake = None  # the next limiter tries again

    def _run(self, wake: queue.SimpleQueue[None]) -> None:
        plan: list[tuple[float, int]] = []
        self._read_at = time.monotonic()
        while self._wake is wake:
            pause = self._next(plan)
            if pause is None:
                self._thread = self._wake = None
                if self._news:  # they came while it was about to end
                    self._start()
            elif pause > 0:
                self._wakes_at = time.monotonic() + pause
                if not self._news:
                    with suppress(queue.Empty):
                        wake.get(timeout=min(pause, _LONGEST_PAUSE))
            else:
                self._sweep_first(plan)

    def _next(self, plan: list[tuple[float, int]]) -> float | None:
        """Seconds until the next sweep, None when there is nothing left to sweep.

        Args:
            plan: when each leaker is due; a heap. It may name those that are gone.
        """
        now, before = time.monotonic(), self._read_at
        self._read_at = now
        if not before <= now <= before + 2 * _LONGEST_PAUSE:
            # A test has frozen the time, or thawed it: what was planned is in another one.
            plan.clear()
            self._news.extend(list(self._leakers))
        while self._news:
            serial = self._news.popleft()
            leaker = self._leaker(serial)
            if leaker is not None:
                leaker._due = min(leaker._due, now + leaker._pause())
                heapq.heappush(plan, (leaker._due, serial))
        while plan and self._leakers:
            due, serial = plan[0]
            leaker = self._leaker(serial)
            if leaker is None or leaker._due != due:
                heapq.heappop(plan)
                continue
            return due - now
        return None

    def _leaker(self, serial: int) -> Leaker | None:
        reference = self._leakers.get(serial)
        leaker = None if reference is None else reference()
        if leaker is not None and not leaker._has_buckets():
            self._leakers.pop(serial, None)
            return None
        return leaker

    def _sweep_first(self, plan: list[tuple[float, int]]) -> None:
        _, serial = heapq.heappop(plan)
        leaker = self._leaker(serial)
        if leaker is not None:
            with suppress(BaseException):  # what it has to say was logged
                leaker._sweep()
            leaker._due = time.monotonic() + leaker._pause()
            heapq.heappush(plan, (leaker._due, serial))


_sweeper: Any = _Sweeper()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sweeper.after_fork)
