"""Threads for calls that somebody must not wait for: an event loop, or a caller in a hurry.

They are not those of the event loop's default executor: an application fills that with its own
work, and shuts it down. Each store has no more than a few at a time, so that one that hangs holds
up no other; the calls on one bucket are made one after the other, in the order in which they came.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = tuple[contextvars.Context, Callable[[], object]]

MOST_THREADS = 4
"""Threads at the calls of one store."""
IDLE_SECONDS = 1.0
"""How long a thread stays for the next work."""

_idle: list[queue.SimpleQueue[Callable[[], object]]] = []
"""What the threads that have nothing to do get their work from."""


def in_worker(work: Callable[[], object]) -> bool:
    """Have a worker thread do this; False where no thread can be had, as when Python ends."""
    try:
        tasks = _idle.pop()
    except IndexError:
        tasks = queue.SimpleQueue()
        name = "pyrate-limiter worker"
        thread = threading.Thread(target=_serve, args=(tasks,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
    tasks.put(work)
    return True


def _serve(tasks: queue.SimpleQueue[Callable[[], object]]) -> None:
    while True:
        try:
            work = tasks.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            try:
                _idle.remove(tasks)
            except ValueError:  # somebody has just found it, who is about to give it work
                work = tasks.get()
            else:
                return
        with suppress(Exception):  # nobody is there to be told
            work()
        del work
        _idle.append(tasks)


class StoreCalls:
    """The calls on the buckets of one store that are still to be made."""

    __slots__ = ("_calls", "_lock", "_ready", "_store", "_threads")

    def __init__(self, store: object) -> None:
        self._store = store
        self._lock = threading.Lock()
        # The calls of each bucket that has any; and the buckets whose next call may be made.
        self._calls: dict[int, deque[Job]] = {}
        self._ready: deque[int] = deque()
        self._threads = 0

    def submit(self, bucket: int, job: Job) -> bool:
        """Have a job done behind those of the bucket; False if the last thread has just gone.

        It is done here where no thread can be had any more, as at the end of the interpreter.
        """
        with self._lock:
            if _stores.get(self._store) is not self:
                return False
            queued = self._calls.get(bucket)
            if queued is not None:
                queued.append(job)
                return True
            self._calls[bucket] = deque([job])
            self._ready.append(bucket)
            if self._threads >= MOST_THREADS:
                return True
            self._threads += 1
        if not in_worker(self._work_off):
            self._work_off()
        return True

    def _work_off(self) -> None:
        while True:
            with self._lock:
                if not self._ready:
                    self._threads -= 1
                    if not self._threads and not self._calls:
                        _stores.pop(self._store, None)
                    return
                bucket = self._ready.popleft()
                context, call = self._calls[bucket][0]
            try:
                context.run(call)
            finally:
                with self._lock:
                    queued = self._calls[bucket]
                    queued.popleft()
                    if queued:
                        self._ready.append(bucket)
                    else:
                        del self._calls[bucket]


_stores: dict[object, StoreCalls] = {}


def submit(store: object, bucket: int, call: Callable[[], object]) -> None:
    """Make a call in a worker thread, with the context variables of now.

    Args:
        store: whose call it is; anything that can be a key.
        bucket: its id; calls with the same one are made one after the other.
        call: must not raise.
    """
    job = (contextvars.copy_context(), call)
    while not _stores.setdefault(store, StoreCalls(store)).submit(bucket, job):
        pass


def _after_fork() -> None:
    _idle.clear()
    _stores.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - it is the operating system's affair
    os.register_at_fork(after_in_child=_after_fork)
