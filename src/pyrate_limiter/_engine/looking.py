"""What is said to those who only look, and to those who find others waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._engine.wait_queue import queue_at
from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog, StateAlgorithm

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.access import BucketAccess
    from pyrate_limiter._engine.wait_options import Terms
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import Rate, RateItem


def look(access: BucketAccess, name: str, weight: int, terms: Terms) -> Program[Decision]:
    """What the item's bucket would say, without taking anything."""

    def use(item: RateItem, bucket: AbstractBucket) -> Program[Decision]:
        queue = queue_at(bucket)
        if queue is not None and weight:
            return (yield from behind(access, bucket, queue.units, item, terms))
        decision: Decision = yield access.work(bucket, None, bucket.check, item)
        return decision

    return access.visit(name, weight, terms, use, looks=True)


def behind(
    access: BucketAccess, bucket: AbstractBucket, before: int, item: RateItem, terms: Terms
) -> Program[Decision]:
    """A refusal for somebody who stands behind ``before`` units of others.

    One who wants to know is told when the item fits at the earliest. ``retry_after_ms`` is a lower
    bound: others may still come from other processes. In every interval no more than ``limit``
    units pass. So where more are wanted than the bucket ever admits at once, the bucket is asked
    about what is left of them when whole intervals are taken off.
    """
    rates, algorithm = bucket.rates, bucket._algorithm
    if not terms.known:
        return Decision(rates[0], 0)
    most = min(algorithm.max_weight(rate) for rate in rates)
    units = before + item.weight
    asked = units
    if item.weight <= most < units:
        asked = (units - 1) % most + 1 if isinstance(algorithm, SlidingWindowLog) else most
    look = yield from access.item(bucket, item.name, asked)
    said: Decision = yield access.work(bucket, None, bucket.check, look)
    failing_rate = said.failing_rate or rates[0]
    if item.weight > most:
        return Decision(failing_rate, None, 0, said.remaining, said.reset_after_ms)
    further = max(_further_ms(algorithm, rate, units - asked) for rate in rates)
    retry = max(1, (said.retry_after_ms or 0) + further)
    return Decision(failing_rate, retry, 0, 0, said.reset_after_ms)


def _further_ms(algorithm: object, rate: Rate, units: int) -> int:
    """How much later so many more units fit, at least."""
    if isinstance(algorithm, SlidingWindowLog):
        return units // rate.limit * (rate.interval + 1)
    flow = units * rate.interval // rate.limit
    # A log of another kind may admit one limit more across the edge of a window.
    return flow if isinstance(algorithm, StateAlgorithm) else max(0, flow - rate.interval)
