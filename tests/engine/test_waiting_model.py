"""Callers that come, wait, give up and are late, in any order, at every kind of bucket.

Time is the world's: it passes only where everybody sleeps. So what happens can be held against the
rules, to the millisecond: never over the limit, in the order of arrival, no room left unused while
the first in the queue fits, and nothing left behind.
"""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import (
    GCRA,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    SingleBucketFactory,
    SlidingWindowLog,
    StateBucket,
)
from pyrate_limiter._engine.wait_queue import queue_at
from tests.support.doubles import ListBucket, Remote, World

INTERVAL = 100
TRIP_MS = 2
STEPS_OF_THE_CLOCK_MS = 2  # a sleep ends at the first millisecond that is not before its moment


@dataclass
class Caller:
    """One who comes ``after`` ms after the one before, and how he waits."""

    after: int
    weight: int
    timeout: int | None
    cancelled: int | None
    came: int = 0
    passed: int | None = None
    gone: int | None = None
    order: list[int] = field(default_factory=list)


callers = st.lists(
    st.builds(
        Caller,
        after=st.sampled_from([0, 0, 1, 7, 40, 130]),
        weight=st.integers(1, 3),
        timeout=st.sampled_from([None, None, 5, 60, 250]),
        cancelled=st.sampled_from([None, None, 1, 30, 90, 160]),
    ),
    min_size=1,
    max_size=25,
)


def run(make, script, **options):
    """Play a script; returns the callers as they fared, and the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(patch)
        bucket = world.on(make())
        limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False), 0, **options)
        ticks = iter(range(10_000))

        async def call(caller):
            timeout = -1 if caller.timeout is None else caller.timeout / 1000
            try:
                if await limiter.try_acquire_async("a", caller.weight, timeout=timeout):
                    caller.passed = world.ms
            finally:
                caller.gone = world.ms
                caller.order.append(next(ticks))

        def give_up(caller, task):
            caller.order.append(next(ticks))
            task.cancel()

        async def main():
            tasks = []
            for caller in script:
                await asyncio.sleep(caller.after / 1000)
                caller.came = world.ms
                caller.order.append(next(ticks))
                task = asyncio.ensure_future(call(caller))
                tasks.append(task)
                if caller.cancelled is not None:
                    loop = asyncio.get_running_loop()
                    loop.call_later(caller.cancelled / 1000, give_up, caller, task)
                await asyncio.sleep(0)
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                assert task.cancelled() or task.exception() is None

        world.run(main())
        assert queue_at(bucket) is None
        return script, bucket


def log_fits(passed, now, weight, limit):
    live = sum(units for moment, units in passed if moment >= now - INTERVAL)
    return live + weight <= limit


def window_fits(passed, now, weight, limit):
    live = sum(units for moment, units in passed if moment // INTERVAL == now // INTERVAL)
    return live + weight <= limit


def gcra_fits(passed, now, weight, limit):
    rates, state = [Rate(limit, INTERVAL)], None
    policy = GCRA()
    state = policy.initial(rates)
    for moment, units in passed:
        state, decision = policy.step(rates, state, moment, units)
        assert decision.allowed
    return policy.step(rates, state, now, weight)[1].allowed


def check_order(script, trips_ms=0):
    for place, caller in enumerate(script):
        for later in script[place + 1 :]:
            if later.passed is None:
                continue
            if caller.passed is not None:
                assert caller.order[1] < later.order[1], "somebody was passed by one behind"
            else:  # what it gives back on its way out takes its time
                assert caller.gone - trips_ms <= later.passed, "somebody was passed by one behind"


def check(script, limit, fits, slack):
    check_order(script)
    passed = []
    for caller in sorted((c for c in script if c.passed is not None), key=lambda c: c.order[1]):
        assert fits(passed, caller.passed, caller.weight, limit), "over the limit"
        passed.append((caller.passed, caller.weight))
    for place, caller in enumerate(script):
        before = passed_before(script, place)
        first_at = max([caller.came, *(other.gone for other in script[:place])])
        moment = first_at
        while not fits(before, moment, caller.weight, limit):
            moment += 1
        left = caller.passed if caller.passed is not None else caller.gone
        assert left <= moment + slack, "room was left unused"
        if caller.passed is None and caller.cancelled is None:
            assert left >= caller.came + caller.timeout


def passed_before(script, place):
    earlier = [one for one in script[:place] if one.passed is not None]
    return [(one.passed, one.weight) for one in sorted(earlier, key=lambda one: one.order[1])]


def units(script):
    return sum(caller.weight for caller in script if caller.passed is not None)


@pytest.mark.parametrize(
    ("policy", "fits"), [(SlidingWindowLog, log_fits), (FixedWindow, window_fits)]
)
@given(script=callers, limit=st.integers(3, 6))
def test_at_a_log_in_memory(policy, fits, script, limit):
    script, bucket = run(lambda: InMemoryBucket([Rate(limit, INTERVAL)], policy()), script)
    check(script, limit, fits, STEPS_OF_THE_CLOCK_MS)
    assert bucket.count() == units(script)
    assert not bucket._pending


@given(script=callers, limit=st.integers(3, 6))
def test_at_a_state_in_memory(script, limit):
    script, bucket = run(lambda: StateBucket([Rate(limit, INTERVAL)]), script)
    check(script, limit, gcra_fits, STEPS_OF_THE_CLOCK_MS)
    state = GCRA().initial(bucket.rates)
    for moment, weight in passed_before(script, len(script)):
        state, _ = GCRA().step(bucket.rates, state, moment, weight)
    assert bucket.store.read(GCRA(), bucket.rates) == state


@given(script=callers, limit=st.integers(3, 6))
def test_at_a_bucket_of_ones_own(script, limit):
    script, bucket = run(lambda: ListBucket([Rate(limit, INTERVAL)]), script)
    check(script, limit, log_fits, STEPS_OF_THE_CLOCK_MS)
    assert bucket.count() == units(script)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("ahead", [True, False, 0.05])
@given(script=callers, limit=st.integers(3, 6))
def test_at_a_bucket_that_others_use_too(ahead, several, script, limit):
    rates = [Rate(limit, INTERVAL)]
    script, bucket = run(
        lambda: Remote(rates, several=several, trip_ms=TRIP_MS), script, reserve_ahead=ahead
    )
    check_order(script, 4 * TRIP_MS)
    stamps = [unit.timestamp for unit in bucket.inner.items]
    assert len(stamps) == units(script)
    for place, stamp in enumerate(stamps):
        assert sum(1 for other in stamps[place:] if other <= stamp + INTERVAL) <= limit
