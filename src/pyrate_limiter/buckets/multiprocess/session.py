"""What is around every operation on data that processes share: the lock, and the exchange."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from pyrate_limiter._core.awaitables import in_event_loop
from pyrate_limiter._core.fork_safe_locks import has_ended
from pyrate_limiter._core.process_lock import ProcessLock, lock_seconds
from pyrate_limiter.errors import ReentrantCall, SharedStorageBusy, SharedStorageLost

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_BUSY_SECONDS = lock_seconds(0)
_AT_ONCE_SECONDS = 0.005  # a little longer than others hold the lock, as a rule


class Medium(Protocol):
    """Where the data is. Called with the lock held."""

    def pull(self, replica: Any, fresh: bool) -> None:
        """Bring the replica up to date; ``fresh``: trust nothing that is in it."""

    def push(self, replica: Any) -> None:
        """Store what has happened to the replica since `pull`."""


class Session:
    """Stands in the place of the lock of an in-memory bucket or store.

    To enter it is to take the lock of the processes and to bring the bucket, which is a replica, up
    to date; to leave it is to store what was done. An operation that raises is not stored at all.
    What an operation has left that was interrupted, wherever it was, the next one clears away.
    """

    def __init__(self, replica: object, medium: Medium, lock: Any) -> None:
        self._replica = replica
        self._medium = medium
        self.lock = lock
        self._file_lock = lock if isinstance(lock, ProcessLock) else None
        self._process = os.getpid()
        self._allowed: dict[int, float | None] = {}  # seconds to wait, by thread
        self._stale = True
        self._is_held = False
        self._reset()

    def _reset(self) -> None:
        self._depth = 0
        self._frame: FrameType | None = None  # of the operation that is under way
        self._owner = 0  # its thread

    def allow(self, seconds: float | None) -> None:
        """How long the next operation of this thread waits for the lock; None is for ever."""
        self._allowed[threading.get_ident()] = seconds

    def enter_at_once(self) -> bool:
        """Enter; False where that takes long."""
        frame = sys._getframe(1)
        return self._enter(frame, 0.0) or (
            not in_event_loop() and self._enter(frame, _AT_ONCE_SECONDS)
        )

    def __enter__(self) -> None:
        allowed = self._allowed
        seconds = allowed.pop(threading.get_ident(), _BUSY_SECONDS) if allowed else _BUSY_SECONDS
        if not self._enter(sys._getframe(1), seconds):
            place = getattr(self.lock, "path", type(self.lock).__name__)
            raise SharedStorageBusy(place, seconds or 0.0)

    def _enter(self, frame: FrameType, seconds: float | None) -> bool:
        me, process = threading.get_ident(), os.getpid()
        if self._owner == me and self._process == process:
            if frame.f_back is self._frame:  # the operation itself calls another one
                self._depth += 1
                self._frame = frame
                return True
            if not has_ended(self._frame):
                raise ReentrantCall(self._replica)
        if not self._take(seconds, frame, process):
            return False
        try:
            # In a child that was forked while some thread of its parent was at it, nothing is sure.
            stale = self._stale or process != self._process
            self._process = process
            self._stale = True
            self._depth = 1
            self._frame, self._owner = frame, me
            self._medium.pull(self._replica, stale)
        except BaseException:
            self._end()
            raise
        return True

    def _take(self, seconds: float | None, frame: FrameType, process: int) -> bool:
        if self._file_lock is not None:
            return self._file_lock.acquire(True, seconds, frame)
        if self._is_held and self._process == process and has_ended(self._frame):
            self._is_held = False
            with suppress(AssertionError, RuntimeError, ValueError):  # it had come to that
                self.lock.release()
        got: list[bool] = []
        try:
            # Nothing comes between the lock and the note of it: that is not a call of Python.
            got[:] = map(self.lock.acquire, (True,), (seconds,))
            self._is_held = got[0]
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            raise SharedStorageLost(self.lock) from error
        except BaseException:
            if got and got[0]:
                self.lock.release()
            raise
        return got[0]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            if self._depth == 1 and exc_type is None:
                self._medium.push(self._replica)
                self._stale = False
        finally:
            self._depth -= 1
            if self._depth and self._frame is not None:
                self._frame = self._frame.f_back
            else:
                self._end()

    def _end(self) -> None:
        self._reset()
        self._is_held = False
        self.lock.release()
