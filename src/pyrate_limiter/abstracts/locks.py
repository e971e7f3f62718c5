"""Locks for state in this process's memory: one for each object, and free after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from pyrate_limiter.errors import ReentrantCall

if TYPE_CHECKING:
    from types import TracebackType

_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()


def shared_lock() -> Any:
    """A new lock between threads, for the use of one object.

    In a forked child it is free, whoever held it in the parent. So what it guards has to be whole
    at every moment at which another thread may run: a change is prepared first, and then made by
    assignments without a call in between.
    """
    # Reentrant, because a signal handler may come back to the object that it has interrupted.
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


def _free_all() -> None:
    for lock in list(_LOCKS):
        if not lock._is_owned():  # the thread that has forked goes on, and will release its own
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)


class Whole:
    """A step that is made as a whole, or not at all. Its user holds the lock of ``owner``.

    An exception, Ctrl-C included, undoes it. A call that comes out of its middle, from a signal
    handler or a ``__del__`` of the same thread, gets a `ReentrantCall`.

    Args:
        owner: has the lock in ``_lock``. For the time of the step a `_Busy` stands in for it.
        before: what ``owner._restore`` takes to undo the step.
    """

    __slots__ = ("before", "lock", "owner")

    def __init__(self, owner: Any, before: Any) -> None:
        self.owner, self.lock, self.before = owner, owner._lock, before

    def __enter__(self) -> None:
        self.owner._lock = _Busy(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.owner._restore(self.before)
        self.owner._lock = self.lock


class _Busy:
    """Stands in for a lock while its holder is in the middle of a step."""

    __slots__ = ("_step", "lock")

    def __init__(self, step: Whole) -> None:
        self._step = step
        self.lock = step.lock

    def __enter__(self) -> None:
        lock, step = self.lock, self._step
        if lock._is_owned():
            raise ReentrantCall(step.owner)
        try:
            lock.acquire()
            if step.owner._lock is self:
                # The thread was interrupted before it could undo its step, or is not here.
                step.__exit__(None, ReentrantCall(step.owner), None)
        except BaseException:
            if lock._is_owned():
                lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self.lock.release()
