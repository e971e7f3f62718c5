"""Code that runs when it is admitted: a block, or each call of a function."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter.errors import AsyncBucketInSyncCode, RateLimitExceeded, WrongType

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from typing_extensions import ParamSpec

    from pyrate_limiter.abstracts.algorithm import Decision

    P = ParamSpec("P")
    R = TypeVar("R")

    class Acquires(Protocol):
        """What is asked of a `Limiter`."""

        def acquire(self, name: str, weight: int, *, timeout: float) -> Decision:
            """Wait until the item is admitted, or say why not."""

        async def acquire_async(self, name: str, weight: int, *, timeout: float) -> Decision:
            """`acquire` for asyncio."""

        def try_acquire(self, name: str, weight: int) -> object:
            """Wait until the item is admitted; false if it never can be, or to be awaited."""

        async def try_acquire_async(self, name: str, weight: int) -> bool:
            """`try_acquire` for asyncio."""

        def check(self, name: str, weight: int) -> Decision:
            """What `acquire` would answer now."""

        async def check_async(self, name: str, weight: int) -> Decision:
            """`check` for asyncio."""


class Admission:
    """See `Limiter.limit`."""

    __slots__ = ("_limiter", "_name", "_timeout", "_weight")

    def __init__(self, limiter: Acquires, name: str, weight: int, timeout: float) -> None:
        self._limiter = limiter
        self._name, self._weight, self._timeout = name, weight, timeout

    def _admitted(self, decision: Decision) -> Decision:
        if not decision:
            raise RateLimitExceeded(self._name, self._weight, decision)
        return decision

    def __enter__(self) -> Decision:
        return self._admitted(
            self._limiter.acquire(self._name, self._weight, timeout=self._timeout)
        )

    def __exit__(self, *_: object) -> None:
        return

    async def __aenter__(self) -> Decision:
        return self._admitted(
            await self._limiter.acquire_async(self._name, self._weight, timeout=self._timeout)
        )

    async def __aexit__(self, *_: object) -> None:
        return


def decorated(
    limiter: Acquires, name: str, weight: int, function: Callable[P, R]
) -> Callable[P, R]:
    """See `Limiter.as_decorator`."""
    from inspect import isasyncgenfunction, iscoroutinefunction  # slow to import, needed only here

    if not callable(function):
        expected = "a function: it stands below @classmethod and @property, not above"
        raise WrongType("what as_decorator decorates", function, expected)
    called = _called(function)
    wrapper: Any = _Wrappers(limiter, name, weight)
    if isasyncgenfunction(called):
        wrapper = wrapper.of_generator(function)
    elif iscoroutinefunction(called) or iscoroutinefunction(function):
        wrapper = wrapper.of_coroutine(function)
    else:
        wrapper = wrapper.of_function(function)
    return wraps(function)(wrapper)


class _Wrappers:
    """Makes what waits, and then calls: one for each kind of function."""

    def __init__(self, limiter: Acquires, name: str, weight: int) -> None:
        self._limiter = limiter
        self._name, self._weight = name, weight

    def of_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*args: Any, **kwargs: Any) -> Any:
            admitted = self._limiter.try_acquire(self._name, self._weight)
            if is_awaitable(admitted):
                discard(admitted)
                title = getattr(function, "__qualname__", repr(function))
                msg = (
                    f"Can't use async bucket with sync decorator: make {title} an `async def`, or "
                    "use a sync bucket"
                )
                raise AsyncBucketInSyncCode(msg)
            if not admitted:
                raise self._never(self._limiter.check(self._name, self._weight))
            return function(*args, **kwargs)

        return wait

    def of_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wait_async(*args: object, **kwargs: object) -> Any:
            await self._admit()
            return await function(*args, **kwargs)

        return wait_async

    def of_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wait_and_iterate(*args: object, **kwargs: object) -> Any:
            await self._admit()
            units = function(*args, **kwargs)
            step = units.asend(None)
            while True:  # there is no `yield from` for it
                try:
                    unit = await step
                except StopAsyncIteration:
                    return
                try:
                    step = units.asend((yield unit))
                except GeneratorExit:
                    await units.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - the generator may handle it
                    step = units.athrow(error)

        return wait_and_iterate

    async def _admit(self) -> None:
        if not await self._limiter.try_acquire_async(self._name, self._weight):
            raise self._never(await self._limiter.check_async(self._name, self._weight))

    def _never(self, decision: Decision) -> RateLimitExceeded:
        message = (
            f"Rate limit for {self._name!r} can never admit weight={self._weight}; call denied."
        )
        return RateLimitExceeded(self._name, self._weight, decision, message)


def _called(function: Any) -> Any:
    """What runs when it is called: of an object with a ``__call__``, that."""
    from functools import partial
    from inspect import isclass, isroutine

    while isinstance(function, partial):
        function = function.func
    return function if isroutine(function) or isclass(function) else type(function).__call__


def refuse_positional(given: tuple[Any, ...]) -> None:
    """Refuse what `Limiter.as_decorator` was given without a name, such as the function itself."""
    if given:
        expected = "given by name, and in parentheses: @limiter.as_decorator(name='search')"
        raise WrongType("the arguments of as_decorator", given[0], expected)
