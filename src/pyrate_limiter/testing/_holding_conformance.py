"""How a bucket admits nothing for a time."""

from __future__ import annotations

import pytest

from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.errors import CannotHold
from pyrate_limiter.testing._bucket_conformance import (
    BucketSuite,
    frees_at,
    is_log,
    limiter_on,
    manual,
    reservation_of,
    reserved,
    unit_of,
)
from pyrate_limiter.testing._suite import get, scenario


class Holding(BucketSuite, suite=True):
    """A bucket that is held admits nothing, and forgets nothing."""

    @scenario(holds=False)
    async def test_a_bucket_that_cannot_hold_says_so(self) -> None:
        bucket, t = await self._new(self._rate(1))
        with pytest.raises(CannotHold):
            await get(bucket.hold(RateItem("a", t, 0), 1))
        with pytest.raises(CannotHold):
            await get(bucket.release_hold(RateItem("a", t, 0)))

    @scenario(holds=True, manual_clock=True)
    async def test_nothing_is_admitted_before_a_hold_is_over(self) -> None:
        bucket, t = await self._new(self._rate(3))
        length = 3 * self.interval_ms + 7
        assert await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.hold(RateItem("a", t, 0), length)) == length
        for now, weight in ((t, 1), (t + 1, 3), (t + self.interval_ms + 5, 2), (t + length - 1, 1)):
            item = RateItem("a", now, weight)
            assert not await get(bucket.put(item))
            assert bucket.failing_rate == bucket.rates[0]
            assert await get(bucket.waiting(item)) == t + length - now
            for decision in (
                await get(bucket.check(item)),
                await get(bucket.reserve(item, 0)),
                await get(bucket.put_decision(item)),
            ):
                assert decision.retry_after_ms == t + length - now
            looked = await get(bucket.check(item))
            assert looked.remaining == 0
            assert (looked.reset_after_ms or 0) >= t + length - now
        assert await get(bucket.put(RateItem("a", t + 1, 0)))  # takes nothing
        if is_log(bucket):
            assert await get(bucket.count()) == 1

    @scenario(holds=True, manual_clock=True)
    async def test_a_hold_takes_no_units(self) -> None:
        bucket, t = await self._new(self._rate(3))
        end = t + self.interval_ms + 5
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        assert await get(bucket.put(RateItem("a", end, 3)))
        assert not await get(bucket.put(RateItem("a", end, 1)))
        frees = frees_at(bucket, 3, end)
        assert (await get(bucket.check(RateItem("a", end, 3)))).retry_after_ms == frees - end
        assert await get(bucket.put(RateItem("a", frees, 3)))
        if is_log(bucket):
            assert (await unit_of(bucket, 5)).timestamp == end
            assert await get(bucket.peek(6)) is None

    @scenario(holds=True, manual_clock=True)
    async def test_what_was_full_waits_for_the_later_of_both(self) -> None:
        bucket, t = await self._full(2)
        frees = frees_at(bucket, 2, t)
        await get(bucket.hold(RateItem("a", t, 0), 10))
        look = RateItem("a", t, 2)
        assert (await get(bucket.check(look))).retry_after_ms == frees - t
        await get(bucket.hold(RateItem("a", t, 0), frees - t + 1))
        assert (await get(bucket.check(look))).retry_after_ms == frees - t + 1

    @scenario(holds=True, manual_clock=True)
    async def test_a_shorter_hold_changes_nothing_and_a_longer_one_counts(self) -> None:
        bucket, t = await self._new(self._rate(2))
        hold, item = bucket.hold, RateItem("a", t + 100)
        assert await get(hold(RateItem("a", t, 0), 300)) == 300
        assert await get(hold(RateItem("b", t + 100, 0), 150)) == 200
        assert await get(hold(RateItem("b", t + 100, 0), 0)) == 200
        assert (await get(bucket.check(item))).retry_after_ms == 200
        assert await get(hold(RateItem("a", t + 100, 0), 201)) == 201
        assert (await get(bucket.check(item))).retry_after_ms == 201
        assert await get(bucket.release_hold(RateItem("a", t + 301, 0))) is False
        assert await get(hold(RateItem("a", t + 301, 0), 0)) == 0

    @scenario(holds=True)
    async def test_a_released_hold_leaves_nothing_behind(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.release_hold(RateItem("a", t, 0))) is False
        await get(bucket.hold(RateItem("a", t, 0), 60_000))
        assert not await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.release_hold(RateItem("a", t, 0))) is True
        assert await get(bucket.release_hold(RateItem("a", t, 0))) is False
        assert await get(bucket.put(RateItem("a", t, 2)))
        await get(bucket.hold(RateItem("a", t, 0), 60_000))
        await get(bucket.flush())
        assert await get(bucket.put(RateItem("a", t, 2)))

    @scenario(holds=True, manual_clock=True)
    async def test_a_hold_outlasts_all_that_is_stored(self) -> None:
        bucket, t = await self._new(self._rate(2))
        length = 20 * self.interval_ms
        assert await get(bucket.put(RateItem("a", t, 2)))
        await get(bucket.hold(RateItem("a", t, 0), length))
        late = t + 19 * self.interval_ms
        await get(bucket.leak(late))
        clock = manual(bucket)
        clock.set(late)
        await get(bucket.leak())
        assert await get(bucket.count()) == 0
        decision = await get(bucket.check(RateItem("a", late)))
        assert decision.retry_after_ms == t + length - late
        assert await get(bucket.put(RateItem("a", t + length, 2)))

    @scenario(holds=True, reserves=True, manual_clock=True)
    async def test_who_has_reserved_goes_after_a_hold_that_came_later(self) -> None:
        bucket, t = await self._full(2)
        reservations = [await reserved(bucket, RateItem("b", t)) for _ in range(3)]
        end = t + 10 * self.interval_ms
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        moved = []
        for reservation in reservations:
            assert reservation.wait_ms
            now = int(reservation.item.timestamp)
            decision = await get(bucket.confirm(reservation, now, 1 << 40))
            assert now + decision.wait_ms >= end
            moved.append(reservation_of(decision))
        gone = []
        for decision in moved:
            now = int(decision.item.timestamp)
            while (decision := await get(bucket.confirm(decision, now, 1 << 40))).wait_ms:
                now += decision.wait_ms
            assert decision.allowed
            gone.append(now)
        gone.sort()  # the first in line takes the first moment
        assert gone[0] >= end
        assert gone[1] <= end + self.interval_ms
        assert gone[2] >= frees_at(bucket, 1, end)

    @scenario(holds=True, reserves=True, manual_clock=True)
    async def test_a_reservation_that_cannot_wait_for_a_hold_is_cancelled(self) -> None:
        bucket, t = await self._full(2)
        item = RateItem("b", t, 2)
        reservation = await reserved(bucket, item)
        now, end = int(item.timestamp), t + 10 * self.interval_ms
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        decision = await get(bucket.confirm(reservation, now, end - now - 1))
        assert decision.retry_after_ms == end - now
        assert await get(bucket.put(RateItem("a", end, 2)))

    @scenario(holds=True, reserves=True, manual_clock=True)
    async def test_reservations_during_a_hold_are_for_when_it_is_over(self) -> None:
        bucket, t = await self._new(self._rate(2))
        end = t + 5 * self.interval_ms
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        assert not await get(bucket.reserve(RateItem("b", t), end - t - 1, 0))
        reservations = [await reserved(bucket, RateItem("b", t)) for _ in range(3)]
        assert [t + reservation.wait_ms for reservation in reservations[:2]] == [end, end]
        assert t + reservations[2].wait_ms == frees_at(bucket, 1, end)
        assert await get(bucket.release_hold(RateItem("a", t, 0)))
        for reservation in reservations:
            assert await get(bucket.cancel(reservation))
        assert await get(bucket.put(RateItem("c", t, 2)))

    @scenario(holds=True, manual_clock=True)
    async def test_a_hold_is_no_longer_than_it_was_when_the_clock_steps_back(self) -> None:
        bucket, t = await self._new(self._rate(2))
        clock = manual(bucket)
        await get(bucket.hold(RateItem("a", t, 0), 1000))
        clock.set(t - 3_600_000)
        limiter = limiter_on(bucket)
        assert await get(limiter.try_acquire("a", blocking=False)) is False
        assert 0 < ((await limiter.check_async("a")).retry_after_ms or 0) <= 1000
        clock.advance(1000)
        assert await get(limiter.try_acquire("a", blocking=False)) is True
