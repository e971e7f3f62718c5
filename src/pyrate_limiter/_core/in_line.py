"""Reservations for several callers who wait in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter._core.rates import RateItem
    from pyrate_limiter.algorithms.decision import Decision


def reserve_in_line(
    items: Sequence[RateItem],
    not_before: int | None,
    reserve: Callable[[RateItem, int | None], Decision],
) -> list[Decision]:
    """Reserve for one after the other, none before the one ahead of it, until one is refused."""
    decisions: list[Decision] = []
    for item in items:
        decision = reserve(item, not_before)
        decisions.append(decision)
        if decision.failing_rate is not None:
            break
        if decision.wait_ms:
            not_before = item.timestamp
    return decisions
