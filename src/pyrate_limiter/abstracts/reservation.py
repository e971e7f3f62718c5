"""What a bucket answers for an item that it has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.algorithms.decision import Decision

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.rate import RateItem

_set = object.__setattr__


class Reservation(Decision):
    """Units that a bucket holds for an item, now or at a moment to come.

    Attributes:
        item: whose units they are; its ``timestamp`` is their moment, on the bucket's clock.
        wait_ms: how long its caller has yet to sleep, in milliseconds; 0 is "go now".
        handle: by what the bucket finds the units again, whatever that is; None where the item
            says enough.
    """

    __slots__ = ("handle", "item")

    item: RateItem
    handle: Any

    def __init__(
        self,
        item: RateItem,
        wait_ms: int = 0,
        handle: Any = None,
        remaining: int | None = None,
        reset_after_ms: int | None = None,
    ) -> None:
        super().__init__(None, None, wait_ms, remaining, reset_after_ms)
        _set(self, "item", item)
        _set(self, "handle", handle)
