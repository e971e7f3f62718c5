"""`ReservationQueue` against the plain idea: all of them played in the order of their moments."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import GCRA, Rate, RateItem, StateBucket
from pyrate_limiter.buckets.state.reservations import ReservationQueue
from pyrate_limiter.testing import ManualClock

POLICY = GCRA()
RATES = [Rate(2, 10), Rate(5, 50)]
STEP = partial(POLICY.step, RATES)
WEIGHTS = st.lists(st.integers(1, 2), min_size=1, max_size=8)


def played(events):
    """The state after (moment, weight) in that order; each of them has to conform."""
    state = POLICY.initial(RATES)
    for moment, weight in sorted(events, key=lambda event: event[0]):
        state, decision = STEP(state, moment, weight)
        assert decision.allowed, f"{weight} units do not fit at {moment}"
    return state


def filled(weights):
    """A queue in which each reservation has the first moment that fits behind the one before."""
    state, moment, moments = POLICY.initial(RATES), 0, []
    queue = ReservationQueue(state)
    for weight in weights:
        after, decision = STEP(state, moment, weight)
        while not decision.allowed:
            moment += decision.retry_after_ms
            after, decision = STEP(state, moment, weight)
        state = after
        queue.add(moment, weight)
        moments.append(moment)
    return queue, moments


@given(WEIGHTS)
def test_the_reservations_are_played_in_order(weights):
    queue, moments = filled(weights)
    assert queue.newest == moments[-1]
    assert queue.played(0, STEP) == played(zip(moments, weights, strict=True))


@given(WEIGHTS, st.data())
def test_what_is_taken_out_leaves_the_state_of_the_others(weights, data):
    queue, moments = filled(weights)
    place = data.draw(st.integers(0, len(weights) - 1))
    assert queue.has(moments[place], weights[place])
    queue.take_out(moments[place], weights[place])
    left = list(zip(moments, weights, strict=True))
    del left[place]
    assert queue.played(0, STEP) == played(left)


@given(WEIGHTS, st.data())
def test_what_is_given_back_in_front_of_others_is_there_to_be_reserved(weights, data):
    queue, moments = filled([*weights, 1])
    place = data.draw(st.integers(0, len(weights) - 1))
    queue.give_back(moments[place], weights[place])
    wanted = data.draw(st.integers(1, weights[place]))
    if moments[place] == moments[-1]:
        return  # nobody waits behind it
    moment, free = queue.room(0, 0, wanted, STEP)
    assert moment == moments[place]
    queue.use(free, wanted)
    queue.add(moment, wanted)
    reserved = list(zip(moments, [*weights, 1], strict=True))
    reserved[place] = (moment, wanted)
    if wanted < weights[place]:
        reserved.append((moment, weights[place] - wanted))
    assert queue.played(0, STEP) == played(reserved)


@given(WEIGHTS, st.data())
def test_what_was_given_back_and_has_passed_serves_only_where_nobody_is_pushed_back(weights, data):
    queue, moments = filled([*weights, 1])
    place = data.draw(st.integers(0, len(weights) - 1))
    queue.give_back(moments[place], weights[place])
    now = data.draw(st.integers(moments[place], moments[-1]))
    room = queue.room(now, now, 1, STEP)
    # Who is late goes now, before all others.
    reserved = [
        (max(moment, now), weight) for moment, weight in zip(moments, [*weights, 1], strict=True)
    ]
    del reserved[place]
    if moments[place] == moments[-1]:
        assert room is None
    elif room is not None:
        assert room[0] == now
        played([*reserved, (now, 1)])
    else:
        with pytest.raises(AssertionError, match="do not fit"):
            played([*reserved, (now, 1)])


@given(WEIGHTS)
def test_reservations_of_one_moment_share_their_units(weights):
    queue = ReservationQueue(POLICY.initial(RATES))
    for weight in weights:
        queue.add(7, weight)
    assert not queue.has(7, sum(weights) + 1)
    assert not queue.has(8, 1)
    for _ in range(sum(weights)):
        assert queue.has(7, 1)
        queue.take_out(7, 1)
    assert not queue.has(7, 1)
    assert queue.played(0, STEP) == queue.gone


def test_a_reservation_that_nobody_confirms_counts_as_used_after_two_seconds():
    queue, moments = filled([1, 1, 1])
    all_of_them = queue.played(moments[0], STEP)
    assert queue.fold(moments[0] + 1999, STEP)
    assert not queue.fold(moments[-1] + 2000, STEP)
    assert queue.played(moments[-1] + 2000, STEP) == queue.gone == all_of_them


@given(WEIGHTS, st.data())
def test_a_queue_survives_being_written_down(weights, data):
    queue, moments = filled(weights)
    place = data.draw(st.integers(0, len(weights) - 1))
    assert queue.detach(moments[-1], weights[-1])
    queue.give_back(moments[place], weights[place])
    copy = ReservationQueue.restored(queue.dump())
    assert copy.dump() == queue.dump()
    assert copy.newest == queue.newest


@given(WEIGHTS, st.data())
def test_who_does_not_come_back_counts_as_used_when_his_moment_comes(weights, data):
    queue, moments = filled(weights)
    detached = data.draw(st.sets(st.integers(0, len(weights) - 1)))
    reserved = list(zip(moments, weights, strict=True))
    for place in detached:
        assert queue.detach(*reserved[place])
    assert not queue.detach(moments[-1] + 1, 1)
    now = data.draw(st.integers(0, moments[-1]))
    gone = {place for place in detached if moments[place] <= now}
    left = [it for place, it in enumerate(reserved) if place not in gone]
    assert queue.fold(now, STEP) is bool(left)
    for moment in moments:  # those who come back are still waited for
        held = sum(weight for at, weight in left if at == moment)
        assert queue.has(moment, held)
        assert not queue.has(moment, held + 1)
    if gone:
        assert queue.gone == played(reserved[place] for place in gone)


def test_who_asks_for_later_leaves_what_was_given_back_to_others():
    bucket = StateBucket([Rate(1, 10)], clock=ManualClock(1_000))
    line = [RateItem("a", 1_000) for _ in range(4)]
    made = bucket.reserve_several(line, 1_000, 0)
    assert [reservation.wait_ms for reservation in made] == [0, 10, 20, 30]
    assert bucket.cancel(made[1])
    (refused,) = bucket.reserve_several([RateItem("a", 1_000)], 0, 0, line[3].timestamp)
    assert not refused.allowed
    assert bucket.reserve(RateItem("a", 1_000), 1_000, 0).wait_ms == 10


def test_what_was_given_back_in_front_of_others_is_not_counted_when_its_time_is_over():
    queue, moments = filled([1, 1, 1, 1])
    queue.give_back(moments[2], 1)
    assert not queue.fold(moments[3] + 2000, STEP)
    assert queue.gone == played((moment, 1) for moment in (*moments[:2], moments[3]))
