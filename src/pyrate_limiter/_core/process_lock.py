"""What the locks between processes have in common: threads take turns first, and the rest polls."""

from __future__ import annotations

import inspect
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pyrate_limiter._core.fork_safe_locks import FrameLock
from pyrate_limiter.errors import ReentrantCall

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

_FIRST_PAUSE = 0.0001  # seconds between two tries
_LONGEST_PAUSE = 0.002
_BUSY_SECONDS = 2.0  # for a caller who does not wait, and so needs an answer; others hold it for µs
_AT_LEAST_SECONDS = 0.02  # at the end of a caller's time: that others are at it is no refusal
LAST_SECONDS = 0.25  # at the end of it, to confirm or cancel a reservation
_ENDLESS_MS = 1 << 52
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class ProcessLock(ABC):
    """A reentrant lock between threads and processes, which a dead process does not keep.

    A process that is suspended keeps it until it goes on or is killed.
    """

    def __init__(self) -> None:
        self.thread_lock: FrameLock = FrameLock()
        self._is_held = False  # by this process, as far as is known

    @abstractmethod
    def _try(self) -> bool:
        """Take it for this process, if that is possible at once; also where it has it already."""

    @abstractmethod
    def _free(self) -> None:
        """Let it go for this process; also where it does not have it."""

    @property
    def is_locked(self) -> bool:
        """Whether this process holds it."""
        return bool(self.thread_lock.frames)

    def acquire(
        self,
        blocking: bool = True,
        timeout: float | None = None,
        frame: FrameType | None = None,
    ) -> bool:
        """Take the lock; False if that failed.

        Args:
            blocking: whether to wait.
            timeout: for so many seconds at the most; None, or a negative number, is for ever.
            frame: the call that holds it, see `FrameLock.acquire`.

        Raises:
            ReentrantCall: this call has interrupted one that was about to take it, or to let it go.
        """
        seconds = 0.0 if not blocking else None if timeout is None or timeout < 0 else timeout
        begun = time.monotonic() if seconds else 0.0
        thread_lock = self.thread_lock
        if not thread_lock.acquire(seconds, sys._getframe()):
            return False
        try:
            if len(thread_lock.frames) > 1:
                taken = self._check_held()
            else:
                # What a lost call has left is this process's: to take it once more does no harm.
                taken = self._try()
                if not taken and seconds != 0:
                    taken = self._wait(None if seconds is None else begun + seconds)
                self._is_held = taken
            if taken:
                thread_lock.frames[-1] = frame
            else:
                thread_lock.release()
        except BaseException:
            if thread_lock.is_mine():
                self._leave()
            raise
        return taken

    def _check_held(self) -> bool:
        if not self._is_held:
            raise ReentrantCall(self)
        return True

    def _wait(self, deadline: float | None) -> bool:
        pause = _FIRST_PAUSE
        while True:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            if self._try():
                return True
            pause = min(_LONGEST_PAUSE, pause * 1.5)

    def release(self) -> None:
        """Let it go.

        Raises:
            RuntimeError: this thread does not hold it.
        """
        self.thread_lock.check_mine()
        self._leave()

    def after_fork(self) -> None:
        """In the child: the parent's hold is not ours."""
        self.thread_lock.renew()
        self._is_held = False

    def _leave(self) -> None:
        try:
            if len(self.thread_lock.frames) == 1:
                self._is_held = False
                self._free()
        finally:
            self.thread_lock.release()

    def __enter__(self) -> Self:
        self.acquire(frame=calling_frame(2))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.release()


def calling_frame(depth: int) -> FrameType | None:
    """The frame of the call so many steps up; None where it may be suspended meanwhile."""
    frame = sys._getframe(depth)
    return None if frame.f_code.co_flags & _SUSPENDABLE else frame


def lock_seconds(
    max_wait_ms: int, limit_ms: int | None = None, busy_seconds: float = _BUSY_SECONDS
) -> float | None:
    """How long a caller waits for a lock, in seconds; None is for ever.

    Args:
        max_wait_ms: how long the caller is willing to wait for its moment.
        limit_ms: how long the call itself may take; None is as long as that.
        busy_seconds: for a caller who does not wait.
    """
    if has_end(max_wait_ms, limit_ms):
        return max(_AT_LEAST_SECONDS, (max_wait_ms if limit_ms is None else limit_ms) / 1000)
    return None if max_wait_ms else busy_seconds


def has_end(max_wait_ms: int, limit_ms: int | None = None) -> bool:
    """Whether a caller waits, and not for ever: a lock that is stuck is a refusal in time."""
    return 0 < max_wait_ms < _ENDLESS_MS if limit_ms is None else limit_ms < _ENDLESS_MS
