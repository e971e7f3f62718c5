"""Stores that users write: with the methods of 4.5.1 alone, or over one of ours."""

import pytest

from pyrate_limiter import (
    GCRA,
    Decision,
    InMemoryStateStore,
    Limiter,
    Rate,
    RateItem,
    SQLiteStateStore,
    StateBucket,
    StateStore,
)
from pyrate_limiter.errors import CannotHold
from pyrate_limiter.testing import ManualClock, StateStoreConformance, sleeping_advances


class Plain(StateStore):
    """What 4.5.1 asks of a store, and nothing else."""

    def __init__(self):
        self.state = None

    def check(self, algorithm, rates, now, weight):
        state = Plain.read(self, algorithm, rates)
        self.state, decision = algorithm.step(rates, state, now, weight)
        return decision

    def read(self, algorithm, rates):
        return algorithm.initial(rates) if self.state is None else self.state

    def reset(self):
        self.state = None


class Awaited(Plain):
    is_async = True

    async def check(self, algorithm, rates, now, weight):
        return super().check(algorithm, rates, now, weight)

    async def read(self, algorithm, rates):
        return super().read(algorithm, rates)

    async def reset(self):
        super().reset()


class Counting(InMemoryStateStore):
    """One of ours that counts, as a program for 4.5.1 would write it."""

    __slots__ = ("checks",)

    def __init__(self):
        super().__init__()
        self.checks = 0

    def check(self, algorithm, rates, now, weight):
        self.checks += 1
        return super().check(algorithm, rates, now, weight)


class Counts:
    """The same for whatever it is mixed into."""

    checks = 0

    def check(self, algorithm, rates, now, weight):
        self.checks += 1
        return super().check(algorithm, rates, now, weight)


class CountingFile(Counts, SQLiteStateStore):
    pass


class Reserving(InMemoryStateStore):
    """One of ours that knows of reservations too."""

    __slots__ = ("waits",)

    def __init__(self):
        super().__init__()
        self.waits = []

    def reserve(self, *terms, **more):
        decision = super().reserve(*terms, **more)
        self.waits.append(decision.wait_ms)
        return decision


class PlainConformance(StateStoreConformance):
    reserves = reserves_several = holds = False


class TestPlainStore(PlainConformance):
    def make_store(self):
        return Plain()


class TestAwaitedStore(PlainConformance):
    def make_store(self):
        return Awaited()


class TestCountingStore(StateStoreConformance):
    def make_store(self):
        return Counting()


class TestReservingStore(StateStoreConformance):
    def make_store(self):
        return Reserving()


@pytest.mark.parametrize(
    ("kind", "reserves"),
    [
        (Plain, False),
        (Awaited, False),
        (Counting, False),
        (CountingFile, False),
        (Reserving, True),
        (InMemoryStateStore, True),
        (SQLiteStateStore, True),
    ],
)
def test_a_store_reserves_unless_its_check_is_of_another_class(kind, reserves):
    assert kind.reserves is reserves


@pytest.mark.parametrize("make", [Counting, lambda: CountingFile(":memory:", "key")])
def test_a_check_of_ones_own_over_a_store_of_ours_judges_every_call(make):
    clock = ManualClock(1_000_000)
    with StateBucket([Rate(2, 1000, burst=1)], store=make(), clock=clock) as bucket:
        limiter = Limiter(bucket, buffer_ms=0)
        with sleeping_advances(clock):
            assert limiter.try_acquire("a", blocking=False)
            assert not limiter.try_acquire("a", blocking=False)
            assert limiter.try_acquire("a")
        assert clock.now() == 1_000_500
        assert bucket.store.checks >= 3


def test_a_store_of_4_5_1_cannot_hold():
    bucket = StateBucket([Rate(2, 1000)], GCRA(), Plain(), ManualClock(0))
    with pytest.raises(CannotHold):
        bucket.hold(RateItem("a", 0, 0), 1000)
    with pytest.raises(CannotHold):
        bucket.release_hold(RateItem("a", 0, 0))


class Away(InMemoryStateStore):
    """One whose record cannot be had in time."""

    __slots__ = ()

    def transact(self, rules, use, within_ms=None, instead=None, undo=None):
        return instead(Decision(rules.rates[0], 5))


def test_where_the_record_cannot_be_had_several_are_refused_as_one_is():
    rate, clock = Rate(1, 1000), ManualClock(0)
    items, refusal = [RateItem("a", 0), RateItem("a", 0)], Decision(rate, 5)
    assert Away().reserve(GCRA(), [rate], items[0], 0, 0, clock) == refusal
    assert Away().reserve_several(GCRA(), [rate], items, 0, 0, None, clock) == [refusal]
