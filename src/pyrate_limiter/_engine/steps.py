"""What an acquisition may ask of its driver, besides what every program may."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.driver import BlockingEffect, Effect
from pyrate_limiter._core.worker_call import OutOfTime, WorkerCall
from pyrate_limiter._engine.locks import take

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import TypeAlias

    from pyrate_limiter._engine.locks import LockLike
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.bucket import AbstractBucket

    # What a program yields where it is sent a T.
    Step: TypeAlias = Effect[T] | Awaitable[T] | T

_GRACE_SECONDS = 0.25  # in which a call that keeps to its caller's time can say what is wrong
_LOOKS = 5  # before an event loop waits for a lock as threads do, for so long at a time:
_TURN_SECONDS = 0.02
_POLL_SECONDS = 0.001  # between two looks at a lock that an event loop must not wait for


class Park(BlockingEffect[bool]):
    """Sleep in the wait queue; answered by whether somebody woke the waiter before its time."""

    __slots__ = ("seconds", "waiter")

    def __init__(self, waiter: Waiter, seconds: float | None) -> None:
        self.waiter = waiter
        self.seconds = seconds

    def block(self) -> bool:
        """Sleep in this thread."""
        return self.waiter.sleep(self.seconds)

    def wait(self) -> Coroutine[object, object, bool]:
        """Sleep in the event loop."""
        return self.waiter.sleep_async(self.seconds)


class Acquire(BlockingEffect[bool]):
    """Take a lock; answered by whether that succeeded within the seconds given.

    Args:
        lock: any lock.
        seconds: how long to wait; None is for ever.
        contended: whether threads of this process queue for it, each for a moment. An event loop
            that only looked at it now and then would never have its turn.
    """

    __slots__ = ("contended", "lock", "seconds")

    def __init__(
        self, lock: LockLike, seconds: float | None = None, *, contended: bool = False
    ) -> None:
        self.lock = lock
        self.seconds = seconds
        self.contended = contended

    def block(self) -> bool:
        """Wait for it in this thread."""
        return take(self.lock, self.seconds)

    async def wait(self) -> bool:
        """Look for it again and again in the event loop."""
        import asyncio
        import time

        deadline = None if self.seconds is None else time.monotonic() + self.seconds
        looks, wait = 0, 0.0
        while not take(self.lock, wait):
            left = math.inf if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(_POLL_SECONDS)
            looks += 1
            if self.contended and looks >= _LOOKS:
                wait = min(_TURN_SECONDS, left)
        return True


class Work(WorkerCall[T], BlockingEffect[T]):
    """A call, made in this thread, or in a worker thread under asyncio.

    Args:
        seconds: how long an event loop waits for it at the most; OutOfTime is raised then.
        bucket: see `WorkerCall`, also for what follows.
    """

    __slots__ = ("_seconds",)

    def __init__(
        self,
        seconds: float | None,
        bucket: AbstractBucket,
        call: Callable[..., T],
        *args: object,
    ) -> None:
        super().__init__(bucket, call, *args)
        self._seconds = seconds

    def block(self) -> T:
        """Do it in this thread."""
        return self.run()

    async def wait(self) -> T:
        """Do it in a worker thread."""
        seconds = None if self._seconds is None else self._seconds + _GRACE_SECONDS
        return await self.in_thread(seconds=seconds)


class Within(Effect[T]):
    """Await something for so many seconds at the most; OutOfTime is raised then."""

    __slots__ = ("awaitable", "seconds")

    def __init__(self, awaitable: Awaitable[T], seconds: float) -> None:
        self.awaitable: Awaitable[T] = awaitable
        self.seconds = seconds

    async def wait(self) -> T:
        """Await it in a task of its own."""
        import asyncio

        task = asyncio.ensure_future(self.awaitable)
        try:
            done, _ = await asyncio.wait({task}, timeout=self.seconds)
        finally:
            if not task.done():
                task.cancel()
        if not done:
            raise OutOfTime
        return task.result()


class OnLoop(Effect[None]):
    """Go on in the running event loop: what comes next has to be awaited."""

    __slots__ = ()

    async def wait(self) -> None:
        """Nothing is left to do."""


ON_LOOP = OnLoop()


class _Shielded(Effect[T]):
    """Await something that goes on even where its task is being cancelled."""

    __slots__ = ("awaitable",)

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self.awaitable: Awaitable[T] = awaitable

    async def wait(self) -> T:
        """Await it."""
        import asyncio

        return await asyncio.shield(self.awaitable)


def to_end(step: Step[T]) -> Step[T]:
    """The step of a program as one that is finished even while its task is being cancelled."""
    if isinstance(step, Work):
        step.must_run = True
    return _Shielded(step) if is_awaitable(step) else step


def sleep_is_replaced() -> bool:
    """Whether a test has put something else in the place of ``asyncio.sleep``."""
    import asyncio

    return asyncio.sleep is not asyncio.tasks.sleep
