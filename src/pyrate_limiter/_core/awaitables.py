"""The one place that asks "is it awaitable?"."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from typing_extensions import TypeIs

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Pending(Coroutine[object, object, R_co]):
    """A coroutine that closes what it awaits first, where it is closed before it has begun.

    Args:
        coroutine: what runs.
        first: what it will await first. Anything that is not awaitable is left alone.
    """

    __slots__ = ("__weakref__", "_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[object, object, R_co], first: object) -> None:
        self._coroutine = coroutine
        self._first = first

    def __await__(self) -> Generator[object, object, R_co]:
        return self._coroutine.__await__()

    def send(self, value: object) -> object:
        """Run on to the next thing that is awaited."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> object:  # an error, or its class, value and traceback
        """Raise an error where the coroutine is waiting."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End the coroutine, and what it was about to await."""
        self._coroutine.close()
        discard(self._first)


def is_awaitable(value: object) -> TypeIs[Awaitable[Any]]:  # of what, the value's own type says
    """Whether ``value`` has to be awaited before it can be used."""
    return hasattr(type(value), "__await__")


def in_event_loop() -> bool:
    """Whether an event loop is running in this thread, which must not be held up."""
    asyncio = sys.modules.get("asyncio")  # not imported: then there is no loop
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def then(value: T | Awaitable[T], use: Callable[[T], R | Awaitable[R]]) -> R | Awaitable[R]:
    """``use(value)``, at once or when ``value`` has been awaited."""
    if value.__class__ is not int and is_awaitable(value):
        return Pending(_await_then(value, use), value)
    return use(value)


async def _await_then(value: Awaitable[T], use: Callable[[T], R | Awaitable[R]]) -> R:
    result = use(await value)
    return await result if is_awaitable(result) else result


def all_of(values: list[T | Awaitable[T]]) -> list[T] | Awaitable[list[T]]:
    """The values, or an awaitable of them where some have to be awaited."""
    ready = [value for value in values if not is_awaitable(value)]
    return ready if len(ready) == len(values) else _await_all(values)


async def _await_all(values: list[T | Awaitable[T]]) -> list[T]:
    return [await value if is_awaitable(value) else value for value in values]


def named(value: T, name: str) -> T:
    """``value``; Python's warnings call it by this name, if it is a coroutine."""
    if isinstance(value, CoroutineType):
        value.__qualname__ = name
    return value


def discard(value: object) -> None:
    """Drop an awaitable that nobody will await, without a warning that it was forgotten."""
    close = getattr(value, "close", None)
    if close is not None and is_awaitable(value):
        close()
