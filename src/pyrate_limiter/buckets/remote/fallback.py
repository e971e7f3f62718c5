"""The bucket that takes the server's place while it is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pyrate_limiter.abstracts.rate import Rate


class Spare:
    """An item that a spare bucket has judged in the server's stead.

    Args:
        bucket: the spare bucket.
        item: the item in it.
        decision: what it said.
    """

    __slots__ = ("bucket", "decision", "item")

    def __init__(self, bucket: AbstractBucket, item: RateItem, decision: Decision) -> None:
        self.bucket: AbstractBucket = bucket
        self.item: RateItem = item
        self.decision: Decision = decision

    def settle(self, patience_ms: int) -> Generator[Any, Any, Decision]:
        """See `AbstractBucket.settle`."""
        now: Any = self.bucket.now()
        now = (yield now) if is_awaitable(now) else now
        verdict: Any = self.bucket.settle(self.item, now, patience_ms)
        self.decision = (yield verdict) if is_awaitable(verdict) else verdict
        return self.decision

    def release(self) -> Generator[Any, Any, bool]:
        """See `AbstractBucket.release`."""
        released = self.bucket.release(self.item)
        return bool((yield released) if is_awaitable(released) else released)

    def pause(self) -> float:
        """See `AbstractBucket.pause`."""
        return self.bucket.pause(self.item, self.decision)


def stand_in(
    owner: Any, rates: Sequence[Rate], item: RateItem, patience_ms: int, buffer_ms: int | None
) -> Generator[Any, Any, tuple[Decision, Spare | None]]:
    """Judge an item without the server, as the policy says; a patience of -1 only looks.

    Args:
        owner: a bucket or store: its ``_server``, and its ``_fallback``, made here when first used.
        rates: the limits.
        item: what it asks for; it is left as it is.
        patience_ms: see `AbstractBucket.claim`.
        buffer_ms: see `AbstractBucket.claim`.
    """
    outage = owner._server.outage
    policy = outage.policy
    if policy == "allow":
        return ADMITTED, None
    if policy == "deny":
        return Decision(rates[0], outage.retry_ms()), None
    if owner._fallback is None:
        owner._fallback = policy if isinstance(policy, AbstractBucket) else policy(rates)
    bucket: AbstractBucket = owner._fallback
    now: Any = bucket.now()
    now = (yield now) if is_awaitable(now) else now
    copy = RateItem(item.name, now, item.weight)
    if patience_ms < 0:
        verdict: Any = bucket.check(copy)
    else:
        verdict = bucket.claim(copy, patience_ms, buffer_ms)
    decision: Decision = (yield verdict) if is_awaitable(verdict) else verdict
    return decision, Spare(bucket, copy, decision)
