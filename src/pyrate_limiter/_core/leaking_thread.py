"""The one daemon thread that leaks, for all leakers of the process."""

from __future__ import annotations

import heapq
import os
import queue
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import Protocol

_NAME = "PyrateLimiter's Leaker"
_LONGEST_PAUSE = 3600.0  # seconds; what is due later is looked at on the way


class Leaks(Protocol):
    """A leaker, as the thread knows it."""

    serial: int
    due: float
    """When it sweeps next, on the clock of ``time.monotonic``."""

    def pause(self) -> float:
        """Seconds from one sweep to the next."""

    def has_buckets(self) -> bool:
        """Whether there is anything to sweep."""

    def sweep(self) -> None:
        """Sweep once."""

    def after_fork(self) -> None:
        """Go on in a forked child."""


def has_started(thread: threading.Thread) -> bool:
    """Start it; False where no thread can be had."""
    try:
        thread.start()
    except RuntimeError:  # there are too many, or the interpreter is about to end
        return False
    return True


class LeakingThread:
    """The thread and what it watches.

    Nothing here takes a lock: a garbage collection may call it at any line, and gevent may have
    replaced all locks and threads since the module was imported.
    """

    def __init__(self) -> None:
        # By a number that is never used again. They may go at any time.
        self._leakers: dict[int, weakref.ref[Leaks]] = {}
        self._reset()

    def _reset(self) -> None:
        self.thread: threading.Thread | None = None
        self._wake: queue.SimpleQueue[None] | None = None  # what the thread waits on
        self._news: deque[int] = deque()  # leakers that the thread does not know, or too late
        self._wakes_at = 0.0
        self._read_at = 0.0  # what the clock said when the thread looked last

    def watch(self, leaker: Leaks) -> None:
        """Sweep a leaker when it is due; also one that is watched, and due earlier now."""
        serial = leaker.serial
        if serial not in self._leakers:
            self._leakers[serial] = weakref.ref(leaker, lambda _: self.forget(serial))
        self._news.append(serial)
        if self.thread is None:
            self._start()
        elif not time.monotonic() <= self._wakes_at <= leaker.due:
            self._nudge()  # it sleeps too long, or by a time that a test has frozen or thawed since

    def forget(self, serial: int) -> None:
        """Sweep a leaker no more."""
        self._leakers.pop(serial, None)
        if not self._leakers:
            self._nudge()

    def is_watching(self, leaker: Leaks) -> bool:
        """Whether it is swept when it is due."""
        return self.thread is not None and leaker.serial in self._leakers

    def after_fork(self) -> None:
        """In the child: begin anew, for threads are not copied."""
        self._reset()
        for reference in list(self._leakers.values()):
            leaker = reference()
            if leaker is not None:
                leaker.after_fork()

    def _nudge(self) -> None:
        wake = self._wake
        if wake is not None:
            wake.put(None)

    def _start(self) -> None:
        # SimpleQueue.put may be called where a garbage collection has interrupted any other line.
        wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, args=(wake,), name=_NAME, daemon=True)
        if self.thread is None:
            self.thread, self._wake = thread, wake
            if not has_started(thread) and self._wake is wake:
                self.thread = self._wake = None  # the next limiter tries again

    def _run(self, wake: queue.SimpleQueue[None]) -> None:
        plan: list[tuple[float, int]] = []
        self._read_at = time.monotonic()
        while self._wake is wake:
            pause = self._next(plan)
            if pause is None:
                self.thread = self._wake = None
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
                leaker.due = min(leaker.due, now + leaker.pause())
                heapq.heappush(plan, (leaker.due, serial))
        while plan and self._leakers:
            due, serial = plan[0]
            leaker = self._leaker(serial)
            if leaker is None or leaker.due != due:
                heapq.heappop(plan)
                continue
            return due - now
        return None

    def _leaker(self, serial: int) -> Leaks | None:
        reference = self._leakers.get(serial)
        leaker = None if reference is None else reference()
        if leaker is not None and not leaker.has_buckets():
            self._leakers.pop(serial, None)
            return None
        return leaker

    def _sweep_first(self, plan: list[tuple[float, int]]) -> None:
        _, serial = heapq.heappop(plan)
        leaker = self._leaker(serial)
        if leaker is not None:
            with suppress(BaseException):  # what it has to say was logged
                leaker.sweep()
            leaker.due = time.monotonic() + leaker.pause()
            heapq.heappush(plan, (leaker.due, serial))


leaking_thread = LeakingThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=leaking_thread.after_fork)
