"""Threads for calls that an event loop must not wait for.

They are not those of the event loop's default executor: an application fills that with its own
work, and shuts it down. Each store has a few threads of its own, so that one that hangs holds up no
other; the calls on one bucket are made one after the other, in the order in which they came.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = tuple[contextvars.Context, Callable[[], object]]

MOST_THREADS = 4
"""Threads for one store."""
IDLE_SECONDS = 1.0
"""How long a thread stays for the next call."""


class WorkerThreads:
    """The threads of one store, which start as they are needed and end when they are idle."""

    __slots__ = ("_changed", "_idle", "_lanes", "_ready", "_store", "_threads")

    def __init__(self, store: object) -> None:
        self._store = store
        self._changed = threading.Condition()
        # The calls of each bucket that has any; and the buckets whose next call may be made.
        self._lanes: dict[int, deque[Job]] = {}
        self._ready: deque[int] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, lane: int, job: Job) -> bool:
        """Have a job done behind those of the same lane; False if the last thread has just ended.

        It is done here where no thread can be had any more, as at the end of the interpreter.
        """
        with self._changed:
            if _stores.get(self._store) is not self:
                return False
            queued = self._lanes.get(lane)
            if queued is not None:
                queued.append(job)
                return True
            self._lanes[lane] = deque([job])
            self._ready.append(lane)
            if self._idle >= len(self._ready):
                self._changed.notify()
                return True
            if self._threads >= MOST_THREADS:
                return True
            self._threads += 1
        try:
            threading.Thread(target=self._run, name="pyrate-limiter worker", daemon=True).start()
        except RuntimeError:
            self._work_off()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(self._ready.__len__, IDLE_SECONDS)
                self._idle -= 1
                if not self._ready:
                    self._end()
                    return
            self._do_next()

    def _work_off(self) -> None:
        while self._do_next():
            pass
        with self._changed:
            self._end()

    def _end(self) -> None:
        self._threads -= 1
        if not self._threads and not self._lanes:
            _stores.pop(self._store, None)

    def _do_next(self) -> bool:
        with self._changed:
            if not self._ready:
                return False
            lane = self._ready.popleft()
            context, call = self._lanes[lane][0]
        try:
            context.run(call)
        finally:
            with self._changed:
                queued = self._lanes[lane]
                queued.popleft()
                if queued:
                    self._ready.append(lane)
                else:
                    del self._lanes[lane]
        return True


_stores: dict[object, WorkerThreads] = {}


def submit(store: object, lane: int, call: Callable[[], object]) -> None:
    """Make a call in a thread of a store, with the context variables of now.

    Args:
        store: whose threads; anything that can be a key.
        lane: calls with the same number are made one after the other.
        call: must not raise.
    """
    job = (contextvars.copy_context(), call)
    while not _stores.setdefault(store, WorkerThreads(store)).submit(lane, job):
        pass


if hasattr(os, "register_at_fork"):  # pragma: no branch - it is the operating system's affair
    os.register_at_fork(after_in_child=_stores.clear)
