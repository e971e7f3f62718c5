"""Locks for state in this process's memory: one for each object, and free after a fork.

Two methods of an ``RLock`` that Python keeps for its own modules are called here, and nowhere
else: ``_is_owned`` and ``_at_fork_reinit``. With a lock of our own around a ``threading.Lock`` in
its place an acquisition in memory takes 40 % longer when it is admitted, 47 % when it is denied,
and 26 % with GCRA; and an exception could come between the lock and the note of who has it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from pyrate_limiter.errors import ReentrantCall

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import FrameType, TracebackType
    from typing import Protocol, TypeAlias

    RLock: TypeAlias = Any  # its type in the stubs does not have the two methods

    class Owner(Protocol):
        """An object that makes steps as a whole."""

        _lock: AbstractContextManager[object]

        def _restore(self, before: Any, /) -> None:  # what it has given to `Whole`
            """Be again what it was before."""


_LOOK_SECONDS = 0.05  # between two looks whether a lock is still held by a call that goes on

_AT_ONCE = (False,)

_LOCKS: weakref.WeakSet[RLock] = weakref.WeakSet()


def shared_lock() -> threading.RLock:
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
        owner: has the lock in ``_lock``. For the time of the step a `Busy` stands in for it.
        before: what ``owner._restore`` takes to undo the step.
    """

    __slots__ = ("_around", "before", "lock", "owner")

    def __init__(self, owner: Owner, before: object) -> None:
        self.owner: Owner = owner
        self.before: object = before
        self._around = around = owner._lock  # a step may be made of others
        self.lock: RLock = around.lock if type(around) is Busy else around

    def __enter__(self) -> None:
        self.owner._lock = Busy(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.owner._restore(self.before)
        self.owner._lock = self._around


class Busy:
    """Stands in for a lock while its holder is in the middle of a step."""

    __slots__ = ("_step", "lock")

    def __init__(self, step: Whole) -> None:
        self._step = step
        self.lock: RLock = step.lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock when the step is over."""
        lock, step = self.lock, self._step
        if lock._is_owned():
            raise ReentrantCall(step.owner)
        taken = False
        try:
            taken = bool(lock.acquire(blocking, timeout))
            while taken and type(step.owner._lock) is Busy:
                # A thread was interrupted before it could undo its step, or is not here.
                step.owner._lock._step.__exit__(None, ReentrantCall(step.owner), None)
        except BaseException:
            if lock._is_owned():
                lock.release()
            raise
        return taken

    def release(self) -> None:
        """Let it go."""
        self.lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


class FrameLock:
    """A reentrant lock between threads that does not stay with a call that is over.

    An exception that comes from nowhere, Ctrl-C for one, may keep a call from releasing what it
    holds, wherever it tries to. So a holder says which call it is by its frame; when that has ended
    all the same, the lock is free for the next one.
    """

    __slots__ = ("_between", "_lock", "_owner", "frames")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start anew in a forked child, where the threads that may have held it are not."""
        self._lock = threading.Lock()
        self._owner = 0
        # By thread, a call that takes it or lets it go, and whether it has the lock.
        self._between: dict[int, tuple[FrameType, list[bool]]] = {}
        self.frames: list[FrameType | None] = []
        """Of the calls that hold it, one for each time that it was taken; None: not known."""

    @property
    def frame(self) -> FrameType | None:
        """The call that holds it."""
        return self.frames[-1]

    def is_mine(self) -> bool:
        """Whether a call of this thread holds it."""
        if self._owner != threading.get_ident():
            return False
        self._free_if_lost()
        return self._owner == threading.get_ident()

    def acquire(self, seconds: float | None, frame: FrameType | None = None) -> bool:
        """Take it; False if that failed within so many seconds, None for ever.

        Args:
            seconds: how long to wait.
            frame: the call after which it is free in any case. None: only `release` frees it.

        Raises:
            ReentrantCall: this call has interrupted one that was about to take it, or to let it go.
        """
        me = threading.get_ident()
        if self._owner == me and self.is_mine():
            self.frames.append(frame)
            return True
        before = self._between.get(me)
        if before is not None and any(before[1]) and not has_ended(before[0]):
            raise ReentrantCall(self)
        got: list[bool] = []
        self._between[me] = sys._getframe(), got
        try:
            # Nothing comes between the lock and the note of it: that is not a call of Python.
            got[:] = map(self._lock.acquire, _AT_ONCE)
            if not (got[0] or self._wait(got, seconds)):
                return False
            self.frames = [frame]
            self._owner = me
        except BaseException:
            if got and got[0]:
                self._let_go()
            raise
        finally:
            if before is None:
                self._between.pop(me, None)
            else:  # that of a call which this one has interrupted
                self._between[me] = before
        return True

    def _wait(self, got: list[bool], seconds: float | None) -> bool:
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            self._free_if_lost()
            left = _LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            got[:] = map(self._lock.acquire, (True,), (min(max(left, 0.0), _LOOK_SECONDS),))
            if got[0] or left <= 0:
                return got[0]

    def release(self) -> None:
        """Let it go.

        Raises:
            RuntimeError: this thread does not hold it.
        """
        self.check_mine()
        if len(self.frames) > 1:
            self.frames.pop()
        else:
            self._let_go()

    def __enter__(self) -> None:
        self.acquire(None, sys._getframe(1))

    def __exit__(self, *_: object) -> None:
        self.release()

    def check_mine(self) -> None:
        """Raise unless this thread holds it."""
        if self._owner != threading.get_ident():
            msg = "cannot release a lock that this thread does not hold"
            raise RuntimeError(msg)

    def _let_go(self) -> None:
        lock, me = self._lock, threading.get_ident()
        self._between[me] = sys._getframe(), [True]
        self._owner = 0
        self.frames = []
        lock.release()
        self._between.pop(me, None)

    def _free_if_lost(self) -> None:
        frames, owner = self.frames, self._owner
        if not owner:
            return
        alive = [frame for frame in frames if not has_ended(frame)]
        if self.frames is frames and self._owner == owner:
            # From here to the end nothing else runs.
            if alive:
                self.frames = alive
            else:
                self._owner = 0
                self._lock.release()


def has_ended(frame: FrameType | None) -> bool:
    """Whether a call is over; False where it is not known."""
    if frame is None:
        return False
    try:
        frame.clear()
    except RuntimeError:  # it is being executed
        return False
    return True
