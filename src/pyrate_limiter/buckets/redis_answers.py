"""The clients of Redis by their types, and what is read from their answers and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pyrate_limiter.abstracts.algorithm import Decision

_LONG = 1000  # characters of an error


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


def name_key(error: BaseException, key: str) -> None:
    """Let an error of the driver say which key the call was about.

    One error may be for several calls: then it names their keys, while it is short.
    """
    text, named = str(error), f"key {key!r}"
    if named not in text and len(text) < _LONG:
        error.args = (f"{text}; {named}", *error.args[1:])
