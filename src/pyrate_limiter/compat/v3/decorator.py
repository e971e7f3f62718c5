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
        admit: takes room under a name for a weight, in an event loop or not, or raises. What it
            returns is to be awaited, unless it is None.
        mapping: gives the name and the weight of each call.
    """

    def __init__(
        self, admit: Callable[[str, int, bool], Awaitable[None] | None], mapping: Mapping
    ) -> None:
        self._admit, self._mapping = admit, mapping

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make each call of the function pass through the limiter."""

        def admit(*args: P.args, **kwargs: P.kwargs) -> object:
            name, weight = self._mapping(*args, **kwargs)
            return self._admit(name, weight, False)

        async def admit_async(*args: P.args, **kwargs: P.kwargs) -> None:
            name, weight = self._mapping(*args, **kwargs)
            waiting = self._admit(name, weight, True)
            if waiting is not None:
                await waiting

        return admitted(function, admit, admit_async)
