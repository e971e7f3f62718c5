"""The threads that call one script on one key, who share its calls."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.fork_safe_locks import shared_lock
from pyrate_limiter.buckets.redis.deadline import in_helper
from pyrate_limiter.buckets.redis.request import Request, fitting, parts_of

if TYPE_CHECKING:
    from pyrate_limiter.buckets.redis.client import Server

_AT_ONCE = 2  # calls under way: with one, two threads would only wait for each other


class _Caller:
    """A thread that waits for a call that another makes, or for its turn to make that of others."""

    __slots__ = ("answer", "crew", "error", "request", "woken")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: list[int] | None = None
        self.error: BaseException | None = None
        self.crew: list[_Caller] | None = None  # whose calls it is to make with its own
        self.woken = threading.Lock()
        self.woken.acquire()


class Crews:
    """Threads that ask while others are at it gather for one call, made by the first of them.

    So the steps reach the server in the order in which their callers came. A caller with a time
    limit leaves its call to a helper thread, and goes when its time is up. A key takes no room here
    but while it is called.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = shared_lock()
        self._pid = os.getpid()
        # By what the calls begin with.
        self._under_way: dict[Any, int] = {}
        self._waiting: dict[Any, list[_Caller]] = {}

    def ask_at_once(self, head: tuple[Any, ...], step: str) -> list[int]:
        """The answer to a step that has no time limit."""
        with self._lock:
            calls = self._under_way.get(head, 0)
            if calls < _AT_ONCE:
                self._under_way[head] = calls + 1
        if calls >= _AT_ONCE:
            return self.ask(Request(head, [step], None))
        try:
            return self._server.evaluate([Request(head, [step], None)])
        finally:
            self._pass_on(head)

    def ask(self, request: Request) -> list[int]:
        """The answer to a request."""
        head = request.head
        with self._lock:
            calls = self._under_way.get(head, 0)
            if calls >= _AT_ONCE and self._pid != os.getpid():
                # The threads that were at it are not in this process.
                self._pid, calls = os.getpid(), 0
                self._under_way.clear()
                self._waiting.clear()
            caller = None
            if calls < _AT_ONCE:
                self._under_way[head] = calls + 1
            else:
                caller = _Caller(request)
                self._waiting.setdefault(head, []).append(caller)
        if caller is None and request.limit is None:
            try:
                return self._server.evaluate([request])
            finally:
                self._pass_on(head)
        if caller is None:
            caller = _Caller(request)
            caller.crew = []
        return self._wait(caller)

    def _wait(self, caller: _Caller) -> list[int]:
        limit = caller.request.limit
        end = None if limit is None else time.monotonic() + limit
        try:
            if caller.crew is None:
                self._sleep(caller, end)
            if caller.crew is not None:
                everyone, caller.crew = [caller, *caller.crew], None
                if end is None or not in_helper(lambda: self._call(everyone)):
                    self._call(everyone)
                else:
                    self._sleep(caller, end)
        except BaseException:
            self._give_up(caller)
            raise
        if caller.answer is None:
            raise caller.error or self._server.errors.ConnectionError(
                "The thread that called Redis was interrupted"
            )
        return caller.answer

    def _sleep(self, caller: _Caller, end: float | None) -> None:
        left = -1.0 if end is None else max(0.0, end - time.monotonic())
        if not caller.woken.acquire(timeout=left):
            raise self._server.too_slow(caller.request)

    def _call(self, everyone: list[_Caller]) -> None:
        requests = [caller.request for caller in everyone]
        late: list[tuple[Request, list[int]]] = []
        try:
            parts = parts_of(self._server.evaluate(requests), requests)
            with self._lock:
                for caller, answer in zip(everyone, parts):
                    caller.answer = answer
                    if caller.request.gone:
                        late.append((caller.request, answer))
        except Exception as error:  # noqa: BLE001 - it belongs to each of them
            for caller in everyone:
                caller.error = error
        finally:
            self._pass_on(requests[0].head)
            for caller in everyone:
                caller.woken.release()
        for request, answer in late:
            self._server.undo(request, answer)

    def _pass_on(self, head: Any) -> None:
        """Let the first who waits make the next call."""
        with self._lock:
            waiting = self._waiting.pop(head, None)
            if waiting is None:
                calls = self._under_way.pop(head, 1) - 1
                if calls > 0:
                    self._under_way[head] = calls
                return
            most = fitting([caller.request for caller in waiting])
            leader, leader.crew = waiting[0], waiting[1:most]
            if len(waiting) > most:
                self._waiting[head] = waiting[most:]
        leader.woken.release()

    def _give_up(self, caller: _Caller) -> None:
        """The caller was interrupted while it waited, or its time was up."""
        head = caller.request.head
        with self._lock:
            caller.request.gone = True
            waiting = self._waiting.get(head, [])
            if caller in waiting:
                waiting.remove(caller)
                if not waiting:
                    del self._waiting[head]
                return
            answer, crew = caller.answer, caller.crew
            if crew:
                self._waiting[head] = [*crew, *waiting]
        if crew is not None:  # it was to make the next call
            self._pass_on(head)
        elif answer is not None:
            self._server.undo(caller.request, answer)
