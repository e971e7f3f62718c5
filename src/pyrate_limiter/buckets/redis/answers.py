"""The clients of Redis by their types, and what is read from their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pyrate_limiter.abstracts.algorithm import Decision


class AsyncClient(Protocol):
    """A client of ``redis.asyncio``."""

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close it."""


class SyncClient(Protocol):
    """A client of ``redis``."""

    def close(self) -> None:
        """Close it."""


def is_allowed(decision: Decision) -> bool:
    """See `Decision.allowed`."""
    return decision.allowed


def wait_of(decision: Decision) -> int:
    """The decision as `AbstractBucket.waiting` answers it."""
    if decision.failing_rate is None:
        return 0
    return -1 if decision.retry_after_ms is None else decision.retry_after_ms
