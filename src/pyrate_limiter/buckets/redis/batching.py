"""The threads that call one script on one key, who share its calls."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from pyrate_limiter._core.fork_safe_locks import shared_lock
from pyrate_limiter._core.worker_threads import in_worker
from pyrate_limiter.buckets.redis.errors import interrupted
from pyrate_limiter.buckets.redis.request import fitting, parts_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pyrate_limiter.buckets.redis.request import Answer, Request
    from pyrate_limiter.buckets.redis.sending import Sender

_AT_ONCE = 2  # calls under way: with one, two threads would only wait for each other


class _Caller:
    """A thread that waits for a call that another makes, or for its turn to make that of others."""

    __slots__ = ("answer", "behind", "error", "request", "woken")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.behind: list[_Caller] | None = None  # whose requests it is to send with its own
        self.woken = threading.Lock()
        self.woken.acquire()


class ThreadBatcher:
    """Threads that ask while others are at it gather for one call, made by the first of them.

    So the steps reach the server in the order in which their callers came. A caller with a time
    limit leaves its call to a helper thread, and goes when its time is up. A key takes no room here
    but while it is called.

    Args:
        sender: makes the calls.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._lock = shared_lock()
        self._pid = os.getpid()
        # By the group of the requests.
        self._under_way: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, list[_Caller]] = {}

    def ask(self, request: Request) -> Answer:
        """The answer to a request."""
        group = request.group
        with self._lock:
            calls = self._under_way.get(group, 0)
            if calls >= _AT_ONCE and self._pid != os.getpid():
                # The threads that were at it are not in this process.
                self._pid, calls = os.getpid(), 0
                self._under_way.clear()
                self._waiting.clear()
            caller = None
            if calls < _AT_ONCE:
                self._under_way[group] = calls + 1
            else:
                caller = _Caller(request)
                self._waiting.setdefault(group, []).append(caller)
        if caller is None and request.limit is None:
            try:
                return self._sender.send((request,))
            finally:
                self._pass_on(group)
        if caller is None:
            caller = _Caller(request)
            caller.behind = []
        return self._wait(caller)

    def _wait(self, caller: _Caller) -> Answer:
        limit = caller.request.limit
        end = None if limit is None else time.monotonic() + limit
        try:
            if caller.behind is None:
                self._sleep(caller, end)
            if caller.behind is not None:
                batch, caller.behind = [caller, *caller.behind], None
                if end is None or not in_worker(lambda: self._call(batch)):
                    self._call(batch)
                else:
                    self._sleep(caller, end)
        except BaseException:
            self._give_up(caller)
            raise
        if caller.answer is None:
            raise caller.error or interrupted()
        return caller.answer

    def _sleep(self, caller: _Caller, end: float | None) -> None:
        left = -1.0 if end is None else max(0.0, end - time.monotonic())
        if not caller.woken.acquire(timeout=left):
            raise self._sender.too_slow(caller.request)

    def _call(self, batch: list[_Caller]) -> None:
        requests = [caller.request for caller in batch]
        late: list[tuple[Request, Answer]] = []
        try:
            parts = parts_of(self._sender.send(requests), requests)
            with self._lock:
                for caller, answer in zip(batch, parts):
                    caller.answer = answer
                    if caller.request.gone:
                        late.append((caller.request, answer))
        except Exception as error:  # noqa: BLE001 - it belongs to each of them
            for caller in batch:
                caller.error = error
        finally:
            self._pass_on(requests[0].group)
            for caller in batch:
                caller.woken.release()
        for request, answer in late:
            self._undo(request, answer)

    def _undo(self, request: Request, answer: Answer) -> None:
        """Give back what a request has stored by an answer that came too late."""
        undo = request.undone(answer)
        if undo is not None:
            self._sender.send((undo,))

    def _pass_on(self, group: Hashable) -> None:
        """Let the first who waits make the next call."""
        with self._lock:
            waiting = self._waiting.pop(group, None)
            if waiting is None:
                calls = self._under_way.pop(group, 1) - 1
                if calls > 0:
                    self._under_way[group] = calls
                return
            most = fitting([caller.request for caller in waiting])
            first, first.behind = waiting[0], waiting[1:most]
            if len(waiting) > most:
                self._waiting[group] = waiting[most:]
        first.woken.release()

    def _give_up(self, caller: _Caller) -> None:
        """The caller was interrupted while it waited, or its time was up."""
        group = caller.request.group
        with self._lock:
            caller.request.gone = True
            waiting = self._waiting.get(group, [])
            if caller in waiting:
                waiting.remove(caller)
                if not waiting:
                    del self._waiting[group]
                return
            answer, behind = caller.answer, caller.behind
            if behind:
                self._waiting[group] = [*behind, *waiting]
        if behind is not None:  # it was to make the next call
            self._pass_on(group)
        elif answer is not None:
            self._undo(caller.request, answer)
