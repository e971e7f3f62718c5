"""What every state store has to do, as a pytest class. Importing this module needs pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.abstracts.algorithm import GCRA
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.testing._bucket_conformance import reservation_of
from pyrate_limiter.testing._suite import Suite, get, scenario
from pyrate_limiter.testing.clocks import ManualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.store import StateStore

_NOW = 1_000_000_000  # ms


def _assert_goes(confirmed: Decision) -> None:
    assert confirmed.allowed
    assert confirmed.wait_ms == 0


class StateStoreConformance(Suite, suite=True):
    """Holds a state store, sync or async, to what `StateBucket` relies on.

    Subclass it in a test module, under a name that pytest collects, and say how to make a store:

        class TestMyStore(StateStoreConformance):
            def make_store(self):
                return MyStore()

    The store has to be empty each time.
    """

    manual_time: bool = True
    """Whether the store goes by the time that it is told. False for one that asks a server."""

    reserves: bool = True
    """Whether it has `StateStore.reserve`, `confirm` and `cancel`. False for a store of 4.5.1."""

    reserves_several: bool = True
    """Whether it has `StateStore.reserve_several` of its own."""

    holds: bool = True
    """Whether it has `StateStore.hold` and `release_hold`."""

    def make_store(self) -> StateStore | Awaitable[StateStore]:
        """A new store with nothing in it."""
        raise NotImplementedError

    async def _new(self) -> StateStore:
        store = await get(self.make_store())
        self._made.append(store)
        return store

    @scenario()
    async def test_a_new_store_reads_the_initial_state(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(5, 1000), Rate(20, 10_000)]
        assert tuple(await get(store.read(policy, rates))) == policy.initial(rates)

    @scenario()
    async def test_admits_the_burst_and_then_refuses_with_the_wait(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(5, 60_000)]
        for _ in range(5):
            decision = await get(store.check(policy, rates, _NOW, 1))
            assert decision.failing_rate is None
        before = await get(store.read(policy, rates))
        refused = await get(store.check(policy, rates, _NOW, 1))
        assert refused.failing_rate == rates[0]
        assert 0 < (refused.retry_after_ms or 0) <= 12_000
        assert await get(store.read(policy, rates)) == before

    @scenario(manual_time=True)
    async def test_what_is_stored_is_the_policys_own_state(self) -> None:
        store, policy = await self._new(), GCRA()
        rates = [Rate(5, 1000), Rate(20, 10_000)]
        expected = policy.initial(rates)
        for step in range(3):
            expected, _ = policy.step(rates, expected, _NOW + step, 2)
            await get(store.check(policy, rates, _NOW + step, 2))
            assert tuple(await get(store.read(policy, rates))) == expected

    @scenario(manual_time=True)
    async def test_the_wait_is_exact(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(2, 1000)]
        await get(store.check(policy, rates, _NOW, 2))
        refused = await get(store.check(policy, rates, _NOW, 1))
        assert refused.retry_after_ms == 500
        early = await get(store.check(policy, rates, _NOW + 499, 1))
        assert early.failing_rate == rates[0]
        in_time = await get(store.check(policy, rates, _NOW + 500, 1))
        assert in_time.failing_rate is None

    @scenario()
    async def test_a_weight_above_the_burst_never_fits(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(5, 1000, burst=3)]
        refused = await get(store.check(policy, rates, _NOW, 4))
        assert refused.failing_rate == rates[0]
        assert refused.retry_after_ms is None

    @scenario()
    async def test_reset_forgets_the_state(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(5, 60_000)]
        await get(store.check(policy, rates, _NOW, 5))
        await get(store.reset())
        assert tuple(await get(store.read(policy, rates))) == policy.initial(rates)
        decision = await get(store.check(policy, rates, _NOW, 5))
        assert decision.failing_rate is None

    @scenario()
    async def test_close_may_be_called_again(self) -> None:
        store = await self._new()
        close: Callable[[], object] = store.close
        await get(close())
        await get(close())

    @scenario(reserves=True, manual_time=True)
    async def test_reservations_stand_in_line_and_can_be_cancelled(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(2, 1000, burst=1)]
        clock = ManualClock(_NOW)
        items = [RateItem("name", _NOW) for _ in range(3)]
        reservations = [
            reservation_of(await get(store.reserve(policy, rates, item, 60_000, 0, clock)))
            for item in items
        ]
        assert [reservation.wait_ms for reservation in reservations] == [0, 500, 1000]
        assert [reservation.item for reservation in reservations] == items
        assert [item.timestamp - _NOW for item in items] == [0, 500, 1000]
        clock.advance(400)
        refused = await get(store.check(policy, rates, _NOW + 400, 1))
        assert refused.retry_after_ms == 1100
        assert await get(store.cancel(policy, rates, reservations[2])) is True
        assert await get(store.cancel(policy, rates, reservations[2])) is False
        told = await get(store.forecast(policy, rates, _NOW + 400, 1, clock))
        assert told.retry_after_ms == 600
        clock.advance(100)
        going = store.confirm(policy, rates, reservations[1], _NOW + 500, 60_000, clock)
        _assert_goes(await get(going))

    @scenario(reserves_several=True, manual_time=True)
    async def test_a_line_reserves_for_several_and_cancels_parts(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(2, 1000)]
        clock = ManualClock(_NOW)
        items = [RateItem("name", _NOW, weight) for weight in (2, 1, 2, 1, 2)]
        line = await get(store.reserve_several(policy, rates, items, 2000, 0, None, clock))
        assert [decision.wait_ms for decision in line[:-1]] == [0, 500, 1500, 2000]
        assert line[-1].retry_after_ms == 3000
        halves = [reservation_of(line[2]).part(weight) for weight in (1, 2, 1)]
        assert await get(store.cancel(policy, rates, halves[0])) is True
        assert await get(store.cancel(policy, rates, halves[1])) is False
        other, bound = RateItem("other", _NOW), items[1].timestamp
        (found,) = await get(store.reserve_several(policy, rates, [other], 2000, 0, bound, clock))
        assert (found.wait_ms, other.timestamp) == (1500, items[2].timestamp)
        for reservation in map(reservation_of, (line[1], halves[2], found, line[3])):
            moment = reservation.item.timestamp
            clock.set(moment)
            going = store.confirm(policy, rates, reservation, moment, 0, clock)
            _assert_goes(await get(going))

    @scenario(reserves=True, manual_time=True)
    async def test_who_comes_late_is_told_when_to_go_or_refused(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(1, 1000)]
        clock = ManualClock(_NOW)
        items = [RateItem("name", _NOW) for _ in range(4)]
        _, *waiting = [
            reservation_of(await get(store.reserve(policy, rates, item, 60_000, 0, clock)))
            for item in items
        ]
        clock.advance(1900)
        late = store.confirm(policy, rates, waiting[0], _NOW + 1900, 60_000, clock)
        _assert_goes(await get(late))
        clock.advance(100)
        moved = await get(store.confirm(policy, rates, waiting[1], _NOW + 2000, 60_000, clock))
        assert isinstance(moved, Reservation)
        assert (moved.wait_ms, moved.item.timestamp) == (900, _NOW + 2900)
        clock.advance(900)
        going = store.confirm(policy, rates, moved, _NOW + 2900, 0, clock)
        _assert_goes(await get(going))
        clock.advance(100)
        refused = await get(store.confirm(policy, rates, waiting[2], _NOW + 3000, 500, clock))
        assert refused.retry_after_ms == 900
        assert await get(store.cancel(policy, rates, waiting[2])) is False

    @scenario(holds=True, manual_time=True)
    async def test_a_store_that_holds_admits_nothing_before_the_end(self) -> None:
        store, policy, rates = await self._new(), GCRA(), [Rate(2, 1000)]
        clock = ManualClock(_NOW)
        assert await get(store.hold(policy, rates, _NOW, 5000, clock)) == 5000
        clock.advance(1000)
        assert await get(store.hold(policy, rates, _NOW + 1000, 3000, clock)) == 4000
        refused = await get(store.check(policy, rates, _NOW + 1000, 1))
        assert refused.retry_after_ms == 4000
        clock.advance(4000)
        assert (await get(store.check(policy, rates, _NOW + 5000, 2))).allowed
        assert not (await get(store.check(policy, rates, _NOW + 5000, 1))).allowed
        assert await get(store.release_hold(policy, rates, _NOW + 5000, clock)) is False
        clock.advance(1000)
        await get(store.hold(policy, rates, _NOW + 6000, 60_000, clock))
        assert await get(store.release_hold(policy, rates, _NOW + 6000, clock)) is True
        assert (await get(store.check(policy, rates, _NOW + 6000, 2))).allowed
        await get(store.hold(policy, rates, _NOW + 6000, 60_000, clock))
        await get(store.reset())
        assert (await get(store.check(policy, rates, _NOW + 6000, 2))).allowed
