"""Running a program of a backend: a generator that yields steps and is sent what they gave.

An exception of a step is raised in the program, which may have something to give back. The
limiter's own programs have drivers of their own, in ``_engine``: they may change from one to the
other on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    T = TypeVar("T")
    Program = Generator[Any, Any, T]


def drive(program: Program[T], do: Callable[[Any], Any]) -> T:
    """Run a program to its end in this thread, with ``do(step)`` for each step."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        answer = error = None
        try:
            answer = do(step)
        except BaseException as raised:  # noqa: BLE001 - the program has to know
            error = raised


async def drive_async(program: Program[T], do: Callable[[Any], Awaitable[Any]]) -> T:
    """`drive` in the running event loop."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = program.send(answer) if error is None else program.throw(error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        answer = error = None
        try:
            answer = await do(step)
        except BaseException as raised:  # noqa: BLE001 - the program has to know
            error = raised
