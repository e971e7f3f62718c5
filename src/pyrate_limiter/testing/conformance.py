"""What every bucket has to do, as a pytest class. Importing this module needs pytest."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pyrate_limiter import limiter as limiter_module
from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._engine.native import stores_ahead
from pyrate_limiter.abstracts.algorithm import FixedWindow, SlidingWindowLog, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.errors import CannotHold
from pyrate_limiter.limiter import Limiter
from pyrate_limiter.testing._suite import Suite, get, needs, scenario
from pyrate_limiter.testing.clocks import ManualClock
from pyrate_limiter.testing.sleeping import sleeping_advances

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.bucket import AbstractBucket

_START_MS = 1_000_000_000  # a multiple of every interval below
_BUSY_MS = 120  # the interval of the tests that run in real time


def _reservation(decision: Decision) -> Reservation:
    assert isinstance(decision, Reservation)
    return decision


class BucketConformance(Suite):
    """Holds a bucket, sync or async, to what `Limiter` and its users rely on.

    Subclass it in a test module, under a name that pytest collects, and say how to make a bucket:

        class TestMyBucket(BucketConformance):
            def make_bucket(self, rates):
                return MyBucket(rates)

    The bucket has to be empty each time. The attributes below say what kind of bucket it is where
    the suite cannot see that for itself.
    """

    manual_clock: bool = True
    """Whether ``bucket._clock`` may be replaced. False for a bucket that asks a server for the
    time: then the waits under a `Limiter` take real time."""

    interval_ms: int = 10_000
    """The interval of the rates in most tests; a multiple of 100. With ``manual_clock`` false the
    tests that wait use a hundredth of it."""

    names: Sequence[str] = (
        "",
        " ",
        "x" * 300,
        "a'b\"c`; DROP TABLE rate_bucket; --",
        "100%s {0} {name} \\ /:*?[]",
        "tab\t newline\n return\r",
        "nul\0 bell\a",
        "čeština 日本語 🦆 e\u0301",
    )
    """Names that items may have."""

    reserves: bool = False
    """Whether the bucket stores items at future moments by itself, as the built-in ones do."""

    holds: bool = False
    """Whether the bucket has `AbstractBucket.hold`, as the built-in ones have."""

    fills_room: bool = True
    """Whether an item goes before others that are reserved, where one was cancelled."""

    units: bool = True
    """Whether the bucket stores units. False for one that runs a `StateAlgorithm`."""

    def make_bucket(self, rates: list[Rate]) -> AbstractBucket | Awaitable[AbstractBucket]:
        """An empty bucket with these rates, or an awaitable of one. To be overridden."""
        raise NotImplementedError

    @staticmethod
    async def _reserved(
        bucket: AbstractBucket, item: RateItem, max_wait_ms: int = 1 << 40
    ) -> Reservation:
        """What the bucket has stored for an item, now or ahead."""
        reservation = _reservation(await get(bucket.reserve(item, max_wait_ms, 0)))
        assert reservation.item is item
        return reservation

    async def _new(self, *rates: Rate) -> tuple[AbstractBucket, int]:
        """A bucket, and a moment on its clock that is a multiple of its intervals."""
        bucket: AbstractBucket = await get(self.make_bucket(list(rates)))
        self._made.append(bucket)
        if self.manual_clock:
            bucket._clock = ManualClock(_START_MS)
            return bucket, _START_MS
        longest = max(rate.interval for rate in rates)
        now: int = await get(bucket.now())
        return bucket, now + (-now % longest if isinstance(bucket._algorithm, FixedWindow) else 0)

    def _rate(self, limit: int) -> Rate:
        return Rate(limit, self.interval_ms)

    @staticmethod
    def _frees_at(bucket: AbstractBucket, weight: int, since: int) -> int:
        """When ``weight`` fits into a bucket of one rate that was filled at ``since``."""
        rate, algorithm = bucket.rates[0], bucket._algorithm
        if isinstance(algorithm, StateAlgorithm):
            return since + math.ceil(weight * rate.emission_us / 1000)
        if isinstance(algorithm, FixedWindow):
            return since - since % rate.interval + rate.interval
        return since + rate.interval + 1

    @staticmethod
    def _is_log(bucket: AbstractBucket) -> bool:
        return not isinstance(bucket._algorithm, StateAlgorithm)

    # put ------------------------------------------------------------------------------------

    @scenario
    async def test_admits_up_to_the_limit_and_then_refuses(self) -> None:
        bucket, t = await self._new(self._rate(4))
        for _ in range(4):
            assert await get(bucket.put(RateItem("a", t))) is True
            assert bucket.failing_rate is None
        assert await get(bucket.put(RateItem("a", t))) is False
        assert bucket.failing_rate == bucket.rates[0]

    @scenario
    async def test_an_admitted_item_clears_failing_rate(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert not await get(bucket.put(RateItem("a", t, 2)))
        assert bucket.failing_rate == bucket.rates[0]
        assert await get(bucket.put(RateItem("a", t)))
        assert bucket.failing_rate is None

    @scenario
    async def test_takes_all_units_of_an_item_or_none(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert not await get(bucket.put(RateItem("a", t, 2)))
        assert await get(bucket.count()) == 3
        assert await get(bucket.put(RateItem("a", t, 1)))
        assert await get(bucket.count()) == 4

    @scenario
    async def test_weight_zero_is_admitted_and_stores_nothing(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 0)))
        assert await get(bucket.count()) == 0
        assert await get(bucket.put(RateItem("a", t, 2)))
        assert not await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.put(RateItem("a", t, 0)))
        assert bucket.failing_rate is None
        assert await get(bucket.count()) == 2

    @scenario
    async def test_weight_over_the_limit_never_fits(self) -> None:
        bucket, t = await self._new(self._rate(3))
        item = RateItem("a", t, 4)
        assert not await get(bucket.put(item))
        assert bucket.failing_rate == bucket.rates[0]
        assert await get(bucket.waiting(item)) == -1
        decision = await get(bucket.put_decision(item))
        assert not decision.allowed
        assert decision.retry_after_ms is None
        assert await get(bucket.count()) == 0

    @scenario
    async def test_the_first_moment_that_fits_is_exact(self) -> None:
        for weight in (1, 2, 4):
            bucket, t = await self._new(self._rate(4))
            frees = self._frees_at(bucket, weight, t)
            assert await get(bucket.put(RateItem("a", t, 4)))
            assert not await get(bucket.put(RateItem("a", frees - 1, weight)))
            assert await get(bucket.put(RateItem("a", frees, weight)))

    @scenario
    async def test_several_rates_hold_and_the_short_one_is_named(self) -> None:
        long = self.interval_ms * 5
        bucket, t = await self._new(Rate(2, self.interval_ms), Rate(3, long))
        later = t + self.interval_ms + 1
        assert await get(bucket.put(RateItem("a", t, 2)))
        assert not await get(bucket.put(RateItem("a", t)))
        assert bucket.failing_rate == bucket.rates[0]
        assert await get(bucket.put(RateItem("a", later)))
        last = RateItem("a", later)
        assert not await get(bucket.put(last))
        assert bucket.failing_rate == bucket.rates[1]
        wait = await get(bucket.waiting(last))
        assert not await get(bucket.put(RateItem("a", later + wait - 1)))
        assert await get(bucket.put(RateItem("a", later + wait)))

    @scenario
    async def test_an_item_changed_after_put_changes_nothing(self) -> None:
        bucket, t = await self._new(self._rate(4))
        item = RateItem("before", t, 4)
        assert await get(bucket.put(item))
        item.name, item.timestamp, item.weight = "after", 0, 1
        assert await get(bucket.count()) == 4
        assert not await get(bucket.put(RateItem("a", t)))
        if self._is_log(bucket):
            newest = await get(bucket.peek(0))
            assert (newest.name, newest.timestamp) == ("before", t)

    # waiting, put_decision, check -------------------------------------------------------------

    @scenario
    async def test_waiting_is_zero_after_an_admitted_item(self) -> None:
        bucket, t = await self._new(self._rate(1))
        assert await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.waiting(RateItem("a", t))) == 0

    @scenario
    async def test_waiting_counts_from_the_items_own_timestamp(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 4)))
        assert not await get(bucket.put(RateItem("a", t)))
        frees = self._frees_at(bucket, 1, t)
        assert await get(bucket.waiting(RateItem("a", t))) == frees - t
        assert await get(bucket.waiting(RateItem("a", t + 7))) == frees - t - 7
        assert await get(bucket.waiting(RateItem("a", frees))) == 0
        assert await get(bucket.waiting(RateItem("a", frees + 100))) == 0

    @scenario
    async def test_waiting_is_computed_anew_for_another_weight(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 4)))
        assert not await get(bucket.put(RateItem("a", t)))
        for weight in (3, 1, 4):
            frees = self._frees_at(bucket, weight, t)
            assert await get(bucket.waiting(RateItem("a", t, weight))) == frees - t
        assert await get(bucket.waiting(RateItem("a", t, 5))) == -1

    @scenario
    async def test_put_decision_says_what_put_and_waiting_say(self) -> None:
        bucket, t = await self._new(self._rate(2))
        decision = await get(bucket.put_decision(RateItem("a", t, 2)))
        assert decision.allowed
        assert decision.failing_rate is None
        decision = await get(bucket.put_decision(RateItem("a", t)))
        assert not decision.allowed
        assert decision.failing_rate == bucket.failing_rate == bucket.rates[0]
        assert decision.retry_after_ms == self._frees_at(bucket, 1, t) - t

    @scenario
    async def test_check_stores_nothing_and_says_the_same(self) -> None:
        bucket, t = await self._new(self._rate(2))
        for _ in range(3):
            assert (await get(bucket.check(RateItem("a", t, 2)))).allowed
        assert await get(bucket.count()) == 0
        assert await get(bucket.put(RateItem("a", t, 2)))
        assert (await get(bucket.check(RateItem("a", t, 0)))).allowed
        decision = await get(bucket.check(RateItem("a", t)))
        assert decision.failing_rate == bucket.rates[0]
        if not isinstance(bucket._algorithm, FixedWindow) or stores_ahead(bucket):
            assert decision.retry_after_ms == self._frees_at(bucket, 1, t) - t
        assert (await get(bucket.check(RateItem("a", t, 3)))).retry_after_ms is None

    # What is stored ---------------------------------------------------------------------------

    @needs(units=True)
    @scenario
    async def test_leak_drops_what_is_outside_every_window(self) -> None:
        bucket, t = await self._new(self._rate(5), Rate(8, self.interval_ms * 4))
        window = self.interval_ms * 4
        assert await get(bucket.put(RateItem("a", t, 2)))
        assert await get(bucket.put(RateItem("b", t + 50, 3)))
        assert await get(bucket.leak(t + window - 1)) == 0
        if type(bucket._algorithm) is SlidingWindowLog:
            assert await get(bucket.leak(t + window)) == 0
            assert await get(bucket.leak(t + window + 1)) == 2
            assert await get(bucket.count()) == 3
            assert await get(bucket.leak(t + window + 51)) == 3
        else:
            assert await get(bucket.leak(t + window)) == 5
        assert await get(bucket.count()) == 0
        assert await get(bucket.leak(t + window + 52)) == 0

    @needs(units=False)
    @scenario
    async def test_a_state_leaks_nothing_and_shows_no_unit(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert await get(bucket.leak(t + self.interval_ms * 9)) == 0
        assert await get(bucket.leak()) == 0
        assert await get(bucket.peek(0)) is None
        assert await get(bucket.count()) == 3

    @needs(units=False, manual_clock=True)
    @scenario
    async def test_a_states_count_is_the_units_owed_now_rounded_up(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        quarter = self.interval_ms // 4
        for elapsed, owed in ((1, 3), (quarter, 2), (quarter + 1, 2), (3 * quarter, 0)):
            bucket._clock.set(t + elapsed)  # type: ignore[attr-defined] # it is a manual one
            assert await get(bucket.count()) == owed

    @scenario
    async def test_flush_empties_the_bucket(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        assert not await get(bucket.put(RateItem("a", t)))
        await get(bucket.flush())
        assert bucket.failing_rate is None
        assert await get(bucket.count()) == 0
        assert await get(bucket.peek(0)) is None
        assert await get(bucket.waiting(RateItem("a", t))) == 0
        assert await get(bucket.put(RateItem("a", t, 2)))

    @needs(units=True)
    @scenario
    async def test_count_includes_what_has_expired_and_was_not_leaked(self) -> None:
        bucket, t = await self._new(Rate(100, 3000))
        assert await get(bucket.put(RateItem("a", t, 100)))
        for _ in range(100):
            assert await get(bucket.put(RateItem("a", t + 3001)))
        assert await get(bucket.count()) == 200

    @needs(units=True)
    @scenario
    async def test_peek_counts_from_the_newest(self) -> None:
        bucket, t = await self._new(self._rate(9))
        for place, name in enumerate("abc"):
            assert await get(bucket.put(RateItem(name, t + place, place + 1)))
        units = [await get(bucket.peek(place)) for place in range(6)]
        assert [unit.name for unit in units] == list("cccbba")
        assert [unit.timestamp - t for unit in units] == [2, 2, 2, 1, 1, 0]
        assert await get(bucket.peek(6)) is None
        assert await get(bucket.peek(100)) is None

    @scenario
    async def test_names_may_have_any_characters(self) -> None:
        bucket, t = await self._new(self._rate(len(self.names)))
        for name in self.names:
            assert await get(bucket.put(RateItem(name, t)))
        assert not await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.count()) == len(self.names)
        if self._is_log(bucket):
            units = [await get(bucket.peek(place)) for place in range(len(self.names))]
            assert sorted(unit.name for unit in units) == sorted(self.names)

    # rates, close -----------------------------------------------------------------------------

    @scenario
    async def test_rates_are_sorted_and_a_bad_list_is_refused(self) -> None:
        short, long = Rate(2, self.interval_ms), Rate(3, self.interval_ms * 2)
        bucket, t = await self._new(long, short)
        assert list(bucket.rates) == [short, long]
        for bad in ([], [Rate(3, self.interval_ms), long], [Rate(1, self.interval_ms), long]):
            with pytest.raises(ValueError, match="rate"):
                bucket.rates = bad
        assert list(bucket.rates) == [short, long]
        bucket.rates = [Rate(9, self.interval_ms * 2), Rate(8, self.interval_ms)]
        assert [rate.limit for rate in bucket.rates] == [8, 9]
        assert await get(bucket.put(RateItem("a", t, 8)))
        assert not await get(bucket.put(RateItem("a", t)))

    @scenario
    async def test_close_may_be_called_again(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t)))
        with bucket as entered:
            assert entered is bucket
        bucket.close()
        bucket.close()

    # reserve, confirm, cancel -----------------------------------------------------------------

    @scenario
    async def test_the_bucket_is_of_the_kind_that_the_suite_declares(self) -> None:
        bucket, _ = await self._new(self._rate(1))
        assert stores_ahead(bucket) is self.reserves
        assert self._is_log(bucket) is self.units

    @scenario
    async def test_an_item_that_fits_now_goes_now(self) -> None:
        bucket, t = await self._new(self._rate(2))
        item = RateItem("a", t, 2)
        decision = await get(bucket.reserve(item, 0))
        assert decision.allowed
        assert decision.wait_ms == 0
        assert item.timestamp == t
        decision = await get(bucket.reserve(RateItem("a", t), 0))
        assert decision.failing_rate == bucket.rates[0]
        assert decision.retry_after_ms == self._frees_at(bucket, 1, t) - t

    @needs(reserves=True)
    @scenario
    async def test_a_reservation_has_the_first_moment_that_fits(self) -> None:
        bucket, t = await self._new(self._rate(4))
        frees = self._frees_at(bucket, 3, t)
        assert await get(bucket.put(RateItem("a", t, 4)))
        assert not await get(bucket.reserve(RateItem("b", t, 3), frees - t - 1, 0))
        item = RateItem("b", t, 3)
        reservation = await self._reserved(bucket, item, frees - t)
        assert reservation
        assert reservation.wait_ms == frees - t
        assert item.timestamp == frees
        assert (await get(bucket.confirm(reservation, frees))).wait_ms == 0
        if self._is_log(bucket):
            assert await get(bucket.count()) == 7

    @needs(reserves=True)
    @scenario
    async def test_a_reservation_keeps_clear_of_the_edge_as_far_as_the_caller_waits(self) -> None:
        for longer, pad in ((100, 20), (20, 20), (5, 5), (0, 0)):
            bucket, t = await self._new(self._rate(2))
            wait = self._frees_at(bucket, 2, t) - t
            assert await get(bucket.put(RateItem("a", t, 2)))
            decision = await get(bucket.reserve(RateItem("b", t, 2), wait + longer, 20))
            assert decision.wait_ms == wait + pad

    @needs(reserves=True)
    @scenario
    async def test_reservations_are_in_the_order_of_arrival(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        waits = []
        for weight in (2, 1, 1, 2, 1):
            decision = await get(bucket.reserve(RateItem("b", t, weight), 1 << 40, 0))
            assert decision.allowed
            waits.append(decision.wait_ms)
        assert waits == sorted(waits)
        assert waits[-1] > waits[0]

    @needs(reserves=True)
    @scenario
    async def test_nobody_goes_before_those_who_have_reserved(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert (await get(bucket.reserve(RateItem("heavy", t, 4), 1 << 40, 0))).wait_ms > 0
        light = RateItem("light", t + 1, 1)  # the heavy one would lack its room
        assert not await get(bucket.put(light))
        wait = await get(bucket.waiting(light))
        assert wait >= self._frees_at(bucket, 3, t) - t - 1
        assert not (await get(bucket.check(light))).allowed

    @needs(reserves=True)
    @scenario
    async def test_a_cancelled_reservation_leaves_nothing_behind(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        before = await get(bucket.count())
        item = RateItem("b", t, 4)
        reservation = await self._reserved(bucket, item)
        assert not await get(bucket.put(RateItem("c", t + 1, 1)))
        assert await get(bucket.cancel(reservation)) is True
        assert await get(bucket.cancel(reservation)) is False
        assert await get(bucket.count()) == before
        assert await get(bucket.put(RateItem("c", t + 1, 1)))

    @needs(reserves=True)
    @scenario
    async def test_a_late_waiter_is_recorded_at_the_true_time(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        item = RateItem("b", t, 2)
        reservation = await self._reserved(bucket, item)
        late = item.timestamp + 300
        decision = await get(bucket.confirm(reservation, late, 1 << 40))
        assert decision.allowed
        assert decision.wait_ms == 0
        frees = self._frees_at(bucket, 1, late)
        assert not await get(bucket.put(RateItem("c", frees - 1)))
        assert await get(bucket.put(RateItem("c", frees)))

    @needs(reserves=True, manual_clock=True)
    @scenario
    async def test_a_waiter_that_went_while_the_clock_was_ahead_blocks_nobody(self) -> None:
        bucket, t = await self._new(self._rate(2))
        clock: Any = bucket._clock
        assert await get(bucket.put(RateItem("a", t, 2)))
        item = RateItem("b", t, 2)
        reservation = await self._reserved(bucket, item)
        ahead, back = t + 3_600_000, t + 2 * self.interval_ms
        clock.set(ahead)
        assert (await get(bucket.confirm(reservation, ahead))).allowed
        clock.set(back)
        decision = await get(bucket.reserve(RateItem("c", back, 2), 3 * self.interval_ms))
        assert decision.allowed

    @needs(reserves=True)
    @scenario
    async def test_a_waiter_whose_reservation_is_gone_reserves_anew(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        item = RateItem("b", t, 2)
        reservation = await self._reserved(bucket, item)
        await get(bucket.flush())
        due = item.timestamp
        assert (await get(bucket.confirm(reservation, due))).allowed
        assert not await get(bucket.put(RateItem("c", due)))

    @needs(reserves=True)
    @scenario
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
            confirmed = await get(bucket.confirm(_reservation(decision), item.timestamp))
            assert confirmed.wait_ms == 0

    @needs(reserves=True)
    @scenario
    async def test_reservations_for_several_end_with_the_first_refusal(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        max_wait = self._frees_at(bucket, 2, t) - t
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

    @needs(reserves=True)
    @scenario
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

    @needs(reserves=True)
    @scenario
    async def test_a_part_of_a_reservation_can_be_cancelled(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 4)))
        item = RateItem("b", t, 4)
        reservation = await self._reserved(bucket, item)
        assert await get(bucket.count()) == 8
        item.weight = 1
        assert await get(bucket.cancel(reservation.part(3))) is True
        assert await get(bucket.count()) == 5
        moment = int(item.timestamp)
        assert (await get(bucket.confirm(reservation, moment))).wait_ms == 0
        assert await get(bucket.put(RateItem("c", moment + 1, 3)))
        assert not await get(bucket.put(RateItem("c", moment + 1)))

    @needs(reserves=True)
    @scenario
    async def test_room_that_was_given_back_between_reservations_is_used(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        items = [RateItem("b", t, 2) for _ in range(3)]
        first, second, third = [await self._reserved(bucket, item) for item in items]
        freed, last = int(items[1].timestamp), int(items[2].timestamp)
        assert await get(bucket.cancel(second)) is True
        light = await self._reserved(bucket, RateItem("c", t, 1))
        heavy = await self._reserved(bucket, RateItem("d", t, 2))
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

    @needs(reserves=False)
    @scenario
    async def test_without_a_reserve_of_its_own_that_is_put_decision(self) -> None:
        bucket, t = await self._new(self._rate(1))
        item = RateItem("a", t)
        assert await get(bucket.put(item))
        decision = await get(bucket.reserve(item, 1 << 40))
        assert not decision.allowed
        assert decision.retry_after_ms == self._frees_at(bucket, 1, t) - t
        none = Reservation(item)
        assert await get(bucket.cancel(none)) is False
        assert (await get(bucket.confirm(none, t))).allowed

    # hold -----------------------------------------------------------------------------------

    @needs(holds=False)
    @scenario
    async def test_a_bucket_that_cannot_hold_says_so(self) -> None:
        bucket, t = await self._new(self._rate(1))
        with pytest.raises(CannotHold):
            await get(bucket.hold(RateItem("a", t, 0), 1))
        with pytest.raises(CannotHold):
            await get(bucket.release_hold(RateItem("a", t, 0)))

    @needs(holds=True, manual_clock=True)
    @scenario
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
            assert looked.reset_after_ms >= t + length - now
        assert await get(bucket.put(RateItem("a", t + 1, 0)))  # takes nothing
        if self._is_log(bucket):
            assert await get(bucket.count()) == 1

    @needs(holds=True, manual_clock=True)
    @scenario
    async def test_a_hold_takes_no_units(self) -> None:
        bucket, t = await self._new(self._rate(3))
        end = t + self.interval_ms + 5
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        assert await get(bucket.put(RateItem("a", end, 3)))
        assert not await get(bucket.put(RateItem("a", end, 1)))
        frees = self._frees_at(bucket, 3, end)
        assert (await get(bucket.check(RateItem("a", end, 3)))).retry_after_ms == frees - end
        assert await get(bucket.put(RateItem("a", frees, 3)))
        if self._is_log(bucket):
            assert (await get(bucket.peek(5))).timestamp == end
            assert await get(bucket.peek(6)) is None

    @needs(holds=True, manual_clock=True)
    @scenario
    async def test_what_was_full_waits_for_the_later_of_both(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        frees = self._frees_at(bucket, 2, t)
        await get(bucket.hold(RateItem("a", t, 0), 10))
        look = RateItem("a", t, 2)
        assert (await get(bucket.check(look))).retry_after_ms == frees - t
        await get(bucket.hold(RateItem("a", t, 0), frees - t + 1))
        assert (await get(bucket.check(look))).retry_after_ms == frees - t + 1

    @needs(holds=True, manual_clock=True)
    @scenario
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

    @needs(holds=True)
    @scenario
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

    @needs(holds=True, manual_clock=True)
    @scenario
    async def test_a_hold_outlasts_all_that_is_stored(self) -> None:
        bucket, t = await self._new(self._rate(2))
        length = 20 * self.interval_ms
        assert await get(bucket.put(RateItem("a", t, 2)))
        await get(bucket.hold(RateItem("a", t, 0), length))
        late = t + 19 * self.interval_ms
        await get(bucket.leak(late))
        clock: Any = bucket._clock
        clock.set(late)
        await get(bucket.leak())
        assert await get(bucket.count()) == 0
        decision = await get(bucket.check(RateItem("a", late)))
        assert decision.retry_after_ms == t + length - late
        assert await get(bucket.put(RateItem("a", t + length, 2)))

    @needs(holds=True, reserves=True, manual_clock=True)
    @scenario
    async def test_who_has_reserved_goes_after_a_hold_that_came_later(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        reservations = [await self._reserved(bucket, RateItem("b", t)) for _ in range(3)]
        end = t + 10 * self.interval_ms
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        moved = []
        for reservation in reservations:
            assert reservation.wait_ms
            now = int(reservation.item.timestamp)
            decision = await get(bucket.confirm(reservation, now, 1 << 40))
            assert now + decision.wait_ms >= end
            moved.append(_reservation(decision))
        gone = []
        for decision in moved:
            now = int(decision.item.timestamp)
            while (decision := await get(bucket.confirm(decision, now, 1 << 40))).wait_ms:
                now += decision.wait_ms
            assert decision.allowed
            gone.append(now)
        gone.sort()  # whoever is at the front of a line takes the first
        assert gone[0] >= end
        assert gone[1] <= end + self.interval_ms
        assert gone[2] >= self._frees_at(bucket, 1, end)

    @needs(holds=True, reserves=True, manual_clock=True)
    @scenario
    async def test_a_reservation_that_cannot_wait_for_a_hold_is_cancelled(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 2)))
        item = RateItem("b", t, 2)
        reservation = await self._reserved(bucket, item)
        now, end = int(item.timestamp), t + 10 * self.interval_ms
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        decision = await get(bucket.confirm(reservation, now, end - now - 1))
        assert decision.retry_after_ms == end - now
        assert await get(bucket.put(RateItem("a", end, 2)))

    @needs(holds=True, reserves=True, manual_clock=True)
    @scenario
    async def test_reservations_during_a_hold_are_for_when_it_is_over(self) -> None:
        bucket, t = await self._new(self._rate(2))
        end = t + 5 * self.interval_ms
        await get(bucket.hold(RateItem("a", t, 0), end - t))
        assert not await get(bucket.reserve(RateItem("b", t), end - t - 1, 0))
        reservations = [await self._reserved(bucket, RateItem("b", t)) for _ in range(3)]
        assert [t + reservation.wait_ms for reservation in reservations[:2]] == [end, end]
        assert t + reservations[2].wait_ms == self._frees_at(bucket, 1, end)
        assert await get(bucket.release_hold(RateItem("a", t, 0)))
        for reservation in reservations:
            assert await get(bucket.cancel(reservation))
        assert await get(bucket.put(RateItem("c", t, 2)))

    @needs(holds=True, manual_clock=True)
    @scenario
    async def test_a_hold_is_no_longer_than_it_was_when_the_clock_steps_back(self) -> None:
        bucket, t = await self._new(self._rate(2))
        clock: Any = bucket._clock
        await get(bucket.hold(RateItem("a", t, 0), 1000))
        clock.set(t - 3_600_000)
        limiter = Limiter(limiter_module.SingleBucketFactory(bucket, schedule_leak=False))
        assert await get(limiter.try_acquire("a", blocking=False)) is False
        assert (await limiter.check_async("a")).retry_after_ms <= 1000  # type: ignore[operator]
        clock.advance(1000)
        assert await get(limiter.try_acquire("a", blocking=False)) is True

    # Under a Limiter ----------------------------------------------------------------------------

    async def _limiter(
        self, limit: int, *, waits: bool = False
    ) -> tuple[Limiter, AbstractBucket, Any]:
        """A limiter on a bucket that is empty, and what makes its waits short.

        Only who ``waits`` for room in real time has a short interval: it could pass while a busy
        machine holds up a test that counts on being refused.
        """
        interval = self.interval_ms // 100 if waits and not self.manual_clock else self.interval_ms
        bucket, _ = await self._new(Rate(limit, interval))
        shorten: Any = _real_sleep()
        if self.manual_clock:
            shorten = sleeping_advances(bucket._clock)  # type: ignore[arg-type] # a manual one
        limiter = Limiter(limiter_module.SingleBucketFactory(bucket, schedule_leak=False))
        return limiter, bucket, shorten

    @scenario
    async def test_limiter_without_blocking_takes_what_is_free(self) -> None:
        limiter, bucket, _ = await self._limiter(3)
        assert await get(limiter.try_acquire("a", 2, blocking=False)) is True
        assert await get(limiter.try_acquire("a", 2, blocking=False)) is False
        assert await limiter.try_acquire_async("a", 1, blocking=False) is True
        assert await limiter.try_acquire_async("a", 1, blocking=False) is False
        assert await get(limiter.try_acquire("a", 0, blocking=False)) is True
        assert await get(bucket.count()) == 3

    @scenario
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

    @needs(holds=True)
    @scenario
    async def test_limiter_holds_and_releases(self) -> None:
        limiter, bucket, shorten = await self._limiter(2)
        length = self.interval_ms / 1000 if self.manual_clock else 0.3
        assert await limiter.hold_async("a", 3600) == 3600
        assert await limiter.hold_async("a", length) > length
        assert await get(limiter.try_acquire("a", blocking=False)) is False
        assert await limiter.try_acquire_async("a", blocking=False) is False
        assert 3590_000 < (await limiter.check_async("a")).retry_after_ms <= 3600_000  # type: ignore[operator]
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

    @scenario
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

    @scenario
    async def test_limiter_with_timeout_zero_does_not_wait(self) -> None:
        limiter, _, shorten = await self._limiter(1)
        with shorten as slept:
            assert await get(limiter.try_acquire("a", timeout=0)) is True
            assert await get(limiter.try_acquire("a", timeout=0)) is False
            assert await limiter.try_acquire_async("a", timeout=0) is False
        assert not slept

    @scenario
    async def test_limiter_waits_in_time_for_a_timeout_that_is_long_enough(self) -> None:
        limiter, bucket, shorten = await self._limiter(1, waits=True)
        timeout = bucket.rates[0].interval * 3 / 1000
        with shorten:
            assert await get(limiter.try_acquire("a", timeout=timeout)) is True
            assert await get(limiter.try_acquire("a", timeout=timeout)) is True
            assert await limiter.try_acquire_async("a", timeout=timeout) is True

    @scenario
    async def test_limiter_refuses_at_once_what_can_never_fit(self) -> None:
        limiter, bucket, shorten = await self._limiter(2)
        with shorten as slept:
            assert await get(limiter.try_acquire("a", 3)) is False
            assert await limiter.try_acquire_async("a", 3) is False
        assert not slept
        assert await get(bucket.count()) == 0

    @scenario
    async def test_limiter_refuses_a_negative_weight(self) -> None:
        limiter, _, _ = await self._limiter(2)
        with pytest.raises(ValueError, match="weight"):
            await get(limiter.try_acquire("a", -1))
        with pytest.raises(ValueError, match="weight"):
            await limiter.try_acquire_async("a", -1)

    @scenario
    async def test_limiter_gives_back_what_a_cancelled_waiter_has_reserved(self) -> None:
        bucket, _ = await self._new(self._rate(1))
        limiter = Limiter(limiter_module.SingleBucketFactory(bucket, schedule_leak=False))
        assert await limiter.try_acquire_async("a") is True
        before = await get(bucket.count())
        waiter = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await asyncio.sleep(0.02)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert await get(bucket.count()) == before

    @scenario
    async def test_limiter_without_reserving_ahead_waits_as_well(self) -> None:
        bucket, _ = await self._new(Rate(1, _BUSY_MS))
        bucket._clock = type(bucket)._clock if not self.manual_clock else bucket._clock
        factory = limiter_module.SingleBucketFactory(bucket, schedule_leak=False)
        limiter = Limiter(factory, reserve_ahead=False)
        if not self.manual_clock:
            assert await limiter.try_acquire_async("a")
            assert await limiter.try_acquire_async("a")
            return
        with sleeping_advances(bucket._clock):  # type: ignore[arg-type] # a manual one
            for _ in range(3):
                assert await limiter.try_acquire_async("a") is True
                assert await get(limiter.try_acquire("a")) is True

    # In real time -------------------------------------------------------------------------------

    def test_callers_together_keep_to_the_limit(self) -> None:
        self._made = []
        limit = 4
        bucket = self.make_bucket([Rate(limit, _BUSY_MS)])
        if _belongs_to_a_loop(bucket):
            self.test_tasks_together_keep_to_the_limit()
            return
        limiter = Limiter(limiter_module.SingleBucketFactory(bucket, schedule_leak=False))  # type: ignore[arg-type] # it is no awaitable
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
        self._assert_paced(limiter.bucket_factory, begun, ends, limit)

    @scenario
    async def test_tasks_together_keep_to_the_limit(self) -> None:
        limit, calls = 4, 12
        bucket = await get(self.make_bucket([Rate(limit, _BUSY_MS)]))
        self._made.append(bucket)
        limiter = Limiter(limiter_module.SingleBucketFactory(bucket, schedule_leak=False))
        ends: list[float] = []

        async def work() -> None:
            assert await limiter.try_acquire_async("a") is True
            ends.append(time.monotonic())

        begun = time.monotonic()
        await asyncio.gather(*(work() for _ in range(calls)))
        self._assert_paced(limiter.bucket_factory, begun, ends, limit)

    @staticmethod
    def _assert_paced(factory: Any, begun: float, ends: list[float], limit: int) -> None:
        """No admission comes earlier than the rate lets it, counted from the very beginning.

        A thread may be held up between its admission and its stamp, which can only make the stamp
        later: so the k-th stamp has a lower bound, and a difference of two stamps has none.
        """
        algorithm = factory.bucket._algorithm
        ends.sort()
        for place, end in enumerate(ends):
            if isinstance(algorithm, StateAlgorithm):
                earliest = max(0, place - limit + 1) * _BUSY_MS / limit
            else:
                earliest = place // limit * _BUSY_MS
                if isinstance(algorithm, FixedWindow):
                    earliest -= _BUSY_MS
            assert end - begun >= earliest / 1000 - 0.001


def _belongs_to_a_loop(bucket: Any) -> bool:
    """Whether the bucket, or one of its methods, has to be awaited."""
    answers = [bucket]
    if not is_awaitable(bucket):
        answers += [bucket.leak(0), bucket.count(), bucket.peek(0), bucket.now()]
        answers.append(bucket.put(RateItem("probe", 0, 0)))
    asynchronous = any(map(is_awaitable, answers))
    for answer in answers:
        discard(answer)
    return asynchronous


class _real_sleep:  # noqa: N801 - used like the function whose place it takes
    """Let waits take the time they take."""

    def __enter__(self) -> list[float]:
        return []

    def __exit__(self, *_: object) -> None:
        return
