"""Awaiting what a user's factory gives, for as long as the caller has time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.awaiting import discard, is_awaitable

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyrate_limiter._engine.steps import Program
    from pyrate_limiter._engine.terms import Terms
    from pyrate_limiter.algorithms.decision import Decision


class TimeIsUp(Exception):
    """The caller's time was over before the factory had answered."""


def verdict_of(program: Program[Decision]) -> Program[bool]:
    """Whether it was admitted, in place of the decision."""
    try:
        decision = yield from program
    except TimeIsUp:
        return False
    return decision.failing_rate is None


def within(value: Any, terms: Terms | None) -> Any:
    """A value as it is; an awaitable as one that ends with the caller's time.

    A caller who wants the whole decision waits for the factory in any case, for without the bucket
    there is none to give; so does one who takes what is free now.
    """
    if terms is None or terms._deadline is None or terms.known or terms.at_once:
        return value
    return _Within(value, (terms.limit_ms() or 0) / 1000) if is_awaitable(value) else value


class _Within:
    """Awaits something for so many seconds at the most, and then raises `TimeIsUp`."""

    __slots__ = ("_awaitable", "_seconds")

    def __init__(self, awaitable: Any, seconds: float) -> None:
        self._awaitable = awaitable
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        import asyncio

        task = asyncio.ensure_future(self._awaitable)
        try:
            await asyncio.wait([task], timeout=self._seconds)
            if not task.done():
                raise TimeIsUp
            return task.result()
        finally:
            task.cancel()

    def close(self) -> None:
        """Drop it unawaited."""
        discard(self._awaitable)
