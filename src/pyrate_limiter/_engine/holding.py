"""How the bucket of a name is held, and released."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.validation import number_of
from pyrate_limiter._engine.looking import to_look_at
from pyrate_limiter._engine.queues import queue_at, unwrapped
from pyrate_limiter._engine.steps import ON_LOOP
from pyrate_limiter._engine.wait_options import Terms, holds
from pyrate_limiter.errors import BucketRetired, OutOfRange, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.acquisition import Acquisition
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import RateItem

R = TypeVar("R")

_MOST_SECONDS = 366 * 86_400  # more is a time since the epoch, taken for a length
_TERMS = Terms(blocking=False, seconds=-1, buffer_ms=None, known=True)


class Holds:
    """The methods of `Limiter` that hold."""

    if TYPE_CHECKING:
        _acquisition: Acquisition

        def _now(self, program: Program[R], method: str) -> R: ...

        def _run(self, program: Program[R]) -> Awaitable[R]: ...

    def hold(self, name: str, seconds: float) -> float:
        """Admit nothing under a name for some time: a server has asked for that, for example.

        It holds the bucket that the name leads to, and so for all names that share this, in all
        processes that do. Whoever wants to wait waits on; others are refused, and told when it is
        over. It takes no units. A hold that already stands, and for longer, is left as it is.

        Args:
            name: as for `try_acquire`.
            seconds: from now on; 0 to 31,622,400, which are 366 days.

        Returns:
            Seconds until the hold that stands now is over.

        Raises:
            WrongType: ``seconds`` is no number.
            OutOfRange: it is negative or too large.
            CannotHold: the bucket is a user's own, and has no `AbstractBucket.hold`.
            AsyncBucketInSyncCode: the bucket, its clock or the factory is async.
        """
        return self._now(_hold(self._acquisition, name, seconds), "hold")

    async def hold_async(self, name: str, seconds: float) -> float:
        """`hold` for asyncio, over sync and async buckets."""
        return await self._run(_hold(self._acquisition, name, seconds))

    def release_hold(self, name: str) -> bool:
        """End a hold; False if none stands.

        Those who wait in this process go on at once; those in others when they ask next, which may
        be when the hold would have been over.

        Raises:
            CannotHold: as for `hold`.
            AsyncBucketInSyncCode: the bucket, its clock or the factory is async.
        """
        return self._now(_release_hold(self._acquisition, name), "release_hold")

    async def release_hold_async(self, name: str) -> bool:
        """`release_hold` for asyncio, over sync and async buckets."""
        return await self._run(_release_hold(self._acquisition, name))


def _hold(acquisition: Acquisition, name: str, seconds: object) -> Program[float]:
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


def _release_hold(acquisition: Acquisition, name: str) -> Program[bool]:
    """See `Limiter.release_hold`."""
    while True:
        item, bucket = yield from to_look_at(acquisition, name, 0, _TERMS)
        try:
            released = yield from _told(acquisition, bucket, "release_hold", item)
        except BucketRetired:
            continue
        if released:
            holds.released += 1  # before the look: who is about to sleep there asks once more
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
