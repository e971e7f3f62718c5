"""The lock file that programs running 4.5.1 hold around each attempt."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.sqlite_connections import tag_of
from pyrate_limiter.errors import MissingDriver

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_FIRST_PAUSE = 0.0001  # seconds between two tries
_LONGEST_PAUSE = 0.002


class SharedFileLock:
    """A lock that excludes, and is excluded by, ``filelock.FileLock`` on the same path.

    Where the system has ``flock``, that is taken directly on a file that stays open:
    ``FileLock.acquire`` does the same in many more steps, and sleeps 50 ms where it is not free.
    Reentrant, and safe to use from any thread.

    Args:
        path: the lock file; made if missing.

    Raises:
        MissingDriver: filelock is not installed.
    """

    _fd = -1
    _tag: tuple[int, int] | None = None

    def __init__(self, path: str) -> None:
        try:
            from filelock import FileLock
        except ImportError as error:
            raise MissingDriver("filelock", "filelock") from error
        self.lock_file = path
        self._fallback: Any = None if _flock() else FileLock(path, thread_local=False)
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: the parent's hold is not ours."""
        self._threads = threading.RLock()
        self._depth = 0
        self.close()

    @property
    def is_locked(self) -> bool:
        """Whether this process holds it."""
        return self._depth > 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; False if that failed within ``timeout`` seconds, -1 for ever."""
        deadline = None if timeout == -1 else time.monotonic() + timeout
        timeout = min(timeout, threading.TIMEOUT_MAX)
        if not self._threads.acquire(blocking, timeout if blocking else -1):
            return False
        try:
            pause = _FIRST_PAUSE
            while not self._depth and not self._try():
                if not blocking or (deadline is not None and time.monotonic() >= deadline):
                    self._threads.release()
                    return False
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 1.5)
        except BaseException:
            self._let_go()  # an interruption may have come right after it was taken
            self._threads.release()
            raise
        self._depth += 1
        return True

    def release(self) -> None:
        """Let it go.

        Raises:
            RuntimeError: it is not held by this thread.
        """
        if self._depth == 1:
            self._let_go()
        self._depth -= 1
        self._threads.release()

    def _let_go(self) -> None:
        if self._fallback is not None:
            self._fallback.release()
        elif self._fd >= 0:
            import fcntl

            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _try(self) -> bool:
        if self._fallback is not None:
            try:
                self._fallback.acquire(timeout=0)
            except TimeoutError:
                return False
            return True
        import fcntl

        if self._fd < 0:
            self._fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._tag = tag_of(self._fd)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if tag_of(self.lock_file) == self._tag:
            return True
        self.close()  # somebody has removed the file: a lock on what is left excludes nobody
        return False

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.close()


def _flock() -> bool:
    try:
        from fcntl import flock
    except ImportError:
        return False
    return flock is not None
