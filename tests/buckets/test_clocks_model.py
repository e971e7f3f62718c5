"""Stamps of several clocks, that come late, out of order, and after pauses.

The promise: a log never holds more than its limit in a window of true time, a state never more than
the burst and what comes in again, and each further clock lets one further limit through at the
most. Nobody is refused for longer than the limits ask for.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrate_limiter import (
    GCRA,
    AbstractClock,
    InMemoryBucket,
    MultiprocessBucket,
    MultiprocessStateStore,
    Rate,
    RateItem,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from pyrate_limiter._core.validation import Unread

LIMIT, INTERVAL = 4, 100
RATE = Rate(LIMIT, INTERVAL)
KINDS = pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
OFFSETS = {"its own": 0, "wall": 1_700_000_000_000, "stopwatch": -999_000_000}
STATES = [
    StateBucket,
    lambda rates: StateBucket(rates, store=MultiprocessStateStore.init()),
    lambda rates: StateBucket(rates, store=SQLiteStateStore(":memory:", "key")),
]
SHARED = pytest.mark.parametrize(
    "make",
    [MultiprocessBucket.init, SQLiteBucket.init_from_file, *STATES[1:]],
    ids=["shared memory", "sqlite", "state in shared memory", "state in sqlite"],
)
OTHERS = pytest.mark.parametrize("clock", ["wall", "stopwatch"])
FOR_EVER = 1 << 50


class World(AbstractClock):
    """True time, which the bucket's clock shows as it is."""

    def __init__(self):
        self.ms = 1_000_000_000

    def now(self):
        return self.ms

    def read(self, clock, ago=0):
        return self.ms - ago + OFFSETS[clock]


class AwaitedClock(World):
    async def now(self):
        return self.ms


def bucket_in(world, make):
    bucket = make([RATE])
    bucket._clock = world
    return bucket


def most(make, elapsed):
    """How many a log or a state may let through within so many ms, both ends included."""
    if make is InMemoryBucket:
        return LIMIT * (elapsed // (INTERVAL + 1) + 1)
    return LIMIT + elapsed * LIMIT // INTERVAL


def assert_kept(make, moments, *, early=0, further=0):
    """No window has more than the rate lets through, whichever admissions it begins and ends with.

    ``early`` is by how much a stamp may be older than the call: so much too early a unit may leave.
    """
    for last, end in enumerate(moments):
        for first in range(last + 1):
            allowed = most(make, end - moments[first] + early) + further * LIMIT
            assert last - first < allowed, moments


LATEST = 300
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0, 0, 5, LATEST]), st.integers(1, 2)),
    min_size=1,
    max_size=80,
)


@KINDS
@pytest.mark.parametrize("clock", OFFSETS)
@given(arrivals=ARRIVALS)
def test_stamps_that_come_late_never_make_room(make, clock, arrivals):
    world = World()
    bucket = bucket_in(world, make)
    moments = []
    for gap, late, weight in arrivals:
        world.ms += gap
        if bucket.put(RateItem("a", world.read(clock, late), weight)):
            moments += [world.ms] * weight
    assert_kept(make, moments, early=LATEST)


@KINDS
@OTHERS
@given(before=ARRIVALS, after=ARRIVALS, step=st.sampled_from([1, 90, 5000, 3_600_000]))
def test_a_callers_own_clock_that_steps_back_makes_no_room_and_is_waited_for(
    make, clock, before, after, step
):
    world = World()
    bucket = bucket_in(world, make)
    moments = []

    def put(stamp, weight):
        admitted = bucket.put(RateItem("a", stamp, weight))
        moments.extend([world.ms] * weight * admitted)
        return admitted

    for arrivals, behind in ((before, 0), (after, step)):
        for gap, _, weight in arrivals:
            world.ms += gap
            put(world.read(clock, behind), weight)
    assert_kept(make, moments)
    world.ms += step + INTERVAL + 1
    assert put(world.read(clock, step), LIMIT)


@KINDS
@given(arrivals=ARRIVALS, clocks=st.data())
def test_each_further_clock_lets_one_further_limit_through_at_the_most(make, arrivals, clocks):
    world = World()
    bucket = bucket_in(world, make)
    moments = []
    for gap, _, weight in arrivals:
        world.ms += gap
        stamp = world.read(clocks.draw(st.sampled_from(list(OFFSETS))))
        if bucket.put(RateItem("a", stamp, weight)):
            moments += [world.ms] * weight
    assert_kept(make, moments, further=len(OFFSETS) - 1)


@KINDS
@pytest.mark.parametrize("clock", OFFSETS)
@given(
    callers=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 3), st.integers(0, 70)), max_size=25
    )
)
def test_who_waits_by_the_buckets_clock_and_is_stamped_by_another_keeps_the_limit(
    make, clock, callers
):
    world = World()
    bucket = bucket_in(world, make)
    moments, waiting = [], []

    def pass_ms(ms):
        world.ms += ms
        for due in sorted(waiting, key=lambda waiter: waiter[0]):
            at, reservation = due
            if at <= world.ms:
                waiting.remove(due)
                decision = bucket.confirm(reservation, bucket.stamp(), FOR_EVER)
                assert decision.allowed
                if decision.wait_ms:
                    waiting.append((world.ms + decision.wait_ms, decision))
                else:
                    moments.extend([world.ms] * reservation.item.weight)

    for gap, weight, pause in callers:
        for _ in range(gap):
            pass_ms(1)
        item = RateItem("a", world.read(clock), weight)
        decision = bucket.reserve(item, FOR_EVER, 0)
        assert decision.allowed
        if decision.wait_ms:
            waiting.append((world.ms + decision.wait_ms, decision))
        else:
            moments.extend([world.ms] * weight)
        pass_ms(pause if pause > 60 else 0)  # the whole process stands still for a while
    for _ in range(40 * INTERVAL):
        if not waiting:
            break
        pass_ms(1)
    assert not waiting
    assert_kept(make, moments)


