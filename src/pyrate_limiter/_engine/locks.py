"""Holding several locks at once."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class LockLike(Protocol):
    """What `combined_lock` can take: a ``threading`` or ``multiprocessing`` lock, for example."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Take the lock; False if that failed."""

    def release(self) -> None:
        """Let it go."""


@contextmanager
def combined_lock(
    locks: LockLike | Sequence[LockLike], blocking: bool, timeout: float = -1
) -> Iterator[None]:
    """Hold several locks, taken in order and released in reverse.

    Raises:
        TimeoutError: one of them could not be had within ``timeout`` seconds, or at once where
            ``blocking`` is false. Then none is held.
    """
    several: list[Any] = list(locks) if isinstance(locks, (list, tuple)) else [locks]
    deadline = None if timeout == -1 else time.monotonic() + timeout
    held: list[Any] = []
    try:
        for lock in several:
            if not blocking:
                taken = lock.acquire(False)
            elif deadline is None:
                taken = lock.acquire()
            else:
                taken = lock.acquire(True, max(0.0, deadline - time.monotonic()))
            if not taken:
                msg = "Timeout while acquiring combined lock."
                raise TimeoutError(msg)
            held.append(lock)
        yield
    finally:
        for lock in reversed(held):
            lock.release()
