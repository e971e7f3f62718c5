"""The one place that asks "is it awaitable?"."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
R = TypeVar("R")


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
        return _await_then(value, use)
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
    if hasattr(value, "cr_frame"):
        value.__qualname__ = name
    return value


def discard(value: object) -> None:
    """Drop an awaitable that nobody will await, without a warning that it was forgotten."""
    close = getattr(value, "close", None)
    if close is not None and is_awaitable(value):
        within = None
        if getattr(value, "cr_code", None) is _await_then.__code__ and value.cr_frame is not None:  # type: ignore[attr-defined] # it is a coroutine
            within = value.cr_frame.f_locals.get("value")  # type: ignore[attr-defined]
        close()
        discard(within)
