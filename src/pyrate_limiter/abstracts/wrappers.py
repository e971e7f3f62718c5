"""A sync bucket in async clothes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.worker_call import WorkerCall
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.errors import InvalidBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import Decision

T = TypeVar("T")

__all__ = ["AbstractBucket", "BucketAsyncWrapper", "RateItem"]


class BucketAsyncWrapper(AbstractBucket):
    """Makes every method but `now` awaitable.

    A bucket whose calls may wait for a disk, a socket or a lock is called in a worker thread, so
    that the event loop never waits with it.

    Args:
        bucket: any bucket, sync or not.
    """

    is_async: bool | None = True

    def __init__(self, bucket: AbstractBucket) -> None:
        if not isinstance(bucket, AbstractBucket):
            raise InvalidBucket(bucket, "the wrapped bucket")
        self.bucket = bucket

    async def _call(
        self, method: Callable[..., T | Awaitable[T]], *args: object, **grace: float | None
    ) -> T:
        if self.bucket.blocks:
            result = await WorkerCall(self.bucket, method, *args).in_thread(**grace)
        else:
            result = method(*args)
        return await result if is_awaitable(result) else result

    @property
    def rates(self) -> list[Rate]:
        """The bucket's rates; may be assigned."""
        return self.bucket.rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        self.bucket.rates = rates

    @property
    def failing_rate(self) -> Rate | None:
        """The rate that denied the bucket's last `put`."""
        return self.bucket.failing_rate

    @failing_rate.setter
    def failing_rate(self, rate: Rate | None) -> None:
        self.bucket.failing_rate = rate

    @property
    def _algorithm(self) -> Any:  # as `AbstractBucket` has it
        return self.bucket._algorithm

    @property
    def _clock(self) -> AbstractClock:
        return self.bucket._clock

    @_clock.setter
    def _clock(self, clock: AbstractClock) -> None:
        self.bucket._clock = clock

    def now(self) -> int | Awaitable[int]:
        """The bucket's time, as the bucket gives it."""
        return self.bucket.now()

    def stamp(self) -> int | Awaitable[int]:
        return self.bucket.stamp()

    async def put(self, item: RateItem) -> bool:
        return bool(await self._call(self.bucket.put, item))

    async def put_decision(self, item: RateItem) -> Decision:
        return await self._call(self.bucket.put_decision, item)

    async def waiting(self, item: RateItem) -> int:
        return await self._call(self.bucket.waiting, item)

    async def reserve(
        self, item: RateItem, max_wait_ms: int = 0, buffer_ms: int | None = None
    ) -> Decision:
        """See `AbstractBucket.reserve`. One that is interrupted meanwhile is cancelled."""
        bucket = self.bucket
        if not bucket.blocks:
            return await self._call(bucket.reserve, item, max_wait_ms, buffer_ms)
        call = WorkerCall(bucket, bucket.reserve, item, max_wait_ms, buffer_ms)
        try:
            decision = await call.in_thread()
            return await decision if is_awaitable(decision) else decision
        except BaseException:
            late = call.afterwards(self._cancel_if_made)
            if not late and isinstance(call.result, Reservation):
                await self._call(bucket.cancel, call.result)
            raise

    def _cancel_if_made(self, decision: object) -> object:
        return isinstance(decision, Reservation) and self.bucket.cancel(decision)

    async def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        terms = (max_wait_ms, buffer_ms, not_before, limit_ms)
        return await self._call(self.bucket.reserve_several, items, *terms)

    async def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        # Whoever is interrupted cancels it next, which must not come before this has ended.
        confirm = self.bucket.confirm
        return await self._call(confirm, reservation, now, max_wait_ms, grace_seconds=None)

    async def confirm_several(
        self, reservations: Sequence[Reservation], now: int, max_wait_ms: int = 0
    ) -> list[Decision]:
        confirm = self.bucket.confirm_several
        return await self._call(confirm, reservations, now, max_wait_ms, grace_seconds=None)

    async def cancel(self, reservation: Reservation) -> bool:
        return bool(await self._call(self.bucket.cancel, reservation))

    async def cancel_several(self, reservations: Sequence[Reservation]) -> list[bool]:
        return await self._call(self.bucket.cancel_several, reservations)

    async def hold(self, item: RateItem, hold_ms: int) -> int:
        return await self._call(self.bucket.hold, item, hold_ms)

    async def release_hold(self, item: RateItem) -> bool:
        return await self._call(self.bucket.release_hold, item)

    async def check(self, item: RateItem) -> Decision:
        return await self._call(self.bucket.check, item)

    def pause(self, reservation: Reservation) -> float:
        return self.bucket.pause(reservation)

    async def leak(self, current_timestamp: int | None = None) -> int:
        return await self._call(self.bucket.leak, current_timestamp)

    async def flush(self) -> None:
        await self._call(self.bucket.flush)

    async def count(self) -> int:
        return await self._call(self.bucket.count)

    async def peek(self, index: int) -> RateItem | None:
        return await self._call(self.bucket.peek, index)

    def limiter_lock(self) -> Any:
        """The bucket's cross-process lock."""
        return self.bucket.limiter_lock()

    def close(self) -> None:
        """Close the bucket."""
        self.bucket.close()

    def _let_go(self) -> None:
        self.bucket._let_go()
