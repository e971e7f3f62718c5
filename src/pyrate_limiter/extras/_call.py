"""How programs call a limiter, whether they run in a thread or in an event loop."""

from __future__ import annotations

from pyrate_limiter._core.driver import BlockingEffect


class LimiterCall(BlockingEffect[object]):
    """Call a method of a limiter; in an event loop, the one whose name ends in ``_async``."""

    __slots__ = ("_arguments", "_limiter", "_method", "_named")

    def __init__(self, limiter: object, method: str, *arguments: object, **named: object) -> None:
        self._limiter, self._method = limiter, method
        self._arguments, self._named = arguments, named

    def block(self) -> object:
        return getattr(self._limiter, self._method)(*self._arguments, **self._named)

    async def wait(self) -> object:
        method = getattr(self._limiter, f"{self._method}_async")
        return await method(*self._arguments, **self._named)
