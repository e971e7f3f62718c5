"""How a bucket stores items at moments to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._engine.native import stores_ahead
from pyrate_limiter.abstracts.algorithm import FixedWindow
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.testing._bucket_conformance import (
    BucketSuite,
    frees_at,
    is_log,
    manual,
    reservation_of,
    reserved,
)
from pyrate_limiter.testing._suite import get, scenario

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import Decision


class Reserving(BucketSuite, suite=True):
    """A bucket reserves, confirms and cancels."""

    @scenario()
    async def test_the_bucket_is_of_the_kind_that_the_suite_declares(self) -> None:
        bucket, _ = await self._new(self._rate(1))
        assert stores_ahead(bucket) is self.reserves
        assert is_log(bucket) is self.units

    @scenario()
    async def test_an_item_that_fits_now_goes_now(self) -> None:
        bucket, t = await self._new(self._rate(2))
        item = RateItem("a", t, 2)
        decision = await get(bucket.reserve(item, 0))
        assert decision.allowed
        assert decision.wait_ms == 0
        assert item.timestamp == t
        decision = await get(bucket.reserve(RateItem("a", t), 0))
        assert decision.failing_rate == bucket.rates[0]
        assert decision.retry_after_ms == frees_at(bucket, 1, t) - t

    @scenario(reserves=True)
    async def test_a_reservation_has_the_first_moment_that_fits(self) -> None:
        bucket, t = await self._new(self._rate(4))
        frees = frees_at(bucket, 3, t)
        assert await get(bucket.put(RateItem("a", t, 4)))
        assert not await get(bucket.reserve(RateItem("b", t, 3), frees - t - 1, 0))
        item = RateItem("b", t, 3)
        reservation = await reserved(bucket, item, frees - t)
        assert reservation
        assert reservation.wait_ms == frees - t
        assert item.timestamp == frees
        assert (await get(bucket.confirm(reservation, frees))).wait_ms == 0
        if is_log(bucket):
            assert await get(bucket.count()) == 7

    @scenario(reserves=True)
    async def test_a_reservation_keeps_clear_of_the_edge_as_far_as_the_caller_waits(self) -> None:
        for longer, pad in ((100, 20), (20, 20), (5, 5), (0, 0)):
            bucket, t = await self._new(self._rate(2))
            wait = frees_at(bucket, 2, t) - t
            assert await get(bucket.put(RateItem("a", t, 2)))
            decision = await get(bucket.reserve(RateItem("b", t, 2), wait + longer, 20))
            assert decision.wait_ms == wait + pad

    @scenario(reserves=True)
    async def test_reservations_are_in_the_order_of_arrival(self) -> None:
        bucket, t = await self._full(2)
        waits = []
        for weight in (2, 1, 1, 2, 1):
            decision = await get(bucket.reserve(RateItem("b", t, weight), 1 << 40, 0))
            assert decision.allowed
            waits.append(decision.wait_ms)
        assert waits == sorted(waits)
        assert waits[-1] > waits[0]

    @scenario(reserves=True)
    async def test_nobody_goes_before_those_who_have_reserved(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert (await get(bucket.reserve(RateItem("heavy", t, 4), 1 << 40, 0))).wait_ms > 0
        light = RateItem("light", t + 1, 1)  # the heavy one would lack its room
        assert not await get(bucket.put(light))
        wait = await get(bucket.waiting(light))
        assert wait >= frees_at(bucket, 3, t) - t - 1
        assert not (await get(bucket.check(light))).allowed

    @scenario(reserves=True)
    async def test_a_cancelled_reservation_leaves_nothing_behind(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        before = await get(bucket.count())
        item = RateItem("b", t, 4)
        reservation = await reserved(bucket, item)
        assert not await get(bucket.put(RateItem("c", t + 1, 1)))
        assert await get(bucket.cancel(reservation)) is True
        assert await get(bucket.cancel(reservation)) is False
        assert await get(bucket.count()) == before
        assert await get(bucket.put(RateItem("c", t + 1, 1)))

    @scenario(reserves=True)
    async def test_a_late_waiter_is_recorded_at_the_true_time(self) -> None:
        bucket, t = await self._full(2)
        item = RateItem("b", t, 2)
        reservation = await reserved(bucket, item)
        late = item.timestamp + 300
        decision = await get(bucket.confirm(reservation, late, 1 << 40))
        assert decision.allowed
        assert decision.wait_ms == 0
        frees = frees_at(bucket, 1, late)
        assert not await get(bucket.put(RateItem("c", frees - 1)))
        assert await get(bucket.put(RateItem("c", frees)))

    @scenario(reserves=True, manual_clock=True)
    async def test_a_waiter_that_went_while_the_clock_was_ahead_blocks_nobody(self) -> None:
        bucket, t = await self._new(self._rate(2))
        clock = manual(bucket)
        assert await get(bucket.put(RateItem("a", t, 2)))
        item = RateItem("b", t, 2)
        reservation = await reserved(bucket, item)
        ahead, back = t + 3_600_000, t + 2 * self.interval_ms
        clock.set(ahead)
        assert (await get(bucket.confirm(reservation, ahead))).allowed
        clock.set(back)
        decision = await get(bucket.reserve(RateItem("c", back, 2), 3 * self.interval_ms))
        assert decision.allowed

    @scenario(reserves=True)
    async def test_a_waiter_whose_reservation_is_gone_reserves_anew(self) -> None:
        bucket, t = await self._full(2)
        item = RateItem("b", t, 2)
        reservation = await reserved(bucket, item)
        await get(bucket.flush())
        due = item.timestamp
        assert (await get(bucket.confirm(reservation, due))).allowed
        assert not await get(bucket.put(RateItem("c", due)))

    @scenario(reserves=True)
    async def test_a_line_reserves_for_several_as_if_one_by_one(self) -> None:
        weights = (2, 1, 1, 2)
        bucket, t = await self._new(self._rate(2))
        other, _ = await self._new(self._rate(2))
        for each in (bucket, other):
            assert await get(each.put(RateItem("a", t, 2)))
        items = [RateItem("b", t, weight) for weight in weights]
        decisions: list[Decision] = []
        while len(decisions) < len(items):  # it may answer for some of them at a time
            before = int(items[len(decisions) - 1].timestamp) if decisions else None
            left = items[len(decisions) :]
            decisions += await get(bucket.reserve_several(left, 1 << 40, 0, before))
        singly = [RateItem("b", t, weight) for weight in weights]
        for item, single, decision in zip(items, singly, decisions):
            alone = await get(other.reserve(single, 1 << 40, 0))
            assert decision.allowed
            if self.manual_clock:
                assert (item.timestamp, decision.wait_ms) == (single.timestamp, alone.wait_ms)
        moments = [int(item.timestamp) for item in items]
        assert moments == sorted(moments)
        for item, decision in zip(items, decisions):
            confirmed = await get(bucket.confirm(reservation_of(decision), item.timestamp))
            assert confirmed.wait_ms == 0

    @scenario(reserves=True)
    async def test_reservations_for_several_end_with_the_first_refusal(self) -> None:
        bucket, t = await self._full(2)
        max_wait = frees_at(bucket, 2, t) - t
        items = [RateItem("b", t, weight) for weight in (1, 1, 2, 1)]
        decisions: list[Decision] = []
        while not decisions or decisions[-1].allowed:
            left = items[len(decisions) :]
            decisions += await get(bucket.reserve_several(left, max_wait, 0))
        assert [decision.allowed for decision in decisions] == [True, True, False]
        assert decisions[-1].failing_rate == bucket.rates[0]
        assert (decisions[-1].retry_after_ms or 0) > max_wait
        never = [RateItem("b", t, 3), RateItem("b", t)]
        refused = await get(bucket.reserve_several(never, 1 << 40, 0))
        assert len(refused) == 1
        assert refused[0].retry_after_ms is None
        assert await get(bucket.count()) == 4

    @scenario(reserves=True)
    async def test_no_reservation_for_a_line_goes_before_what_the_line_holds(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 1)))
        held, behind = RateItem("b", t, 2), [RateItem("b", t), RateItem("b", t)]
        assert (await get(bucket.reserve(held, 1 << 40, 0))).wait_ms > 0
        moment = int(held.timestamp)
        decisions = await get(bucket.reserve_several(behind, 1 << 40, 0, moment))
        assert all(decision.allowed for decision in decisions)
        assert moment <= behind[0].timestamp
        if len(decisions) > 1:
            assert behind[0].timestamp <= behind[1].timestamp

    @scenario(reserves=True)
    async def test_a_part_of_a_reservation_can_be_cancelled(self) -> None:
        bucket, t = await self._full(4)
        item = RateItem("b", t, 4)
        reservation = await reserved(bucket, item)
        assert await get(bucket.count()) == 8
        item.weight = 1
        assert await get(bucket.cancel(reservation.part(3))) is True
        assert await get(bucket.count()) == 5
        moment = int(item.timestamp)
        assert (await get(bucket.confirm(reservation, moment))).wait_ms == 0
        assert await get(bucket.put(RateItem("c", moment + 1, 3)))
        assert not await get(bucket.put(RateItem("c", moment + 1)))

    @scenario(reserves=True)
    async def test_room_that_was_given_back_between_reservations_is_used(self) -> None:
        bucket, t = await self._full(2)
        items = [RateItem("b", t, 2) for _ in range(3)]
        first, second, third = [await reserved(bucket, item) for item in items]
        freed, last = int(items[1].timestamp), int(items[2].timestamp)
        assert await get(bucket.cancel(second)) is True
        light = await reserved(bucket, RateItem("c", t, 1))
        heavy = await reserved(bucket, RateItem("d", t, 2))
        assert light.wait_ms > 0
        assert heavy.wait_ms > 0
        if not self.fills_room:
            assert last <= light.item.timestamp <= heavy.item.timestamp
        if not self.fills_room or type(bucket._algorithm) is FixedWindow:
            return
        assert light.item.timestamp == freed
        assert heavy.item.timestamp > last
        for reservation in (first, light, third, heavy):
            moment = int(reservation.item.timestamp)
            assert (await get(bucket.confirm(reservation, moment))).wait_ms == 0

    @scenario(reserves=False)
    async def test_without_a_reserve_of_its_own_that_is_put_decision(self) -> None:
        bucket, t = await self._new(self._rate(1))
        item = RateItem("a", t)
        assert await get(bucket.put(item))
        decision = await get(bucket.reserve(item, 1 << 40))
        assert not decision.allowed
        assert decision.retry_after_ms == frees_at(bucket, 1, t) - t
        none = Reservation(item)
        assert await get(bucket.cancel(none)) is False
        assert (await get(bucket.confirm(none, t))).allowed
