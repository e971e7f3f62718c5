"""Locks for state in this process's memory, shared between buckets and safe across fork.

A lock that another thread holds when a process forks would stay locked in the child for ever. So
there are few of them, and forking takes them all first: the child finds them free, and what they
guard in one piece.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any

# Reentrant, because a signal handler or a user's algorithm may come back to a bucket it interrupts.
_LOCKS = tuple(threading.RLock() for _ in range(16))
_turn = itertools.cycle(_LOCKS)


def shared_lock() -> Any:
    """One of the locks, in turn."""
    return next(_turn)


def _acquire_all() -> None:
    for lock in _LOCKS:
        lock.acquire()


def _release_all() -> None:
    for lock in _LOCKS:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_acquire_all, after_in_parent=_release_all, after_in_child=_release_all
    )
