"""An acquisition of 3.x, step by step: each function is a program for `run`."""

from __future__ import annotations

import logging
import math
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from pyrate_limiter import AbstractBucket, BucketAsyncWrapper, RateItem
from pyrate_limiter import Limiter as CurrentLimiter
from pyrate_limiter.compat.exceptions import BucketFullException, LimiterDelayException
from pyrate_limiter.compat.v3.clocks import TimeClock
from pyrate_limiter.errors import AsyncBucketInSyncCode, InvalidBucket, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from pyrate_limiter.compat.v3.limiter import Limiter

_CLOCK = TimeClock()
_log = logging.getLogger("pyrate_limiter")


def acquire(
    limiter: Limiter,
    name: str,
    weight: int,
    in_event_loop: bool,
    first: bool | Awaitable[bool] | None,
) -> Generator[Any, Any, bool]:
    """Find the item's bucket, and admit it there.

    ``first`` is the answer to a first attempt, if there was one.
    """
    if first is not None and (yield first):
        return True
    item = yield limiter.bucket_factory.wrap_item(name, weight)
    if not hasattr(item, "timestamp"):
        raise WrongType("what the factory's wrap_item returns", item, "a RateItem")
    bucket = yield limiter.bucket_factory.get(item)
    if not isinstance(bucket, AbstractBucket):
        where = f"Invalid bucket: item: {name}: what the factory's get returns"
        raise InvalidBucket(bucket, where)
    if in_event_loop and bucket.blocks:
        bucket = BucketAsyncWrapper(bucket)
    go_on = limiter.handle_bucket_put if first is None else limiter.delay_or_raise
    return bool((yield go_on(bucket, item, in_event_loop)))


def put(
    limiter: Limiter, bucket: AbstractBucket, item: RateItem, force_async: bool
) -> Generator[Any, Any, bool]:
    """See `Limiter.handle_bucket_put`."""
    if (yield CurrentLimiter.handle_bucket_put(limiter, bucket, item, False, force_async)):
        return True
    return bool((yield limiter.delay_or_raise(bucket, item, force_async)))


def delay(
    limiter: Limiter, bucket: AbstractBucket, item: RateItem, force_async: bool
) -> Generator[Any, Any, bool]:
    """See `Limiter.delay_or_raise`."""
    called = monotonic()
    rate = bucket.failing_rate or bucket.rates[0]
    waiting = yield bucket.waiting(item)
    max_delay = limiter.max_delay
    if waiting < 0:
        if max_delay is not None:
            _log.error("Cannot fit item into bucket: item=%s, rate=%s", item, rate)
        return _refuse(limiter, BucketFullException(item, rate))
    full = BucketFullException(item, rate, waiting / 1000)
    if max_delay is None:
        return _refuse(limiter, full)
    # 3.x counts to the edge of the window, one millisecond before there is room.
    needed = max(0, waiting - 1) + limiter.buffer_ms
    if needed > max_delay:
        _log.error("Required delay too large: actual=%s, expected=%s", needed, max_delay)
        return _refuse(limiter, LimiterDelayException(item, rate, needed, int(max_delay)))
    deadline = None if math.isinf(max_delay) else called + max_delay / 1000
    wait = partial(CurrentLimiter.handle_bucket_put, limiter, bucket, item, True, force_async)
    if (yield wait(deadline)):
        return True
    _log.error("Total delay exceeded max_delay: %s", max_delay)
    if not limiter.retry_until_max_delay:
        return _refuse(limiter, full)
    waited = int(max_delay) + needed
    return _refuse(limiter, LimiterDelayException(item, rate, waited, int(max_delay)))


def _refuse(limiter: Limiter, error: BucketFullException | LimiterDelayException) -> bool:
    if limiter.raise_when_fail:
        raise error
    return False


def refusal(limiter: Limiter, name: str, weight: int) -> Generator[Any, Any, BucketFullException]:
    """Why `Limiter.try_acquire` has just answered False."""
    try:
        decision = limiter.check(name, weight)
    except AsyncBucketInSyncCode:
        decision = yield limiter.check_async(name, weight)
    wait = decision.retry_after_ms
    item = RateItem(name, _CLOCK.now(), weight)
    return BucketFullException(item, decision.failing_rate, None if wait is None else wait / 1000)
