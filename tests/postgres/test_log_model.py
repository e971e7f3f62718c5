"""The log in Postgres beside a list of moments, on a clock that is moved by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrate_limiter import FixedWindow, PostgresBucket, Rate, RateItem
from pyrate_limiter.testing import ManualClock
from tests.support import postgres_fixtures as postgres
from tests.support.postgres_fixtures import FOREVER

pool = postgres.shared_pool
RATES = st.sampled_from(
    [
        [Rate(1, 100)],
        [Rate(3, 100)],
        [Rate(5, 40)],
        [Rate(3, 50), Rate(5, 200)],
        [Rate(2, 20), Rate(4, 100), Rate(6, 400)],
    ]
)
WEIGHTS = st.integers(1, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), WEIGHTS, st.sampled_from([30, 100, FOREVER])),
        st.tuples(st.just("several"), st.lists(WEIGHTS, min_size=1, max_size=4)),
        st.tuples(st.just("put"), WEIGHTS),
        st.tuples(st.just("cancel"), st.integers(0, 99), WEIGHTS),
        st.tuples(st.just("wake"), st.integers(0, 99), st.sampled_from([0, 1, 7, 60])),
        st.tuples(st.just("pass"), st.integers(1, 60)),
    ),
    min_size=1,
    max_size=25,
)


class Log:
    """A bucket, who waits for what, and when units went."""

    def __init__(self, pool, rates, algorithm=None):
        self.clock = ManualClock(1_000_000)
        self.bucket = PostgresBucket(pool, "model", rates, algorithm)
        self.bucket.flush()
        self.bucket._clock = self.clock
        self.waiting = []
        self.went = []

    def now(self):
        return self.clock.now()

    def item(self, weight):
        return RateItem("a", self.now(), weight)

    def note(self, item, decision):
        if decision.wait_ms:
            self.waiting.append(decision)
        elif decision.allowed:
            self.went += [self.now()] * item.weight

    def reserve(self, weight, max_wait_ms):
        item = self.item(weight)
        decision = self.bucket.reserve(item, max_wait_ms, 0)
        self.note(item, decision)
        return decision

    def several(self, weights):
        items = [self.item(weight) for weight in weights]
        before = max((one.item.timestamp for one in self.waiting), default=None)
        decisions = self.bucket.reserve_several(items, FOREVER, 0, before)
        moments = [item.timestamp for item, decision in zip(items, decisions) if decision.allowed]
        assert moments == sorted(moments)
        assert before is None or all(moment >= before for moment in moments)
        assert all(decision.allowed for decision in decisions[:-1])
        for item, decision in zip(items, decisions):
            self.note(item, decision)

    def put(self, weight):
        self.reserve(weight, 0)

    def cancel(self, number, weight):
        if self.waiting:
            reservation = self.waiting[number % len(self.waiting)]
            less = reservation.part(min(weight, reservation.item.weight))
            assert self.bucket.cancel(less)
            reservation.item.weight -= less.item.weight
            if not reservation.item.weight:
                self.leave(reservation)

    def wake(self, number, late):
        if self.waiting:
            self.waiting.sort(key=lambda one: one.item.timestamp)
            reservation = self.waiting[number % min(3, len(self.waiting))]
            self.clock.set(max(self.now(), reservation.item.timestamp + late))
            self.confirm(reservation)

    def leave(self, reservation):
        # Not `remove`: two of one moment and weight are equal.
        self.waiting = [one for one in self.waiting if one is not reservation]

    def confirm(self, reservation):
        self.leave(reservation)
        decision = self.bucket.confirm(reservation, self.now(), FOREVER)
        self.note(reservation.item, decision)

    def punctually(self, milliseconds):
        """Pass time, in which everybody wakes at the very moment."""
        end = self.now() + milliseconds
        while due := [one for one in self.waiting if one.item.timestamp <= end]:
            reservation = min(due, key=lambda one: one.item.timestamp)
            self.clock.set(reservation.item.timestamp)
            self.confirm(reservation)
        self.clock.set(end)

    def pass_(self, milliseconds):
        self.clock.set(self.now() + milliseconds)

    def do(self, step, *words):
        getattr(self, "pass_" if step == "pass" else step)(*words)

    def moments(self):
        return sorted(
            [*self.went, *(i.item.timestamp for i in self.waiting for _ in range(i.item.weight))]
        )


def over(moments, rates):
    """The windows that hold too much."""
    return [
        (earlier, later, str(rate))
        for rate in rates
        for earlier, later in zip(moments, moments[rate.limit :])
        if later - earlier <= rate.interval
    ]


def in_windows(moments, rates):
    """The aligned windows that hold too much."""
    return [
        (start, str(rate))
        for rate in rates
        for start in {moment // rate.interval for moment in moments}
        if sum(moment // rate.interval == start for moment in moments) > rate.limit
    ]


@settings(max_examples=60, deadline=None)
@given(rates=RATES, steps=STEPS)
def test_what_went_was_never_over_the_limit(pool, rates, steps):
    log = Log(pool, rates)
    for step in steps:
        log.do(*step)
        assert not over(sorted(log.went), rates)
        assert log.bucket.count() == len(log.moments())


@settings(max_examples=60, deadline=None)
@given(rates=RATES, steps=STEPS)
def test_what_went_was_never_over_the_limit_of_a_fixed_window(pool, rates, steps):
    log = Log(pool, rates, FixedWindow())
    for step in steps:
        log.do(*step)
        assert not in_windows(log.went, rates)
        assert log.bucket.count() == len(log.moments())


@settings(max_examples=60, deadline=None)
@given(rates=RATES, steps=STEPS, weight=WEIGHTS)
def test_a_reservation_goes_to_the_first_moment_at_which_it_fits(pool, rates, steps, weight):
    log = Log(pool, rates)
    for step in steps:
        if step[0] in {"wake", "pass"}:
            log.punctually(step[1])
        else:
            log.do(*step)
    weight = min(weight, rates[0].limit)
    moments, now = log.moments(), log.now()
    candidates = [now, *moments]
    candidates += [moment + rate.interval + 1 for moment in moments for rate in rates]
    expected = next(
        moment
        for moment in sorted(candidates)
        if moment >= now and not over(sorted([*moments, *[moment] * weight]), rates)
    )
    assert log.reserve(weight, FOREVER).wait_ms == expected - now
