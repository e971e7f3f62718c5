"""How somebody looks at the bucket of a name, or holds it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyrate_limiter._core.validation import check_weight
from pyrate_limiter._engine.answers import RunsPrograms
from pyrate_limiter._engine.wait_options import WaitOptions, check_seconds, holds
from pyrate_limiter._engine.wait_queue import queue_at

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.access import BucketAccess
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import RateItem

_MOST_SECONDS = 366 * 86_400  # more is a time since the epoch, taken for a length
_LOOKS = WaitOptions(blocking=False, seconds=-1, buffer_ms=None, known=True)


class Holds(RunsPrograms):
    """The methods of `Limiter` that look at a bucket, and those that hold one."""

    def check(self, name: str = "pyrate", weight: int = 1) -> Decision:
        """What `acquire` would say without waiting, and nothing is taken.

        Raises:
            AsyncBucketInSyncCode: the bucket, its clock or the factory is async.
        """
        return self._now(self._acquisition.look(name, check_weight(weight), _LOOKS), "check")

    async def check_async(self, name: str = "pyrate", weight: int = 1) -> Decision:
        """`check` for asyncio, over sync and async buckets."""
        return await self._run(self._acquisition.look(name, check_weight(weight), _LOOKS))

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


def _hold(access: BucketAccess, name: str, seconds: object) -> Program[float]:
    """See `Limiter.hold`."""
    expected = f"a number of seconds from 0 to {_MOST_SECONDS} (366 days)"
    hold_ms = math.ceil(check_seconds("seconds", seconds, expected, _MOST_SECONDS) * 1000)

    def use(item: RateItem, bucket: AbstractBucket) -> Program[float]:
        held_ms: int = yield access.work(bucket, None, bucket.hold, item, hold_ms)
        return held_ms / 1000

    return access.visit(name, 0, _LOOKS, use)


def _release_hold(access: BucketAccess, name: str) -> Program[bool]:
    """See `Limiter.release_hold`."""

    def use(item: RateItem, bucket: AbstractBucket) -> Program[bool]:
        released: bool = yield access.work(bucket, None, bucket.release_hold, item)
        if released:
            holds.released += 1  # before the look: who is about to sleep there asks once more
        queue = queue_at(bucket)
        if released and queue is not None:
            queue.look_again()
        return bool(released)

    return access.visit(name, 0, _LOOKS, use, looks=True)
