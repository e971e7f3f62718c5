"""What is around every operation on data that processes share: the lock, and the exchange."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

from pyrate_limiter.abstracts.awaiting import in_event_loop
from pyrate_limiter.errors import SharedStorageLost

if TYPE_CHECKING:
    from types import TracebackType


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
    """

    def __init__(self, replica: Any, medium: Medium, lock: Any) -> None:
        self._replica = replica
        self._medium = medium
        self.lock = lock
        self._owner: int | None = None
        self._depth = 0
        self._stale = True
        self._process = os.getpid()

    def enter_at_once(self) -> bool:
        """Enter, unless that would hold up an event loop. False: not entered."""
        if self._is_mine():
            self._depth += 1
            return True
        if not self.lock.acquire(False):
            if in_event_loop():
                return False
            self.lock.acquire()
        self._begin()
        return True

    def __enter__(self) -> None:
        if self._is_mine():
            self._depth += 1
            return
        try:
            self.lock.acquire()
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            raise SharedStorageLost(self.lock) from error
        self._begin()

    def _is_mine(self) -> bool:
        return self._owner == threading.get_ident() and self._process == os.getpid()

    def _begin(self) -> None:
        try:
            process = os.getpid()
            # In a child that was forked while some thread of its parent was at it, nothing is sure.
            stale = self._stale or process != self._process
            self._owner, self._depth, self._process = threading.get_ident(), 1, process
            self._stale = True
            self._medium.pull(self._replica, stale)
        except BaseException:
            self._end()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        try:
            if exc_type is None:
                self._medium.push(self._replica)
                self._stale = False
        finally:
            self._end()

    def _end(self) -> None:
        self._owner = None
        self.lock.release()
