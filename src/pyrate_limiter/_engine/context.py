"""Code that runs when it is admitted: a block, or each call of a function."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter.errors import AsyncBucketInSyncCode, RateLimitExceeded, WrongType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from typing import Protocol

    from typing_extensions import ParamSpec

    from pyrate_limiter.abstracts.algorithm import Decision

    P = ParamSpec("P")
    R = TypeVar("R")

    class _Limiter(Protocol):
        """What is asked of a `Limiter`."""

        def acquire(self, name: str, weight: int, *, timeout: float) -> Decision: ...
        async def acquire_async(self, name: str, weight: int, *, timeout: float) -> Decision: ...
        def try_acquire(self, name: str, weight: int) -> object: ...
        async def try_acquire_async(self, name: str, weight: int) -> bool: ...
        def check(self, name: str, weight: int) -> Decision: ...
        async def check_async(self, name: str, weight: int) -> Decision: ...


class Admission:
    """See `Limiter.limit`."""

    __slots__ = ("_limiter", "_name", "_timeout", "_weight")

    def __init__(self, limiter: _Limiter, name: str, weight: int, timeout: float) -> None:
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
    limiter: _Limiter, name: str, weight: int, function: Callable[P, R]
) -> Callable[P, R]:
    """See `Limiter.as_decorator`."""
    from inspect import isasyncgenfunction, iscoroutinefunction  # slow to import, needed only here

    if not callable(function):
        expected = "a function: it stands below @classmethod and @property, not above"
        raise WrongType("what as_decorator decorates", function, expected)
    called, gate = _called(function), _Gate(limiter, name, weight)
    its: Any = function  # a checker cannot tell of which kind it is
    wrapper: Any  # neither of that
    if isasyncgenfunction(called):
        wrapper = gate.before_iterating(its)
    elif iscoroutinefunction(called) or iscoroutinefunction(function):
        wrapper = gate.before_awaiting(its)
    else:
        wrapper = gate.before_calling(its)
    return wraps(function)(wrapper)


class _Gate:
    """Makes functions that wait, and then call another: one for each kind of function."""

    def __init__(self, limiter: _Limiter, name: str, weight: int) -> None:
        self._limiter = limiter
        self._name, self._weight = name, weight

    def before_calling(self, function: Callable[..., object]) -> Callable[..., object]:
        def wait(*args: object, **kwargs: object) -> object:
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

    def before_awaiting(
        self, function: Callable[..., Awaitable[object]]
    ) -> Callable[..., Awaitable[object]]:
        async def wait_async(*args: object, **kwargs: object) -> object:
            await self._admit()
            return await function(*args, **kwargs)

        return wait_async

    def before_iterating(
        self, function: Callable[..., AsyncGenerator[object, object]]
    ) -> Callable[..., AsyncIterator[object]]:
        async def wait_and_iterate(*args: object, **kwargs: object) -> AsyncIterator[object]:
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


def _called(function: object) -> object:
    """What runs when it is called: of an object with a ``__call__``, that."""
    from functools import partial
    from inspect import isclass, isroutine

    while isinstance(function, partial):
        function = function.func
    return function if isroutine(function) or isclass(function) else type(function).__call__


def refuse_positional(given: tuple[object, ...]) -> None:
    """Refuse what `Limiter.as_decorator` was given without a name, such as the function itself."""
    if given:
        expected = "given by name, and in parentheses: @limiter.as_decorator(name='search')"
        raise WrongType("the arguments of as_decorator", given[0], expected)
