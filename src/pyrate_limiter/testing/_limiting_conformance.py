"""What a `Limiter` makes of a bucket."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter.abstracts.algorithm import FixedWindow, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.limiter import Limiter, SingleBucketFactory
from pyrate_limiter.testing._bucket_conformance import BucketSuite, limiter_on, manual
from pyrate_limiter.testing._suite import get, scenario
from pyrate_limiter.testing.sleeping import sleeping_advances

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyrate_limiter.abstracts.bucket import AbstractBucket

_BUSY_MS = 120  # the interval of the tests that run in real time


class Limiting(BucketSuite, suite=True):
    """A `Limiter` on the bucket admits, waits, gives up and keeps to the rate."""

    async def _limiter(
        self, limit: int, *, waits: bool = False
    ) -> tuple[Limiter, AbstractBucket, AbstractContextManager[list[float]]]:
        """A limiter on a bucket that is empty, and what makes its waits short.

        Only who ``waits`` for room in real time has a short interval: it could pass while a busy
        machine holds up a test that counts on being refused.
        """
        interval = self.interval_ms // 100 if waits and not self.manual_clock else self.interval_ms
        bucket, _ = await self._new(Rate(limit, interval))
        shorten: AbstractContextManager[list[float]] = nullcontext([])
        if self.manual_clock:
            shorten = sleeping_advances(manual(bucket))
        return limiter_on(bucket), bucket, shorten

    @scenario()
    async def test_limiter_without_blocking_takes_what_is_free(self) -> None:
        limiter, bucket, _ = await self._limiter(3)
        assert await get(limiter.try_acquire("a", 2, blocking=False)) is True
        assert await get(limiter.try_acquire("a", 2, blocking=False)) is False
        assert await limiter.try_acquire_async("a", 1, blocking=False) is True
        assert await limiter.try_acquire_async("a", 1, blocking=False) is False
        assert await get(limiter.try_acquire("a", 0, blocking=False)) is True
        assert await get(bucket.count()) == 3

    @scenario()
    async def test_limiter_waits_until_it_fits(self) -> None:
        limiter, bucket, shorten = await self._limiter(2, waits=True)
        with shorten as slept:
            begun = await get(bucket.now())
            for _ in range(3):
                assert await get(limiter.try_acquire("a", 2)) is True
            for _ in range(2):
                assert await limiter.try_acquire_async("a", 2) is True
            elapsed = await get(bucket.now()) - begun
        interval = bucket.rates[0].interval
        rounds = 3 if isinstance(bucket._algorithm, FixedWindow) else 4
        assert rounds * interval <= elapsed
        if self.manual_clock:
            assert elapsed <= 4 * (interval + 51)
            assert len(slept) == 4

    @scenario(holds=True)
    async def test_limiter_holds_and_releases(self) -> None:
        limiter, bucket, shorten = await self._limiter(2)
        length = self.interval_ms / 1000 if self.manual_clock else 0.3
        assert await limiter.hold_async("a", 3600) == 3600
        assert await limiter.hold_async("a", length) > length
        assert await get(limiter.try_acquire("a", blocking=False)) is False
        assert await limiter.try_acquire_async("a", blocking=False) is False
        assert 3590_000 < ((await limiter.check_async("a")).retry_after_ms or 0) <= 3600_000
        assert await limiter.release_hold_async("a") is True
        assert await limiter.release_hold_async("a") is False
        if not bucket.is_async:
            assert limiter.hold("a", length) == length
            assert limiter.release_hold("a") is True
        assert await limiter.hold_async("a", length) == length
        begun = await get(bucket.now())
        with shorten:
            assert await limiter.try_acquire_async("a", 2) is True
        elapsed = await get(bucket.now()) - begun
        assert elapsed >= length * 1000 - 50  # between hold and look some time may have passed
        assert elapsed <= length * 1000 + 51 or not self.manual_clock

    @scenario()
    async def test_limiter_gives_up_at_its_timeout(self) -> None:
        limiter, _, shorten = await self._limiter(2)
        assert await get(limiter.try_acquire("a", 2)) is True
        # Waits on a manual clock take no time: there a call may be slow and still have to wait.
        timeout = self.interval_ms * 0.4 / 1000 if self.manual_clock else 0.025
        with shorten as slept:
            assert await get(limiter.try_acquire("a", 2, timeout=timeout)) is False
            assert await limiter.try_acquire_async("a", 2, timeout=timeout) is False
        if self.manual_clock:
            assert len(slept) == 2
            assert all(0 < seconds <= timeout for seconds in slept)

    @scenario()
    async def test_limiter_with_timeout_zero_does_not_wait(self) -> None:
        limiter, _, shorten = await self._limiter(1)
        with shorten as slept:
            assert await get(limiter.try_acquire("a", timeout=0)) is True
            assert await get(limiter.try_acquire("a", timeout=0)) is False
            assert await limiter.try_acquire_async("a", timeout=0) is False
        assert not slept

    @scenario()
    async def test_limiter_waits_in_time_for_a_timeout_that_is_long_enough(self) -> None:
        limiter, bucket, shorten = await self._limiter(1, waits=True)
        timeout = bucket.rates[0].interval * 3 / 1000
        with shorten:
            assert await get(limiter.try_acquire("a", timeout=timeout)) is True
            assert await get(limiter.try_acquire("a", timeout=timeout)) is True
            assert await limiter.try_acquire_async("a", timeout=timeout) is True

    @scenario()
    async def test_limiter_refuses_at_once_what_can_never_fit(self) -> None:
        limiter, bucket, shorten = await self._limiter(2)
        with shorten as slept:
            assert await get(limiter.try_acquire("a", 3)) is False
            assert await limiter.try_acquire_async("a", 3) is False
        assert not slept
        assert await get(bucket.count()) == 0

    @scenario()
    async def test_limiter_refuses_a_negative_weight(self) -> None:
        limiter, _, _ = await self._limiter(2)
        with pytest.raises(ValueError, match="weight"):
            await get(limiter.try_acquire("a", -1))
        with pytest.raises(ValueError, match="weight"):
            await limiter.try_acquire_async("a", -1)

    @scenario()
    async def test_limiter_gives_back_what_a_cancelled_waiter_has_reserved(self) -> None:
        bucket, _ = await self._new(self._rate(1))
        limiter = limiter_on(bucket)
        assert await limiter.try_acquire_async("a") is True
        before = await get(bucket.count())
        waiter = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await asyncio.sleep(0.02)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert await get(bucket.count()) == before

    @scenario()
    async def test_limiter_without_reserving_ahead_waits_as_well(self) -> None:
        bucket, _ = await self._new(Rate(1, _BUSY_MS))
        bucket._clock = type(bucket)._clock if not self.manual_clock else bucket._clock
        factory = SingleBucketFactory(bucket, schedule_leak=False)
        limiter = Limiter(factory, reserve_ahead=False)
        if not self.manual_clock:
            assert await limiter.try_acquire_async("a")
            assert await limiter.try_acquire_async("a")
            return
        with sleeping_advances(manual(bucket)):
            for _ in range(3):
                assert await limiter.try_acquire_async("a") is True
                assert await get(limiter.try_acquire("a")) is True

    def test_callers_together_keep_to_the_limit(self) -> None:
        self._made = []
        limit = 4
        bucket = self.make_bucket([Rate(limit, _BUSY_MS)])
        if isinstance(bucket, Awaitable) or _belongs_to_a_loop(bucket):
            discard(bucket)
            self.test_tasks_together_keep_to_the_limit()
            return
        limiter = limiter_on(bucket)
        ends: list[float] = []

        def work() -> None:
            for _ in range(3):
                assert limiter.try_acquire("a") is True
                ends.append(time.monotonic())

        begun = time.monotonic()
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        limiter.close()
        assert len(ends) == 12
        _assert_paced(bucket, begun, ends, limit)

    @scenario()
    async def test_tasks_together_keep_to_the_limit(self) -> None:
        limit, calls = 4, 12
        bucket = await get(self.make_bucket([Rate(limit, _BUSY_MS)]))
        self._made.append(bucket)
        limiter = limiter_on(bucket)
        ends: list[float] = []

        async def work() -> None:
            assert await limiter.try_acquire_async("a") is True
            ends.append(time.monotonic())

        begun = time.monotonic()
        await asyncio.gather(*(work() for _ in range(calls)))
        _assert_paced(bucket, begun, ends, limit)


def _assert_paced(bucket: AbstractBucket, begun: float, ends: list[float], limit: int) -> None:
    """No admission comes earlier than the rate lets it, counted from the very beginning.

    A thread may be held up between its admission and its stamp, which can only make the stamp
    later: so the k-th stamp has a lower bound, and a difference of two stamps has none.
    """
    for place, end in enumerate(sorted(ends)):
        if isinstance(bucket._algorithm, StateAlgorithm):
            earliest = max(0, place - limit + 1) * _BUSY_MS / limit
        else:
            earliest = place // limit * _BUSY_MS
            if isinstance(bucket._algorithm, FixedWindow):
                earliest -= _BUSY_MS
        assert end - begun >= earliest / 1000 - 0.001


def _belongs_to_a_loop(bucket: AbstractBucket) -> bool:
    """Whether one of the bucket's methods has to be awaited."""
    answers: list[object] = [bucket.leak(0), bucket.count(), bucket.peek(0), bucket.now()]
    answers.append(bucket.put(RateItem("probe", 0, 0)))
    for answer in answers:
        discard(answer)
    return any(map(is_awaitable, answers))
