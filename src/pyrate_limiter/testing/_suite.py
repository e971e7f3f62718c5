"""How the conformance suites are made: scenarios, and the kinds of things that they are for."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import is_awaitable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Test = Callable[..., None]


class Suite:
    """A pytest class whose tests are for one kind of thing or another.

    A test that is marked with `needs` is left out of subclasses that say otherwise.
    """

    _made: list[Any]
    _left_out: set[str]

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Leave out the tests of what this kind of thing does not do."""
        super().__init_subclass__(**kwargs)
        cls._left_out = set()
        if cls.__base__ is Suite:
            return  # a suite itself has all of its tests
        suite = next(base for base in cls.__mro__ if base.__base__ is Suite)
        for name, test in vars(suite).items():
            kinds = getattr(test, "_needs", {})
            if any(getattr(cls, kind) is not wanted for kind, wanted in kinds.items()):
                setattr(cls, name, None)
                cls._left_out.add(name)
            elif kinds:
                definer: object = next(base for base in cls.__mro__ if name in vars(base))
                if name in vars(definer).get("_left_out", ()):
                    setattr(cls, name, test)  # a base class does not do it, but this one does

    async def _closing(self, steps: Callable[..., Awaitable[None]]) -> None:
        made = self._made = []
        try:
            await steps(self)
        finally:
            for thing in made:
                await get(thing.close())


def scenario(steps: Callable[..., Awaitable[None]]) -> Test:
    """Make a coroutine function a test, for what is sync and for what is async alike."""

    @wraps(steps)
    def test(self: Suite) -> None:
        asyncio.run(self._closing(steps))

    del test.__wrapped__  # pytest would call the test asynchronous
    return test


def needs(**kinds: bool) -> Callable[[Test], Test]:
    """Name the kinds, by the attributes of the suite, for which a test is meant."""

    def mark(test: Test) -> Test:
        test._needs = kinds  # type: ignore[attr-defined] # functions take attributes
        return test

    return mark


async def get(value: Any) -> Any:
    """The value, or what it is once it was awaited."""
    return await value if is_awaitable(value) else value
