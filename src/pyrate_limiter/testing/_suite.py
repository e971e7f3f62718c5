"""How the conformance suites are made: scenarios, and the kinds of things that they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.store import StateStore

    Steps = Callable[..., Awaitable[None]]
    Test = Callable[..., None]

T = TypeVar("T")


class Suite:
    """A pytest class whose tests are for one kind of thing or another.

    What is derived from a suite has only those tests that are meant for its kind: see `scenario`.
    """

    _made: list[AbstractBucket | StateStore]
    _left_out: set[str]

    def __init_subclass__(cls, *, suite: bool = False, **kwargs: object) -> None:
        """Leave out the tests of what this kind of thing does not do."""
        super().__init_subclass__(**kwargs)
        if suite:
            return  # a suite itself has all of its tests
        cls._left_out = set()
        scenarios = {
            name: test
            for base in reversed(cls.__mro__)
            for name, test in vars(base).items()
            if hasattr(test, "_kinds")
        }
        for name, test in scenarios.items():
            definer: object = next(base for base in cls.__mro__ if name in vars(base))
            if any(getattr(cls, kind) is not wanted for kind, wanted in test._kinds.items()):
                setattr(cls, name, None)
                cls._left_out.add(name)
            elif name in vars(definer).get("_left_out", ()):
                setattr(cls, name, test)  # a base class does not do it, but this one does

    async def _closing(self, steps: Steps) -> None:
        self._made = []
        try:
            await steps(self)
        finally:
            for thing in self._made:
                await get(thing.close())


def scenario(**kinds: bool) -> Callable[[Steps], Test]:
    """Make a coroutine function a test, for what is sync and for what is async alike.

    Args:
        **kinds: attributes of the suite, and what they have to be for the test to be meant.
    """

    def make(steps: Steps) -> Test:
        @wraps(steps)
        def test(self: Suite) -> None:
            asyncio.run(self._closing(steps))

        del test.__wrapped__  # pytest would call the test asynchronous
        vars(test)["_kinds"] = kinds
        return test

    return make


async def get(value: T | Awaitable[T]) -> T:
    """The value, or what it is once it was awaited."""
    return await value if isinstance(value, Awaitable) else value
