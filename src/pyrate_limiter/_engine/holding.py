"""How the bucket of a name is held, and released."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pyrate_limiter._engine.outlook import to_look_at
from pyrate_limiter._engine.queues import queue_at, unwrapped
from pyrate_limiter._engine.steps import ON_LOOP
from pyrate_limiter._engine.terms import Terms
from pyrate_limiter.abstracts.checks import number_of
from pyrate_limiter.errors import BucketRetired, OutOfRange, WrongType

if TYPE_CHECKING:
    from pyrate_limiter._engine.acquisition import Acquisition
    from pyrate_limiter._engine.steps import Program
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import RateItem

_MOST_SECONDS = 366 * 86_400  # more is a time since the epoch, taken for a length
_TERMS = Terms(blocking=False, seconds=-1, buffer_ms=None, known=True)


def hold(acquisition: Acquisition, name: str, seconds: Any) -> Program[float]:
    """See `Limiter.hold`."""
    expected = f"a number of seconds from 0 to {_MOST_SECONDS} (366 days)"
    length = number_of(seconds)
    if length is None:
        raise WrongType("seconds", seconds, expected)
    if not 0 <= length <= _MOST_SECONDS:  # which a NaN is not
        raise OutOfRange("seconds", seconds, expected)
    while True:
        item, bucket = yield from acquisition.route(name, 0, _TERMS)
        try:
            held_ms = yield from _told(acquisition, bucket, "hold", item, math.ceil(length * 1000))
        except BucketRetired:  # dropped by its factory after we got it
            continue
        return held_ms / 1000  # type: ignore[no-any-return] # as the bucket says


def release_hold(acquisition: Acquisition, name: str) -> Program[bool]:
    """See `Limiter.release_hold`."""
    while True:
        item, bucket = yield from to_look_at(acquisition, name, 0, _TERMS)
        try:
            released = yield from _told(acquisition, bucket, "release_hold", item)
        except BucketRetired:
            continue
        queue = queue_at(unwrapped(bucket))
        if released and queue is not None:
            queue.look_again()
        return bool(released)


def _told(
    acquisition: Acquisition, bucket: AbstractBucket, method: str, item: RateItem, *args: int
) -> Program[Any]:
    """What the bucket answers."""
    if bucket.is_async:
        yield ON_LOOP
    inner = unwrapped(bucket)
    return (yield acquisition.work(inner, None, getattr(inner, method), item, *args))
