"""`ClaimQueue` against the plain idea: all claims, played in the order of their moments."""

from hypothesis import given
from hypothesis import strategies as st

from pyrate_limiter import GCRA, Rate
from pyrate_limiter.buckets.claim_queue import ClaimQueue

POLICY = GCRA()
RATES = [Rate(2, 10), Rate(5, 50)]
WEIGHTS = st.lists(st.integers(1, 2), min_size=1, max_size=8)


def played(events):
    """The state after (moment, weight) in that order; each of them has to conform."""
    state = POLICY.initial(RATES)
    for moment, weight in sorted(events, key=lambda event: event[0]):
        state, decision = POLICY.step(RATES, state, moment, weight)
        assert decision.allowed, f"{weight} units do not fit at {moment}"
    return state


def filled(weights):
    """A queue in which each claim has the first moment that fits behind the one before."""
    queue, state, moment, moments = ClaimQueue(POLICY.initial(RATES)), POLICY.initial(RATES), 0, []
    for weight in weights:
        after, decision = POLICY.step(RATES, state, moment, weight)
        while not decision.allowed:
            moment += decision.retry_after_ms
            after, decision = POLICY.step(RATES, state, moment, weight)
        state = after
        queue.add(moment, weight, gone=False)
        moments.append(moment)
    return queue, moments


@given(WEIGHTS)
def test_claims_that_leave_on_time_keep_their_moments(weights):
    queue, moments = filled(weights)
    for moment, weight in zip(moments, weights, strict=True):
        claim = queue.find(moment, weight)
        assert queue.go(claim, moment, POLICY, RATES) is None
        assert claim.gone
        assert claim.at == moment
    assert not queue.fold(moments[-1], POLICY, RATES)


@given(WEIGHTS, st.data())
def test_a_dropped_claim_leaves_the_state_of_the_others(weights, data):
    queue, moments = filled(weights)
    place = data.draw(st.integers(0, len(weights) - 1))
    state = queue.drop(queue.find(moments[place], weights[place]), POLICY, RATES)
    left = list(zip(moments, weights, strict=True))
    del left[place]
    assert state == played(left)


@given(WEIGHTS, st.data())
def test_late_waiters_push_the_others_back_until_all_conform(weights, data):
    queue, moments = filled(weights)
    waiting = list(zip(moments, weights, strict=True))
    now, left = 0, []
    while waiting:
        moment, weight = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        now = max(now, moment) + data.draw(st.integers(0, 9))
        claim = queue.find(moment, weight)
        queue.go(claim, now, POLICY, RATES)
        if claim.gone:
            left.append((now, weight))
        else:
            assert claim.at > now
            claim.key = claim.at
            waiting.append((claim.key, weight))
    played(left)
    queue.fold(now, POLICY, RATES)
    assert queue.newest < now + 1


@given(WEIGHTS)
def test_a_queue_survives_being_written_down(weights):
    queue, moments = filled(weights)
    queue.go(queue.find(moments[0], weights[0]), moments[0] + 3, POLICY, RATES)
    copy = ClaimQueue.restored(queue.dump())
    assert copy.dump() == queue.dump()
    assert copy.newest == queue.newest
