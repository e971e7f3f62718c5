"""What a bucket answers for an item that it has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.algorithms.decision import Decision

if TYPE_CHECKING:
    from typing_extensions import Self

_set = object.__setattr__


class Reservation(Decision):
    """Units that a bucket has stored for an item, for now or for a moment to come. It is true.

    Attributes:
        item: whose units they are; its ``timestamp`` is their moment, on the bucket's clock.
        wait_ms: how long its caller has yet to sleep, in milliseconds; 0 is "go now".
        handle: by what the bucket finds the units again, whatever that is; None where the item
            says enough.
    """

    __module__ = "pyrate_limiter.abstracts.reservation"

    __slots__ = ("handle", "item")

    item: RateItem
    handle: Any

    def __init__(
        self,
        item: RateItem,
        wait_ms: int = 0,
        handle: object = None,
        remaining: int | None = None,
        reset_after_ms: int | None = None,
    ) -> None:
        _set(self, "failing_rate", None)
        _set(self, "retry_after_ms", None)
        _set(self, "wait_ms", wait_ms)
        _set(self, "remaining", remaining)
        _set(self, "reset_after_ms", reset_after_ms)
        _set(self, "item", item)
        _set(self, "handle", handle)

    @classmethod
    def of(cls, item: RateItem, decision: Decision, handle: object = None) -> Reservation:
        """What is stored for an item, by a decision that admits it."""
        wait_ms, remaining = decision.wait_ms, decision.remaining
        return Reservation(item, wait_ms, handle, remaining, decision.reset_after_ms)

    @property
    def wait(self) -> float:
        """`wait_ms` in seconds."""
        return self.wait_ms / 1000

    def with_wait(self, wait_ms: int = 0) -> Reservation:
        """The same units, for whose moment the caller has yet to sleep so long."""
        if wait_ms == self.wait_ms:
            return self
        return Reservation(self.item, wait_ms, self.handle)

    def part(self, weight: int) -> Reservation:
        """So many of its units, to be cancelled. The caller sees to it that the rest is left."""
        item = RateItem(self.item.name, self.item.timestamp, weight)
        return Reservation(item, self.wait_ms, self.handle)

    def _values(self) -> tuple[object, ...]:
        item = self.item  # the handle is the bucket's affair
        return (*super()._values(), item.name, item.timestamp, item.weight)

    def __hash__(self) -> int:
        return hash(super()._values())  # without what may still change

    def __repr__(self) -> str:
        return f"Reservation({self.item}, wait_ms={self.wait_ms})"

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        own = (self.item, self.wait_ms, self.handle, self.remaining, self.reset_after_ms)
        return type(self), own
