"""A lock between the threads of several processes. For POSIX systems."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from operator import attrgetter
from typing import TYPE_CHECKING

from pyrate_limiter._core.process_lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable

with contextlib.suppress(ImportError):  # Windows
    import fcntl


def is_supported() -> bool:
    """Whether this system has record locks."""
    return "fcntl" in globals()


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

    A process may have one only for each file: to close a second one would let go of the first.

    Args:
        path: the file.
        owner: has it as its ``lock``. A copy in another process is that of the owner's copy.
    """

    def __init__(self, path: str, owner: object) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False
        self._owner = owner
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

    def __reduce__(self) -> tuple[Callable[[object], object], tuple[object]]:
        return attrgetter("lock"), (self._owner,)
