"""What an acquisition may ask of its driver, and the two drivers.

The acquisition is a generator. It yields a value, which is sent back to it as it is; an awaitable,
whose result is sent back; or a `Step`, which knows how to be done in a thread and in an event loop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.worker_call import Errand, OutOfTime
from pyrate_limiter._engine.locks import take

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.bucket import AbstractBucket

    T = TypeVar("T")
    Program = Generator[Any, Any, T]
    Sleep = Callable[[float], Any]

_GRACE_SECONDS = 0.25  # in which a call that keeps to its caller's time can say what is wrong
_LOOKS = 5  # before an event loop waits for a lock as threads do, for so long at a time:
_TURN_SECONDS = 0.02
_POLL_SECONDS = 0.001  # between two looks at a lock that an event loop must not wait for


class Step:
    """Something that takes time. No abstract class: those take longer to tell what is one."""

    __slots__ = ()

    async def wait(self) -> Any:
        """Do it in the running event loop."""
        raise NotImplementedError


class BlockingStep(Step):
    """Something that can also be done where there is no event loop."""

    __slots__ = ()

    def block(self, sleep: Sleep) -> Any:
        """Do it in this thread."""
        raise NotImplementedError


class Pause(BlockingStep):
    """Sleep once, for so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def block(self, sleep: Sleep) -> None:
        """See `BlockingStep.block`."""
        sleep(self.seconds)

    async def wait(self) -> None:
        """See `Step.wait`."""
        import asyncio

        await asyncio.sleep(self.seconds)


class Park(BlockingStep):
    """Sleep in the wait queue; answered by whether somebody woke the waiter before its time."""

    __slots__ = ("seconds", "waiter")

    def __init__(self, waiter: Waiter, seconds: float | None) -> None:
        self.waiter = waiter
        self.seconds = seconds

    def block(self, sleep: Sleep) -> bool:
        """See `BlockingStep.block`."""
        del sleep
        return self.waiter.sleep(self.seconds)

    def wait(self) -> Coroutine[Any, Any, bool]:
        """See `Step.wait`."""
        return self.waiter.sleep_async(self.seconds)


class Acquire(BlockingStep):
    """Take a lock; answered by whether that succeeded within the seconds given.

    Args:
        lock: any lock.
        seconds: how long to wait; None is for ever.
        contended: whether threads of this process queue for it, each for a moment. An event loop
            that only looked at it now and then would never have its turn.
    """

    __slots__ = ("contended", "lock", "seconds")

    def __init__(self, lock: Any, seconds: float | None = None, *, contended: bool = False) -> None:
        self.lock = lock
        self.seconds = seconds
        self.contended = contended

    def block(self, sleep: Sleep) -> bool:
        """See `BlockingStep.block`."""
        del sleep
        return take(self.lock, self.seconds)

    async def wait(self) -> bool:
        """See `Step.wait`."""
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


class Work(Errand, BlockingStep):
    """An errand: done in this thread, or in a worker thread under asyncio.

    Args:
        seconds: how long an event loop waits for it at the most; OutOfTime is raised then.
        bucket: see `Errand`, also for what follows.
    """

    __slots__ = ("_seconds",)

    def __init__(
        self, seconds: float | None, bucket: AbstractBucket, call: Callable[..., Any], *args: Any
    ) -> None:
        super().__init__(bucket, call, *args)
        self._seconds = seconds

    def block(self, sleep: Sleep) -> Any:
        """See `BlockingStep.block`."""
        del sleep
        return self.run()

    async def wait(self) -> Any:
        """See `Step.wait`."""
        seconds = self._seconds
        return await self.in_thread(seconds=None if seconds is None else seconds + _GRACE_SECONDS)


class Within(Step):
    """Await something for so many seconds at the most; OutOfTime is raised then."""

    __slots__ = ("awaitable", "seconds")

    def __init__(self, awaitable: Awaitable[Any], seconds: float) -> None:
        self.awaitable = awaitable
        self.seconds = seconds

    async def wait(self) -> Any:
        """See `Step.wait`."""
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


class OnLoop(Step):
    """Go on in the running event loop: what comes next has to be awaited."""

    __slots__ = ()

    async def wait(self) -> None:
        """See `Step.wait`."""


ON_LOOP = OnLoop()


class Cleanup(Step):
    """A step that is finished even while its task is being cancelled."""

    __slots__ = ("step",)

    def __init__(self, step: Any) -> None:
        self.step = step

    async def wait(self) -> Any:
        """See `Step.wait`."""
        import asyncio

        if isinstance(self.step, Step):
            return await self.step.wait()
        if is_awaitable(self.step):
            return await asyncio.shield(_as_coroutine(self.step))
        return self.step


def run_blocking(program: Program[T], sleep: Sleep) -> T | Coroutine[Any, Any, T]:
    """Run a program in this thread, or return what runs the rest of it where it must be awaited."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        answer = error = None
        if isinstance(step, Cleanup):
            step = step.step
        try:
            if step is ON_LOOP or isinstance(step, Within) or is_awaitable(step):
                return run_async(program, step)
            answer = step.block(sleep) if isinstance(step, BlockingStep) else step
        except BaseException as raised:  # noqa: BLE001 - the program gives back what it holds
            error = raised


async def run_async(program: Program[T], step: Any = None) -> T:
    """Run a program, or the rest of it, in the running event loop."""
    while True:
        answer: Any = None
        error: BaseException | None = None
        try:
            if isinstance(step, Step):
                answer = await step.wait()
            else:
                answer = await step if is_awaitable(step) else step
        except BaseException as raised:  # noqa: BLE001 - the program gives back what it holds
            error = raised
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def sleep_is_replaced() -> bool:
    """Whether a test has put something else in the place of ``asyncio.sleep``."""
    import asyncio

    return asyncio.sleep is not asyncio.tasks.sleep


def abandon(outcome: object) -> None:
    """Drop the rest of a program that nobody will await, and what it was about to await."""
    drop_step(outcome)
    discard(outcome)


def drop_step(outcome: object) -> None:
    """Drop what the rest of a program was about to await."""
    frame = getattr(outcome, "cr_frame", None)
    step = None if frame is None else frame.f_locals.get("step")
    discard(step.awaitable if isinstance(step, Within) else step)


async def _as_coroutine(step: Awaitable[Any]) -> Any:
    return await step
