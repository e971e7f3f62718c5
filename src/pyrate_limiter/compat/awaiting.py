"""One way of writing down what is done at once where it can be, and awaited where it must be."""

from __future__ import annotations

from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import TypeAlias

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")
    # What it is sent differs from one step to the next, as no generator can state it.
    Program: TypeAlias = Generator[object, Any, T]


def run(program: Program[T]) -> T | Awaitable[T]:
    """Run a generator, sending back to it what it yields.

    Returns:
        What it returns; or, from the first awaitable that it yields on, an awaitable of that.
    """
    answer: object = None
    while True:
        try:
            answer = program.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        if isawaitable(answer):
            return run_async(program, answer)


async def run_async(program: Program[T], step: object = None) -> T:
    """Run a generator, or the rest of it, sending back what it yields, or what that gives."""
    while True:
        try:
            try:
                answer = await step if isawaitable(step) else step
            except BaseException as error:  # noqa: BLE001 - it is the program's to handle
                step = program.throw(error)
            else:
                step = program.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result


def admitted(
    function: Callable[P, R],
    admit: Callable[P, object],
    admit_async: Callable[P, Awaitable[object]],
) -> Callable[P, R]:
    """Have each call of a function admitted before it is made.

    Args:
        function: sync or async.
        admit: called before a sync function, with its arguments. Where it returns an awaitable,
            so does the call.
        admit_async: called and awaited before a coroutine function.
    """
    if iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> object:
            await admit_async(*args, **kwargs)
            return await function(*args, **kwargs)

        return call_async  # type: ignore[return-value] # R is a coroutine here

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        asked = admit(*args, **kwargs)
        if not isawaitable(asked):
            return function(*args, **kwargs)

        async def when_admitted() -> R:
            await asked
            return function(*args, **kwargs)

        return when_admitted()  # type: ignore[return-value] # R is what it gives

    return call
