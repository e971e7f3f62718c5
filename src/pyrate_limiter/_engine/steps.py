"""What an acquisition may ask of its driver, and the two drivers.

The acquisition is a generator. It yields a value, which is sent back to it as it is; an awaitable,
whose result is sent back; or one of the steps below. The drivers hold only sleep, await and lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.abstracts.awaiting import is_awaitable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from pyrate_limiter._engine.line import Place

    T = TypeVar("T")
    Program = Generator[Any, Any, T]

_POLL_SECONDS = 0.001  # between two looks at a lock that an event loop must not wait for


class Pause:
    """Sleep once, for so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Acquire:
    """Take a lock; answered by whether that succeeded within the seconds given."""

    __slots__ = ("lock", "seconds")

    def __init__(self, lock: Any, seconds: float | None = None) -> None:
        self.lock = lock
        self.seconds = seconds


class AwaitTurn:
    """Wait for the other tasks of this event loop; answered by what to release."""

    __slots__ = ("gates",)

    def __init__(self, gates: Gates) -> None:
        self.gates = gates


class Turn:
    """Wait until those before have left the line."""

    __slots__ = ("place",)

    def __init__(self, place: Place) -> None:
        self.place = place


class Work:
    """A call that may wait for a disk, a socket or a lock. ``result`` is there once it returned."""

    __slots__ = ("args", "call", "result")

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call = call
        self.args = args
        self.result: Any = None

    def run(self) -> Any:
        """Do it, here."""
        self.result = self.call(*self.args)
        return self.result


class Cleanup:
    """A step that is finished even while its task is being cancelled."""

    __slots__ = ("step",)

    def __init__(self, step: Any) -> None:
        self.step = step


class Gates:
    """A lock for each event loop that shares a limiter."""

    def __init__(self) -> None:
        import weakref

        self._gates: Any = weakref.WeakKeyDictionary()

    def here(self) -> asyncio.Lock:
        """The lock of the running loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        gate: asyncio.Lock | None = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = asyncio.Lock()
        return gate


def run_blocking(program: Program[T], sleep: Callable[[float], Any]) -> T | Coroutine[Any, Any, T]:
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
            if isinstance(step, Pause):
                sleep(step.seconds)
            elif isinstance(step, Turn):
                step.place.reach_front()
            elif isinstance(step, Work):
                answer = step.run()
            elif isinstance(step, Acquire):
                answer = step.lock.acquire(True, -1 if step.seconds is None else step.seconds)
            elif isinstance(step, AwaitTurn) or is_awaitable(step):
                return run_async(program, step)
            else:
                answer = step
        except BaseException as raised:  # noqa: BLE001 - the program gives back what it holds
            error = raised


async def run_async(program: Program[T], step: Any = None) -> T:
    """Run a program, or the rest of it, in the running event loop."""
    import asyncio

    while True:
        answer: Any = None
        error: BaseException | None = None
        try:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Turn):
                await step.place.reach_front_async()
            elif isinstance(step, Work):
                answer = await _in_thread(step)
            elif isinstance(step, Acquire):
                answer = await _poll(step)
            elif isinstance(step, AwaitTurn):
                answer = step.gates.here()
                await answer.acquire()
            elif isinstance(step, Cleanup):
                answer = await _finish(step.step)
            elif is_awaitable(step):
                answer = await step
            else:
                answer = step
        except BaseException as raised:  # noqa: BLE001 - the program gives back what it holds
            error = raised
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


async def _in_thread(work: Work) -> Any:
    """Run it in a worker thread. A cancellation is passed on when the thread has returned."""
    import asyncio

    future = asyncio.get_running_loop().run_in_executor(None, work.run)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def _poll(step: Acquire) -> bool:
    import asyncio
    import time

    deadline = None if step.seconds is None else time.monotonic() + step.seconds
    while not step.lock.acquire(False):
        if deadline is not None and time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def _finish(step: Any) -> Any:
    import asyncio

    if isinstance(step, Work):
        return await _in_thread(step)
    if is_awaitable(step):
        return await asyncio.shield(_as_coroutine(step))
    return step


async def _as_coroutine(step: Awaitable[Any]) -> Any:
    return await step
