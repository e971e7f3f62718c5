"""The decorator of 3.x: one for many functions, with a mapping from arguments to names."""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.compat.awaiting import run, run_async
from pyrate_limiter.compat.v3.acquisition import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from typing_extensions import ParamSpec

    from pyrate_limiter.compat.v3.limiter import Limiter

    P = ParamSpec("P")
    R = TypeVar("R")
    Mapping = Callable[..., tuple[str, int]]

__all__ = ["Decorator"]


class Decorator:
    """See `Limiter.as_decorator`.

    Args:
        limiter: admits each call.
        mapping: names and weighs it.
    """

    def __init__(self, limiter: Limiter, mapping: Mapping) -> None:
        self._limiter, self._mapping = limiter, mapping

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make each call of the function pass through the limiter."""
        limiter, mapping = self._limiter, self._mapping
        if iscoroutinefunction(function):

            @wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                name, weight = mapping(*args, **kwargs)
                if not await limiter.try_acquire_async(name, weight):
                    raise await run_async(refusal(limiter, name, weight))
                return await function(*args, **kwargs)

            return limited_async  # type: ignore[return-value] # R is a coroutine here

        @wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            name, weight = mapping(*args, **kwargs)

            def call() -> Generator[Any, Any, R]:
                if not (yield limiter.try_acquire(name, weight)):
                    raise (yield from refusal(limiter, name, weight))
                return function(*args, **kwargs)

            return run(call())  # type: ignore[return-value] # to be awaited, if the bucket is async

        return limited
