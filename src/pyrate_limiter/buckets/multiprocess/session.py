"""What is around every operation on data that processes share: the lock, and the exchange."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from pyrate_limiter._core.awaitables import in_event_loop
from pyrate_limiter._core.fork_safe_locks import has_ended
from pyrate_limiter._core.process_lock import ProcessLock, lock_seconds
from pyrate_limiter.errors import ReentrantCall, SharedStorageBusy, SharedStorageLost

if TYPE_CHECKING:
    from types import FrameType

_BUSY_SECONDS = lock_seconds(0) or 0.0
_AT_ONCE_SECONDS = 0.005  # a little longer than others hold the lock, as a rule
_AWAY = (ConnectionError, EOFError, FileNotFoundError)  # how a manager is found to have ended


class Lock(Protocol):
    """What guards the data in all processes: a lock of `multiprocessing` or of a manager."""

    def acquire(self, blocking: bool, timeout: float | None, /) -> bool:
        """Take it within so many seconds, None for ever; False if that failed."""

    def release(self) -> None:
        """Let it go."""


class Medium(ABC):
    """Where the data is, and what there is of it in this process: a replica.

    Its methods are called with the lock held.
    """

    place: str

    @abstractmethod
    def pull(self, fresh: bool) -> None:
        """Bring the replica up to date; ``fresh``: trust nothing that is in it."""

    @abstractmethod
    def push(self) -> None:
        """Store what has happened to the replica since `pull`."""


class Session:
    """Stands in the place of the lock of an in-memory bucket or store.

    To enter it is to take the lock of the processes and to bring the bucket, which is a replica, up
    to date; to leave it is to store what was done. An operation that raises is not stored at all.
    What an operation has left that was interrupted, wherever it was, the next one clears away.
    """

    def __init__(self, replica: object, medium: Medium, lock: Lock) -> None:
        self._replica = replica
        self._medium = medium
        self.lock = lock
        self._file_lock = lock if isinstance(lock, ProcessLock) else None
        self.renew()
        _sessions.add(self)

    def renew(self) -> None:
        """Begin anew, in a child: it has nothing in hand of what a thread of its parent was at."""
        self._stale = True
        self._reset()

    def _reset(self) -> None:
        self._is_held = False  # a lock that is no `ProcessLock`
        self._depth = 0
        self._frame: FrameType | None = None  # of the operation that is under way
        self._owner = 0  # its thread

    def enter_at_once(self) -> bool:
        """Enter; False where that takes long."""
        frame = sys._getframe(1)
        return self._enter(frame, 0.0) or (
            not in_event_loop() and self._enter(frame, _AT_ONCE_SECONDS)
        )

    def __enter__(self) -> None:
        if not self._enter(sys._getframe(1), _BUSY_SECONDS):
            raise SharedStorageBusy(self._medium.place, _BUSY_SECONDS)

    def _enter(self, frame: FrameType, seconds: float | None) -> bool:
        me = threading.get_ident()
        if self._owner == me:
            if frame.f_back is self._frame:  # the operation itself calls another one
                self._depth += 1
                self._frame = frame
                return True
            if not has_ended(self._frame):
                raise ReentrantCall(self._replica)
        try:
            if not self._take(seconds, frame):
                return False
            try:
                stale, self._stale = self._stale, True
                self._depth = 1
                self._frame, self._owner = frame, me
                self._medium.pull(stale)
            except BaseException:
                self._end()
                raise
        except _AWAY as error:
            raise SharedStorageLost(self._medium.place) from error
        return True

    def _take(self, seconds: float | None, frame: FrameType) -> bool:
        if self._file_lock is not None:
            return self._file_lock.acquire(True, seconds, frame)
        if self._is_held and has_ended(self._frame):
            self._is_held = False
            with suppress(AssertionError, RuntimeError, ValueError):  # it had come to that
                self.lock.release()
        got: list[bool] = []
        try:
            # Nothing comes between the lock and the note of it: that is not a call of Python.
            got[:] = map(self.lock.acquire, (True,), (seconds,))
            self._is_held = got[0]
        except BaseException:
            if got and got[0]:
                self.lock.release()
            raise
        return got[0]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.leave(kind is None)

    def leave(self, done: bool) -> None:
        """Leave, and store what was done, if it was done as a whole.

        Raises:
            SharedStorageBusy: the process was forked meanwhile, and this is the child: the
                operation, and the lock, are the parent's.
        """
        if not self._owner:
            if done:
                raise SharedStorageBusy(self._medium.place, 0.0)
            return
        try:
            try:
                if done and self._depth == 1:
                    self._medium.push()
                    self._stale = False
            finally:
                self._depth -= 1
                if self._depth and self._frame is not None:
                    self._frame = self._frame.f_back
                else:
                    self._end()
        except _AWAY as error:
            raise SharedStorageLost(self._medium.place) from error

    def _end(self) -> None:
        self._reset()
        self.lock.release()


class Within:
    """A session, entered by a caller who waits so long for the lock; None is for ever."""

    __slots__ = ("_seconds", "_session")

    def __init__(self, session: Session, seconds: float | None) -> None:
        self._session = session
        self._seconds = seconds

    def __enter__(self) -> None:
        if not self._session._enter(sys._getframe(1), self._seconds):
            raise SharedStorageBusy(self._session._medium.place, self._seconds or 0.0)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._session.leave(kind is None)


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        session.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
