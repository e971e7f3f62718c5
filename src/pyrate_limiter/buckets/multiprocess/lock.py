"""A lock between the threads of several processes. For POSIX systems."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from typing import Any

from pyrate_limiter._core.process_lock import ProcessLock
from pyrate_limiter.errors import SharedStorageLost

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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


class SharedLock(ProcessLock):
    """A record lock on a file: it belongs to the process, and the kernel takes it from a dead one.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False
        self.path = path

    def _try(self) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            return False
        return True

    def _free(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)

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
        lock.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
