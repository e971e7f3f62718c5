"""What is said to those who only look, and to those who find others waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._engine.queues import queue_at, unwrapped
from pyrate_limiter._engine.steps import ON_LOOP
from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog, StateAlgorithm
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.acquisition import Acquisition
    from pyrate_limiter._engine.wait_options import Terms
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import Rate, RateItem


def look(acquisition: Acquisition, name: str, weight: int, terms: Terms) -> Program[Decision]:
    """What the item's bucket would say, without taking anything."""
    while True:
        item, bucket = yield from to_look_at(acquisition, name, weight, terms)
        inner = unwrapped(bucket)
        queue = queue_at(inner)
        try:
            if bucket.is_async:
                yield ON_LOOP
            if queue is not None and weight:
                return (yield from outlook_behind(acquisition, inner, queue.units, item))
            decision: Decision = yield acquisition.work(inner, None, inner.check, item)
        except BucketRetired:  # dropped by its factory after we got it
            continue
        else:
            return decision


def to_look_at(
    acquisition: Acquisition, name: str, weight: int, terms: Terms
) -> Program[tuple[RateItem, AbstractBucket]]:
    """An item and its bucket. A keyed factory makes none that lasts, for somebody who looks."""
    keyed: Any = getattr(acquisition.factory, "look", None)
    if keyed is None or not acquisition.stamps_by_bucket:
        return (yield from acquisition.route(name, weight, terms))
    bucket = keyed(name)
    item = yield from acquisition.item(bucket, name, weight)
    return item, bucket


def outlook_behind(
    acquisition: Acquisition, bucket: AbstractBucket, before: int, item: RateItem
) -> Program[Decision]:
    """A refusal that says when the item fits at the earliest, behind ``before`` units.

    ``retry_after_ms`` is a lower bound: others may still come from other processes. In every
    interval no more than ``limit`` units pass. So where more are wanted than the bucket ever admits
    at once, the bucket is asked about what is left of them when whole intervals are taken off.
    """
    rates, algorithm = bucket.rates, bucket._algorithm
    most = min(algorithm.max_weight(rate) for rate in rates)
    units = before + item.weight
    asked = units
    if item.weight <= most < units:
        asked = (units - 1) % most + 1 if isinstance(algorithm, SlidingWindowLog) else most
    look = yield from acquisition.item(bucket, item.name, asked)
    said: Decision = yield acquisition.work(bucket, None, bucket.check, look)
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
