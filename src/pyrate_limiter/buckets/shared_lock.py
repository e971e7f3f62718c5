"""A lock between the threads of several processes. For POSIX systems."""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from pyrate_limiter.errors import SharedStorageLost

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from types import TracebackType

_RETRY_SECONDS = 0.001


def is_supported() -> bool:
    """Whether this system has record locks."""
    return fcntl is not None


def mark_used(fd: int) -> None:
    """Let others know, as long as this file or a copy of it in a child is open, that it is used."""
    fcntl.flock(fd, fcntl.LOCK_SH)


def is_used(path: str) -> bool:
    """Whether some process has marked the file as used; True also where that cannot be told."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


class SharedLock:
    """A reentrant lock between threads and processes, which a dead process does not keep.

    It is a record lock on a file, so it belongs to the process; the threads of a process take
    turns by a lock of their own. A process that is suspended keeps it until it goes on or is
    killed.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False
        self.path = path
        self.forget()

    def forget(self) -> None:
        """Start anew in a forked child, to which the locks of its parent do not belong."""
        self.process: int = os.getpid()
        self._threads = threading.RLock()
        self._depth = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock; False if that failed.

        Args:
            block: whether to wait.
            timeout: for so many seconds at the most; None, or a negative number, is for ever.
        """
        if not block:
            return self._take_at_once()
        endless = timeout is None or timeout < 0
        deadline = None
        if endless:
            self._threads.acquire()
        else:
            deadline = time.monotonic() + timeout  # type: ignore[operator] # it is a number
            if not self._threads.acquire(timeout=timeout):  # type: ignore[arg-type]
                return False
        if not self._depth:
            try:
                taken = self._lock_file(deadline)
            except BaseException:
                self._let_go()
                raise
            if not taken:
                self._threads.release()
                return False
        self._depth += 1
        return True

    def _take_at_once(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        if not self._depth:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._threads.release()
                return False
            except BaseException:
                self._let_go()
                raise
        self._depth += 1
        return True

    def _let_go(self) -> None:
        """After an interruption, which may have come right after the lock was taken."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _lock_file(self, deadline: float | None) -> bool:
        command = fcntl.LOCK_EX if deadline is None else fcntl.LOCK_EX | fcntl.LOCK_NB
        while True:
            try:
                fcntl.lockf(self._fd, command)
            except OSError as error:
                # The kernel counts locks by process: threads that wait for two of them, each held
                # by another thread of the other process, look to it like a deadlock.
                if error.errno not in {errno.EDEADLK, errno.EACCES, errno.EAGAIN}:
                    raise
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                time.sleep(_RETRY_SECONDS)
            else:
                return True

    def release(self) -> None:
        """Let it go.

        Raises:
            RuntimeError: this thread does not hold it.
        """
        if self._depth == 1 and self._threads._is_owned():  # type: ignore[attr-defined]
            self._depth = 0
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
            self._threads.release()
            return
        self._threads.release()
        self._depth -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.release()

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return lock_of, (self.path,)


_locks: weakref.WeakValueDictionary[str, SharedLock] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def lock_of(path: str) -> SharedLock:
    """The one lock of this process on that file: to close a second one would let go of the first.

    Raises:
        SharedStorageLost: the file is gone.
    """
    with _opening:
        lock = _locks.get(path)
        if lock is None:
            try:
                lock = _locks[path] = SharedLock(path)
            except FileNotFoundError:
                raise SharedStorageLost(path) from None
        return lock


def _after_fork() -> None:
    global _opening  # noqa: PLW0603 - a thread of the parent may have held it
    _opening = threading.Lock()
    for lock in list(_locks.values()):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
