"""What is read from answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import Decision


def is_allowed(decision: Decision) -> bool:
    """Whether the item was admitted."""
    return decision.allowed


def wait_of(decision: Decision) -> int:
    """The decision as `AbstractBucket.waiting` answers it."""
    if decision.failing_rate is None:
        return 0
    return -1 if decision.retry_after_ms is None else decision.retry_after_ms