@KINDS
@OTHERS
def test_a_waiter_sleeps_until_the_moment_on_the_clock_that_it_is_stamped_by(make, clock):
    world = World()
    world.seconds_until = lambda moment: (moment - world.ms) / 1000
    bucket = bucket_in(world, make)
    assert bucket.put(RateItem("a", world.read(clock), LIMIT))
    item = RateItem("a", world.read(clock), LIMIT)
    decision = bucket.reserve(item, FOR_EVER, 0)
    assert decision.wait_ms >= INTERVAL
    assert bucket.pause(decision) == decision.wait_ms / 1000


@KINDS
@OTHERS
def test_a_bucket_that_was_waited_at_is_free_an_interval_later(make, clock):
    world = World()
    bucket = bucket_in(world, make)
    assert bucket.put(RateItem("a", world.read(clock), LIMIT))
    item = RateItem("a", world.read(clock))
    reservation = bucket.reserve(item, FOR_EVER, 0)
    world.ms += reservation.wait_ms
    assert bucket.confirm(reservation, bucket.stamp()).wait_ms == 0
    assert not bucket.put(RateItem("a", world.read(clock), LIMIT))
    world.ms += INTERVAL + 1
    assert bucket.put(RateItem("a", world.read(clock), LIMIT))


@OTHERS
def test_the_sweep_goes_by_the_clock_of_the_stamps(clock):
    world = World()
    bucket = bucket_in(world, InMemoryBucket)
    assert bucket.put(RateItem("a", world.read(clock), LIMIT))
    world.ms += INTERVAL
    assert bucket.leak() == 0
    assert not bucket.retire(bucket.now())
    world.ms += 1
    assert bucket.leak() == LIMIT


@pytest.mark.parametrize("clock", OFFSETS)
def test_what_a_state_owes_is_counted_by_the_clock_of_the_stamps(clock):
    world = World()
    bucket = bucket_in(world, StateBucket)
    assert bucket.put(RateItem("a", world.read(clock), LIMIT))
    world.ms += INTERVAL // 2
    assert bucket.count() == LIMIT // 2


@KINDS
@given(arrivals=ARRIVALS)
def test_readings_of_an_awaited_clock_that_come_late_never_make_room(make, arrivals):
    world = AwaitedClock()
    bucket = bucket_in(world, make)
    moments = []
    for gap, late, weight in arrivals:
        world.ms += gap
        if bucket.put(RateItem("a", Unread(world.ms - late), weight)):
            moments += [world.ms] * weight
    assert_kept(make, moments, early=LATEST)


@KINDS
@given(checks=st.lists(st.integers(-(10**6), 10**6), max_size=20))
def test_who_only_asks_changes_nothing(make, checks):
    world = World()
    bucket = bucket_in(world, make)
    assert bucket.put(RateItem("a", world.ms, LIMIT))
    for ahead in checks:
        bucket.check(RateItem("a", world.ms + ahead))
        assert not bucket.put(RateItem("a", world.ms))


@pytest.mark.parametrize("make", STATES)
def test_time_that_a_state_has_gained_is_given_back_when_the_clock_has_caught_up(make):
    world = World()
    bucket = bucket_in(world, make)
    for step in (-3_600_000, 3_600_000) * 3:
        assert bucket.put(RateItem("a", world.ms))
        world.ms += step
        assert bucket.put(RateItem("a", world.ms))
        world.ms += INTERVAL
    assert bucket.store.ahead_ms() <= 3 * (INTERVAL + 1)  # and not three hours
    state = bucket.store.read(GCRA(), bucket.rates)
    assert state[0] <= (world.ms + 5 * INTERVAL) * 1000
    bucket.close()


@SHARED
@pytest.mark.parametrize("clock", OFFSETS)
@settings(max_examples=15)
@given(arrivals=ARRIVALS)
def test_stamps_that_come_late_to_what_is_shared_never_make_room(make, clock, arrivals):
    world = World()
    bucket = bucket_in(world, make)
    kind = StateBucket if isinstance(bucket, StateBucket) else InMemoryBucket
    moments = []
    with bucket:
        for gap, late, weight in arrivals:
            world.ms += gap
            if bucket.put(RateItem("a", world.read(clock, late), weight)):
                moments += [world.ms] * weight
    assert_kept(kind, moments, early=LATEST)


@SHARED
@pytest.mark.parametrize("clock", OFFSETS)
def test_waiters_at_what_is_shared_go_by_the_clock_that_they_are_stamped_by(make, clock):
    world = World()
    bucket = bucket_in(world, make)
    kind = StateBucket if isinstance(bucket, StateBucket) else InMemoryBucket
    moments = []
    with bucket:
        for weight in (LIMIT, 2, 1, LIMIT, 1):
            item = RateItem("a", world.read(clock), weight)
            decision = bucket.reserve(item, FOR_EVER, 0)
            while decision.wait_ms:
                world.ms += decision.wait_ms
                decision = bucket.confirm(decision, bucket.stamp(), FOR_EVER)
            moments += [world.ms] * weight
        assert_kept(kind, moments)
        assert moments[-1] - moments[0] <= 4 * (INTERVAL + 1)
        world.ms += INTERVAL + 1
        assert bucket.put(RateItem("a", world.read(clock), LIMIT))
