"""Running programs: one driver that blocks, and one that awaits.

A program is a generator. It yields an `Effect`, which knows how to be done in a thread and in an
event loop; an awaitable, whose result is sent back; or a plain value, which is sent back as it is.
An error of any of them is raised in the program, which may have something to give back. So each
program is written once, for sync and for async callers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyrate_limiter._core.awaitables import Pending, discard, is_awaitable
from pyrate_limiter.errors import AsyncBucketInSyncCode

R_co = TypeVar("R_co", covariant=True)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    T = TypeVar("T")
    # It yields an effect, an awaitable or a plain value, and is sent what comes of it: a type that
    # differs from one to the next, as no generator can state it.
    Program = Generator[object, Any, T]


class Effect(Generic[R_co]):
    """What a program asks its driver for. This one can only be done in an event loop.

    No abstract class: those take longer to tell what is one.
    """

    __slots__ = ()

    awaitable: Awaitable[object] | None = None
    """What it awaits first, if it is known: that is closed where it is never begun."""

    async def wait(self) -> R_co:
        """Do it in the running event loop."""
        raise NotImplementedError


class BlockingEffect(Effect[R_co]):
    """An effect that can also be done where there is no event loop."""

    __slots__ = ()

    def block(self) -> R_co:
        """Do it in this thread."""
        raise NotImplementedError


class Sleep(BlockingEffect[None]):
    """Sleep for so many seconds, with what the driver was given for it."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds

    async def wait(self) -> None:
        """Sleep in the event loop."""
        import asyncio

        await asyncio.sleep(self.seconds)


def run_blocking(
    program: Program[T], sleep: Callable[[float], object] = time.sleep
) -> T | Pending[T]:
    """Run a program in this thread, or return what runs the rest of it where it must be awaited."""
    answer: object = None
    error: BaseException | None = None
    while True:
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            result: T = done.value
            return result
        answer = error = None
        try:
            if isinstance(step, BlockingEffect):
                answer = sleep(step.seconds) if isinstance(step, Sleep) else step.block()
            elif isinstance(step, Effect) or is_awaitable(step):
                first = step.awaitable if isinstance(step, Effect) else step
                return Pending(run_async(program, step), first)
            else:
                answer = step
        except BaseException as raised:  # noqa: BLE001 - the program gives back what it holds
            error = raised


def at_once(
    program: Program[T],
    message: str,
    *values: object,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Run a program where nothing can be awaited.

    Raises:
        AsyncBucketInSyncCode: something would have to be. It says ``message``, formatted with the
            ``values``.
    """
    outcome = run_blocking(program, sleep)
    if isinstance(outcome, Pending):
        discard(outcome)
        raise AsyncBucketInSyncCode(message.format(*values))
    return outcome


async def run_async(program: Program[T], step: object = None) -> T:
    """Run a program, or the rest of it from ``step`` on, in the running event loop."""
    while True:
        answer: object = None
        error: BaseException | None = None
        try:
            if isinstance(step, Effect):
                answer = await step.wait()
            elif step is not None:
                answer = await step if is_awaitable(step) else step
        except BaseException as raised:  # noqa: BLE001 - the program gives back what it holds
            error = raised
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            result: T = done.value
            return result
