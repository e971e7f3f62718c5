"""The decorator of 3.x: one for many functions, with a mapping from arguments to names."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter.compat.awaiting import admitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R")
    Mapping = Callable[..., tuple[str, int]]

__all__ = ["Decorator"]


class Decorator:
    """See `Limiter.as_decorator`.

    Args:
        admit: takes room under a name for a weight, or raises; it may return an awaitable.
        admit_async: the same, always awaited.
        mapping: gives the name and the weight of each call.
    """

    def __init__(
        self,
        admit: Callable[[str, int], object],
        admit_async: Callable[[str, int], Awaitable[None]],
        mapping: Mapping,
    ) -> None:
        self._admit, self._admit_async, self._mapping = admit, admit_async, mapping

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make each call of the function pass through the limiter."""

        def admit(*args: P.args, **kwargs: P.kwargs) -> object:
            name, weight = self._mapping(*args, **kwargs)
            return self._admit(name, weight)

        async def admit_async(*args: P.args, **kwargs: P.kwargs) -> None:
            name, weight = self._mapping(*args, **kwargs)
            await self._admit_async(name, weight)

        return admitted(function, admit, admit_async)
