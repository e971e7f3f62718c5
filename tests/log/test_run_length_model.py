"""`UnitLog` against a plain list of (timestamp, name), oldest first."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyrate_limiter.buckets.log.run_length import UnitLog

NAMES = st.sampled_from(["a", "b", "c"])
WEIGHTS = st.integers(1, 4)


class UnitLogMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.log = UnitLog()
        self.log._empty()
        self.units = []

    def stored(self, stamp, name):
        return [u for u in self.units if u == (stamp, name)]

    def without(self, stamp, name, weight):
        """The newest of that time and name are taken."""
        units = self.units[::-1]
        for _ in range(weight):
            units.remove((stamp, name))
        return units[::-1]

    @property
    def newest(self):
        return self.units[-1][0] if self.units else 0

    @rule(name=NAMES, weight=WEIGHTS, later=st.integers(0, 3))
    def append(self, name, weight, later):
        stamp = max(self.newest, self.log._newest) + later if self.units else later
        self.log._append(name, weight, stamp)
        self.units += [(stamp, name)] * weight

    @rule(back=st.integers(-1, 6), name=NAMES, weight=WEIGHTS)
    def remove(self, back, name, weight):
        stamp = self.newest - back
        there = len(self.stored(stamp, name)) >= weight
        assert self.log._remove(stamp, name, weight) is there
        if there:
            self.units = self.without(stamp, name, weight)

    @rule(back=st.integers(-1, 6), name=NAMES, weight=WEIGHTS, later=st.integers(0, 8))
    def move(self, back, name, weight, later):
        stamp = self.newest - back
        target = stamp + later
        there = len(self.stored(stamp, name)) >= weight
        assert self.log._move(stamp, name, weight, target) is there
        if there:
            units = self.without(stamp, name, weight)
            place = sum(when <= target for when, _ in units)
            self.units = [*units[:place], *[(target, name)] * weight, *units[place:]]

    @rule(back=st.integers(-1, 9))
    def drop(self, back):
        bound = self.newest - back
        old = sum(when < bound for when, _ in self.units)
        assert self.log._drop_before(bound) == old
        del self.units[:old]

    @rule(ms=st.integers(1, 5), back=st.integers(-1, 9))
    def shift(self, ms, back):
        after = self.newest - back
        floor = max((when for when, _ in self.units if when <= after), default=-(1 << 62))
        self.log._shift(ms, after, floor)
        self.units = [
            (max(floor, when - ms) if when > after else when, name) for when, name in self.units
        ]

    @rule(data=st.data())
    def look_at_any_unit(self, data):
        if self.units:
            place = data.draw(st.integers(0, len(self.units) - 1))
            assert self.log._stamp(self.log._base + place + 1) == self.units[place][0]

    @invariant()
    def holds_the_list(self):
        log, size = self.log, len(self.units)
        assert log._total - log._base == size
        numbers = range(log._base + 1, log._total + 1)
        assert [(log._stamp(n), log._name_of(n)) for n in numbers] == self.units
        for bound in range(self.newest - 9, self.newest + 2):
            assert log._before(bound) - log._base == sum(when < bound for when, _ in self.units)
        if self.units:
            assert log._newest == self.newest


TestUnitLog = UnitLogMachine.TestCase


@given(st.lists(st.tuples(NAMES, st.integers(1, 10**12), st.integers(0, 1)), min_size=1))
def test_heavy_units_take_the_room_of_light_ones(puts):
    log = UnitLog()
    log._empty()
    stamp = 0
    for name, weight, later in puts:
        stamp += later
        log._append(name, weight, stamp)
    assert log._total == sum(weight for _, weight, _ in puts)
    assert len(log._stamps) <= len(puts)
    assert log._name_of(log._total) == puts[-1][0]
    assert log._name_of(1) == puts[0][0]
