"""Holding several locks at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class LockLike(Protocol):
    """What `take` can take: a lock of ``threading``, ``multiprocessing`` or ``filelock``."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Take the lock; False if that failed."""

    def release(self) -> None:
        """Let it go."""


def take(lock: LockLike, seconds: float | None) -> bool:
    """Take a lock; False if that failed within ``seconds``, None for ever, 0 at once."""
    try:
        # By name: the first argument is a flag to some locks, and the timeout to others.
        return bool(lock.acquire() if seconds is None else lock.acquire(timeout=seconds))
    except TimeoutError:  # filelock
        return False


@contextmanager
def combined_lock(
    locks: LockLike | Sequence[LockLike], blocking: bool, timeout: float = -1
) -> Iterator[None]:
    """Hold several locks, taken in order and released in reverse.

    Raises:
        TimeoutError: one of them could not be had within ``timeout`` seconds, or at once where
            ``blocking`` is false. Then none is held.
    """
    several = locks if isinstance(locks, Sequence) else [locks]
    deadline = None if timeout == -1 else time.monotonic() + timeout
    held: list[LockLike] = []
    try:
        for lock in several:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not take(lock, left if blocking else 0):
                msg = "Timeout while acquiring combined lock."
                raise TimeoutError(msg)
            held.append(lock)
        yield
    finally:
        for lock in reversed(held):
            lock.release()
