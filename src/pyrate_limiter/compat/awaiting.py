"""One way of writing down what is done at once where it can be, and awaited where it must be."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

T = TypeVar("T")


def run(program: Generator[Any, Any, T]) -> T | Awaitable[T]:
    """Run a generator, sending back to it what it yields.

    Returns:
        What it returns; or, from the first awaitable that it yields on, an awaitable of that.
    """
    answer: Any = None
    while True:
        try:
            answer = program.send(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if isawaitable(answer):
            return run_async(program, answer)


async def run_async(program: Generator[Any, Any, T], step: Any = None) -> T:
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
            return done.value  # type: ignore[no-any-return]
