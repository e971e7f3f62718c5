"""The one place that asks "is it awaitable?"."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Pending(Coroutine[Any, Any, R_co]):
    """A coroutine that knows what it awaits first, and closes that too where it is closed before.

    Args:
        coroutine: what runs.
        first: what it will await first; anything else is left alone.
    """

    __slots__ = ("__weakref__", "_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, R_co], first: object) -> None:
        self._coroutine = coroutine
        self._first = first

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Run on to the next thing that is awaited."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it is waiting."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it, with what it was about to await."""
        self._coroutine.close()
        discard(self._first)


def is_awaitable(value: object) -> bool:
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


def then(value: Any, use: Callable[[Any], R]) -> R | Awaitable[R]:
    """``use(value)``, now or once it is there."""
    if value.__class__ is not int and is_awaitable(value):
        return Pending(_await_then(value, use), value)
    return use(value)


async def _await_then(value: Awaitable[T], use: Callable[[T], Any]) -> Any:
    result = use(await value)
    return await result if is_awaitable(result) else result


def all_of(values: list[object]) -> Any:
    """The values, or an awaitable of them where some have to be awaited."""
    return _await_all(values) if any(map(is_awaitable, values)) else values


async def _await_all(values: list[Any]) -> list[Any]:
    return [await value if is_awaitable(value) else value for value in values]


def named(value: Any, name: str) -> Any:
    """The value; if it is a coroutine, one that is called so in Python's warnings."""
    if isinstance(value, CoroutineType):
        value.__qualname__ = name
    return value


def discard(value: object) -> None:
    """Drop an awaitable that nobody will await, without a warning that it was forgotten."""
    close = getattr(value, "close", None)
    if close is not None and is_awaitable(value):
        close()
