"""The threads that call one bucket, who share calls of its script."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from pyrate_limiter.abstracts.locks import shared_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.buckets.redis_steps import RedisSteps

_AT_ONCE = 2  # calls under way: with one, two threads would only wait for each other
MOST_STEPS = 500  # in one call of a script: other clients of the server wait for its end
NUMBERS = 5  # of the reply to each step


class _Caller:
    """A thread that waits for another to make its call, or for its turn to make that of others."""

    __slots__ = ("answer", "crew", "error", "step", "woken")

    def __init__(self, step: str) -> None:
        self.step = step
        self.answer: list[int] | None = None
        self.error: BaseException | None = None
        self.crew: list[_Caller] | None = None  # whose calls it is to make with its own
        self.woken = threading.Lock()
        self.woken.acquire()


class Crews:
    """Threads that ask while others are at it gather for one call, made by the first of them.

    So the steps reach the server in the order in which their callers came. A bucket takes no room
    here but while it is called.

    Args:
        interrupted: makes the error for the others when the thread that calls is interrupted.
    """

    def __init__(self, interrupted: Callable[[], Exception]) -> None:
        self._interrupted = interrupted
        self._lock = shared_lock()
        self._pid = os.getpid()
        # By the id of the bucket.
        self._under_way: dict[int, int] = {}
        self._waiting: dict[int, list[_Caller]] = {}

    def ask(self, bucket: RedisSteps, step: str) -> list[int]:
        """The answer to a step."""
        with self._lock:
            calls = self._under_way.get(id(bucket), 0)
            if calls >= _AT_ONCE and self._pid != os.getpid():
                # The threads that were at it are not in this process.
                self._pid, calls = os.getpid(), 0
                self._under_way.clear()
                self._waiting.clear()
            if calls < _AT_ONCE:
                self._under_way[id(bucket)] = calls + 1
                caller = None
            else:
                caller = _Caller(step)
                self._waiting.setdefault(id(bucket), []).append(caller)
        if caller is None:
            try:
                return bucket.evaluate(step)
            finally:
                self._pass_on(bucket)
        try:
            caller.woken.acquire()
            if caller.crew is not None:
                self._call(bucket, caller, caller.crew)
        except BaseException:
            self._give_up(bucket, caller)
            raise
        if caller.answer is None:
            raise caller.error or self._interrupted()
        return caller.answer

    def _call(self, bucket: RedisSteps, leader: _Caller, crew: list[_Caller]) -> None:
        everyone = [leader, *crew]
        try:
            reply = bucket.evaluate(*[caller.step for caller in everyone])
            for number, caller in enumerate(everyone):
                at = 1 + NUMBERS * number
                caller.answer = [reply[0], *reply[at : at + NUMBERS]]
        except Exception as error:  # noqa: BLE001 - it belongs to each of them
            for caller in everyone:
                caller.error = error
        finally:
            leader.crew = None
            self._pass_on(bucket)
            for caller in crew:
                caller.woken.release()

    def _pass_on(self, bucket: RedisSteps) -> None:
        """Let the first who waits make the next call."""
        with self._lock:
            waiting = self._waiting.pop(id(bucket), None)
            if waiting is None:
                calls = self._under_way.pop(id(bucket), 1) - 1
                if calls > 0:
                    self._under_way[id(bucket)] = calls
                return
            leader, leader.crew = waiting[0], waiting[1:MOST_STEPS]
            if len(waiting) > MOST_STEPS:
                self._waiting[id(bucket)] = waiting[MOST_STEPS:]
        leader.woken.release()

    def _give_up(self, bucket: RedisSteps, caller: _Caller) -> None:
        """The caller was interrupted while it waited."""
        with self._lock:
            waiting = self._waiting.get(id(bucket), [])
            if caller in waiting:
                waiting.remove(caller)
                if not waiting:
                    del self._waiting[id(bucket)]
                return
            if caller.crew is None:
                return
            if caller.crew:
                self._waiting[id(bucket)] = [*caller.crew, *waiting]
        self._pass_on(bucket)
