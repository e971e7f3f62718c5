"""What a bucket admits, stores, and says of the wait."""

from __future__ import annotations

import pytest

from pyrate_limiter._engine.native import stores_ahead
from pyrate_limiter.abstracts.algorithm import FixedWindow, SlidingWindowLog
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.testing._bucket_conformance import (
    BucketSuite,
    frees_at,
    is_log,
    manual,
    unit_of,
)
from pyrate_limiter.testing._suite import get, scenario


class Storing(BucketSuite, suite=True):
    """A bucket admits what fits, refuses the rest, and says when it will fit."""

    @scenario()
    async def test_admits_up_to_the_limit_and_then_refuses(self) -> None:
        bucket, t = await self._new(self._rate(4))
        for _ in range(4):
            assert await get(bucket.put(RateItem("a", t))) is True
            assert bucket.failing_rate is None
        assert await get(bucket.put(RateItem("a", t))) is False
        assert bucket.failing_rate == bucket.rates[0]

    @scenario()
    async def test_an_admitted_item_clears_failing_rate(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert not await get(bucket.put(RateItem("a", t, 2)))
        assert bucket.failing_rate == bucket.rates[0]
        assert await get(bucket.put(RateItem("a", t)))
        assert bucket.failing_rate is None

    @scenario()
    async def test_takes_all_units_of_an_item_or_none(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert not await get(bucket.put(RateItem("a", t, 2)))
        assert await get(bucket.count()) == 3
        assert await get(bucket.put(RateItem("a", t, 1)))
        assert await get(bucket.count()) == 4

    @scenario()
    async def test_weight_zero_is_admitted_and_stores_nothing(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t, 0)))
        assert await get(bucket.count()) == 0
        assert await get(bucket.put(RateItem("a", t, 2)))
        assert not await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.put(RateItem("a", t, 0)))
        assert bucket.failing_rate is None
        assert await get(bucket.count()) == 2

    @scenario()
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

    @scenario()
    async def test_the_first_moment_that_fits_is_exact(self) -> None:
        for weight in (1, 2, 4):
            bucket, t = await self._new(self._rate(4))
            frees = frees_at(bucket, weight, t)
            assert await get(bucket.put(RateItem("a", t, 4)))
            assert not await get(bucket.put(RateItem("a", frees - 1, weight)))
            assert await get(bucket.put(RateItem("a", frees, weight)))

    @scenario()
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

    @scenario()
    async def test_an_item_changed_after_put_changes_nothing(self) -> None:
        bucket, t = await self._new(self._rate(4))
        item = RateItem("before", t, 4)
        assert await get(bucket.put(item))
        item.name, item.timestamp, item.weight = "after", 0, 1
        assert await get(bucket.count()) == 4
        assert not await get(bucket.put(RateItem("a", t)))
        if is_log(bucket):
            newest = await unit_of(bucket, 0)
            assert (newest.name, newest.timestamp) == ("before", t)

    @scenario()
    async def test_waiting_is_zero_after_an_admitted_item(self) -> None:
        bucket, t = await self._full(1)
        assert await get(bucket.waiting(RateItem("a", t))) == 0

    @scenario()
    async def test_waiting_counts_from_the_items_own_timestamp(self) -> None:
        bucket, t = await self._full(4)
        assert not await get(bucket.put(RateItem("a", t)))
        frees = frees_at(bucket, 1, t)
        assert await get(bucket.waiting(RateItem("a", t))) == frees - t
        assert await get(bucket.waiting(RateItem("a", t + 7))) == frees - t - 7
        assert await get(bucket.waiting(RateItem("a", frees))) == 0
        assert await get(bucket.waiting(RateItem("a", frees + 100))) == 0

    @scenario()
    async def test_waiting_is_computed_anew_for_another_weight(self) -> None:
        bucket, t = await self._full(4)
        assert not await get(bucket.put(RateItem("a", t)))
        for weight in (3, 1, 4):
            frees = frees_at(bucket, weight, t)
            assert await get(bucket.waiting(RateItem("a", t, weight))) == frees - t
        assert await get(bucket.waiting(RateItem("a", t, 5))) == -1

    @scenario()
    async def test_put_decision_says_what_put_and_waiting_say(self) -> None:
        bucket, t = await self._new(self._rate(2))
        decision = await get(bucket.put_decision(RateItem("a", t, 2)))
        assert decision.allowed
        assert decision.failing_rate is None
        decision = await get(bucket.put_decision(RateItem("a", t)))
        assert not decision.allowed
        assert decision.failing_rate == bucket.failing_rate == bucket.rates[0]
        assert decision.retry_after_ms == frees_at(bucket, 1, t) - t

    @scenario()
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
            assert decision.retry_after_ms == frees_at(bucket, 1, t) - t
        assert (await get(bucket.check(RateItem("a", t, 3)))).retry_after_ms is None

    @scenario(units=True)
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

    @scenario(units=False)
    async def test_a_state_leaks_nothing_and_shows_no_unit(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        assert await get(bucket.leak(t + self.interval_ms * 9)) == 0
        assert await get(bucket.leak()) == 0
        assert await get(bucket.peek(0)) is None
        assert await get(bucket.count()) == 3

    @scenario(units=False, manual_clock=True)
    async def test_a_states_count_is_the_units_owed_now_rounded_up(self) -> None:
        bucket, t = await self._new(self._rate(4))
        assert await get(bucket.put(RateItem("a", t, 3)))
        quarter = self.interval_ms // 4
        for elapsed, owed in ((1, 3), (quarter, 2), (quarter + 1, 2), (3 * quarter, 0)):
            manual(bucket).set(t + elapsed)
            assert await get(bucket.count()) == owed

    @scenario()
    async def test_flush_empties_the_bucket(self) -> None:
        bucket, t = await self._full(2)
        assert not await get(bucket.put(RateItem("a", t)))
        await get(bucket.flush())
        assert bucket.failing_rate is None
        assert await get(bucket.count()) == 0
        assert await get(bucket.peek(0)) is None
        assert await get(bucket.waiting(RateItem("a", t))) == 0
        assert await get(bucket.put(RateItem("a", t, 2)))

    @scenario(units=True)
    async def test_count_includes_what_has_expired_and_was_not_leaked(self) -> None:
        bucket, t = await self._new(Rate(100, 3000))
        assert await get(bucket.put(RateItem("a", t, 100)))
        for _ in range(100):
            assert await get(bucket.put(RateItem("a", t + 3001)))
        assert await get(bucket.count()) == 200

    @scenario(units=True)
    async def test_peek_counts_from_the_newest(self) -> None:
        bucket, t = await self._new(self._rate(9))
        for place, name in enumerate("abc"):
            assert await get(bucket.put(RateItem(name, t + place, place + 1)))
        units = [await unit_of(bucket, place) for place in range(6)]
        assert [unit.name for unit in units] == list("cccbba")
        assert [unit.timestamp - t for unit in units] == [2, 2, 2, 1, 1, 0]
        assert await get(bucket.peek(6)) is None
        assert await get(bucket.peek(100)) is None

    @scenario()
    async def test_names_may_have_any_characters(self) -> None:
        bucket, t = await self._new(self._rate(len(self.names)))
        for name in self.names:
            assert await get(bucket.put(RateItem(name, t)))
        assert not await get(bucket.put(RateItem("a", t)))
        assert await get(bucket.count()) == len(self.names)
        if is_log(bucket):
            units = [await unit_of(bucket, place) for place in range(len(self.names))]
            assert sorted(unit.name for unit in units) == sorted(self.names)

    @scenario()
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

    @scenario()
    async def test_close_may_be_called_again(self) -> None:
        bucket, t = await self._new(self._rate(2))
        assert await get(bucket.put(RateItem("a", t)))
        with bucket as entered:
            assert entered is bucket
        bucket.close()
        bucket.close()
