"""Code that runs when it is admitted: a block, or each call of a function."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._engine.steps import abandon
from pyrate_limiter.abstracts.awaiting import is_awaitable
from pyrate_limiter.errors import AsyncBucketInSyncCode, RateLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import ParamSpec

    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.limiter import Limiter

    P = ParamSpec("P")
    R = TypeVar("R")


class Admission:
    """See `Limiter.limit`."""

    __slots__ = ("_limiter", "_name", "_timeout", "_weight")

    def __init__(self, limiter: Limiter, name: str, weight: int, timeout: float) -> None:
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


def decorated(limiter: Limiter, name: str, weight: int, function: Callable[P, R]) -> Callable[P, R]:
    """See `Limiter.as_decorator`."""
    from inspect import iscoroutinefunction  # slow to import, and only needed here

    if iscoroutinefunction(function):

        @wraps(function)
        async def wait_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            if not await limiter.try_acquire_async(name, weight):
                raise _never(name, weight, await limiter.check_async(name, weight))
            return await function(*args, **kwargs)

        return wait_async  # type: ignore[return-value] # R is a coroutine here

    @wraps(function)
    def wait(*args: P.args, **kwargs: P.kwargs) -> R:
        admitted = limiter.try_acquire(name, weight)
        if admitted is not True:
            if is_awaitable(admitted):
                abandon(admitted)
                msg = "Can't use async bucket with sync decorator"
                raise AsyncBucketInSyncCode(msg)
            raise _never(name, weight, limiter.check(name, weight))
        return function(*args, **kwargs)

    return wait


def _never(name: str, weight: int, decision: Decision) -> RateLimitExceeded:
    message = f"Rate limit for {name!r} can never admit weight={weight}; call denied."
    return RateLimitExceeded(name, weight, decision, message)
