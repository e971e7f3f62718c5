"""What every built-in bucket checks and computes the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.errors import InvalidTimestamp, InvalidWeight, WrongType

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.rate import RateItem

LARGEST_PAD_MS = 50
BEGINNING = -(1 << 62)
"""Before every timestamp that can be stored, in ms."""
FOREVER = 1 << 62
"""After every timestamp that can be stored, in ms."""


class Unread(int):
    """A time that was read early: the step that admits the item reads it itself."""

    __slots__ = ()


def check_item(item: RateItem) -> None:
    """Refuse what cannot be stored, before anything is changed.

    Raises:
        InvalidWeight: the weight is negative.
        InvalidTimestamp: the timestamp is no whole number of ms, or out of all bounds.
        WrongType: the weight is no whole number.
    """
    check_weight(item.weight)
    stamp = item.timestamp
    if not isinstance(stamp, int) or not BEGINNING < stamp < FOREVER:
        raise InvalidTimestamp(stamp)


def check_weight(weight: int) -> None:
    """Refuse a weight that is negative or no whole number."""
    if not isinstance(weight, int):
        raise WrongType("item's weight", weight, "a whole number")
    if weight < 0:
        raise InvalidWeight(weight)


def pad_ms(interval_ms: int) -> int:
    """What is kept clear after the earliest moment of a wait, unless the caller chose it.

    5 % of the failing interval, at most 50 ms: enough to stay clear of a server's edge at 1 s, and
    not more than a short interval can bear.
    """
    return min(LARGEST_PAD_MS, interval_ms // 20)
