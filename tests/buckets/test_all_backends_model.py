"""Every backend gives the same answers as the others, whatever is asked of them.

Memory, SQLite, shared memory, Redis and PostgreSQL take the same steps beside each other, by one
clock that is moved by hand. They may differ in this alone:

- What remains, and for how long, need not be said where nobody had to look: it is None then.
- While reservations are open, Redis and PostgreSQL may name a later moment than memory does, though
  none that is later than for somebody behind all of them. They search only so far for room in front
  of one, and keep a pad clear of it; PostgreSQL does not search for somebody who does not wait.
  In fixed windows Redis may name an earlier one, with room in front of others: memory looks behind.
  On a state Redis knows no more than how many units are open, so it may name any other moment: a
  waiter that wakes is judged by those who have gone.
- PostgreSQL leaves the units of somebody who comes late in their place among the others.
- A late stamp that is older than what was stored counts as of now where the bucket can ask the
  clock, else as the last one stored. A hold may count as stored.
- A clock that steps back by more than an interval costs each its own strictness, until that has
  passed. Of which rate a hold is the fault is anybody's guess.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyrate_limiter import Rate, RateItem
from pyrate_limiter._core.validation import pad_ms
from pyrate_limiter._engine.native import takes_limit
from pyrate_limiter.testing import ManualClock
from tests.support.kinds import WINDOWS

START = 1_000_000_000
FOREVER = 1 << 40
HOUR = 3_600_000
LOGS = ["memory", "sqlite", "multiprocess", "redis", "postgres"]
STATES = ["gcra", "sqlite gcra", "multiprocess gcra", "redis gcra", "postgres gcra"]
# The rules of the log once more, in Lua and in SQL.
BY_OTHER_RULES = {"redis", "redis gcra", "redis windows", "postgres", "postgres windows"}
RATES = [
    [Rate(1, 100)],
    [Rate(3, 100)],
    [Rate(5, 40, burst=2)],
    [Rate(3, 50), Rate(5, 200)],
    [Rate(2, 20), Rate(4, 100), Rate(6, 400)],
]
WEIGHTS = st.sampled_from([0, 1, 1, 1, 2, 2, 3, 7])
PATIENCE = st.sampled_from([0, 15, 60, 200, FOREVER])
PADS = st.sampled_from([0, 0, 3, None])
NUMBERS = st.integers(0, 99)


class Asked:
    """A bucket, and the steps that concern reservations: nothing else here knows their API."""

    def __init__(self, bucket, clock):
        self.bucket, self.clock = bucket, clock
        bucket._clock = clock

    def item(self, weight, late=0):
        return RateItem("a", self.clock.ms - late, weight)

    def reserve(self, weight, patience, pad):
        """The decision, and what is reserved."""
        bounds = {"limit_ms": FOREVER} if takes_limit(type(self.bucket)) else {}
        decision = self.bucket.reserve(self.item(weight), patience, pad, **bounds)
        return decision, decision

    def reserve_several(self, weights, patience, pad, not_before):
        items = [self.item(weight) for weight in weights]
        decided = []
        while len(decided) < len(items) and all(decision.allowed for decision in decided):
            left = items[len(decided) :]  # an answer may end early
            more = self.bucket.reserve_several(left, patience, pad, not_before, FOREVER)
            waits = [decision for decision in more if decision.wait_ms]
            not_before = moment(waits[-1]) if waits else not_before
            decided += more
        return [(decision, decision) for decision in decided]

    def confirm(self, held, patience):
        return self.bucket.confirm(held, self.clock.ms, patience)

    def cancel(self, held, weight=None):
        if weight is None:
            return self.bucket.cancel(held)
        gone = self.bucket.cancel(held.part(weight))
        held.item.weight -= weight if gone else 0
        return gone


def moment(held):
    return int(held.item.timestamp)


def outlook(decision):
    return decision.remaining, decision.reset_after_ms


class Backends(RuleBasedStateMachine):
    kinds = ()
    made = None
    stepped = False
    buckets = {}  # noqa: RUF012 - those of the test, for a new table takes long

    @initialize(rates=st.sampled_from(RATES), start=st.integers(START, START + 50))
    def start(self, rates, start):
        self.clock, self.rates = ManualClock(start), rates
        self.asked = {kind: Asked(self.empty(kind), self.clock) for kind in self.kinds}
        self.open = []  # what is reserved ahead and neither confirmed nor cancelled, by kind
        self.held_until = self.moved_until = 0
        self.latest = 0  # by which somebody may have been judged

    def empty(self, kind):
        key = kind, str(self.rates)
        if key not in self.buckets:
            self.buckets[key] = self.made.make(kind, self.rates)
            if kind == "redis gcra":
                self.buckets[key].store.ttl_ms = HOUR  # the server's own clock goes on
        self.buckets[key].flush()
        return self.buckets[key]

    @property
    def exact(self):
        """Whether nobody is to come, and nobody who came late has moved others."""
        return not self.open and self.clock.ms >= self.moved_until

    @property
    def longest(self):
        return self.rates[-1].interval + 1

    @property
    def model(self):
        return self.asked[self.kinds[0]]

    def rate(self, failing):
        """The rate that refused: any stands for a hold."""
        return self.rates[0] if failing and self.clock.ms < self.held_until else failing

    def verdict(self, decision):
        return self.rate(decision.failing_rate), decision.retry_after_ms, decision.wait_ms

    def ask(self, question):
        return {kind: question(asked) for kind, asked in self.asked.items()}

    def same(self, answers):
        first = answers[self.kinds[0]]
        others = {kind: found for kind, found in answers.items() if found != first}
        assert not others, (first, others)
        return first

    def same_where_said(self, decisions):
        said = [outlook(decision) for decision in decisions.values()]
        for numbers in zip(*said, strict=True):
            assert len({number for number in numbers if number is not None}) <= 1, said

    def bounds(self, weight):
        """Ms between which an answer may lie that is not the model's: None where it has to be."""
        is_state = self.kinds is STATES
        most = min(rate.burst if is_state else rate.limit for rate in self.rates)
        if self.exact or not 0 < weight <= most:
            return None
        if is_state:
            return 0, FOREVER
        if self.kinds is not LOGS:
            first = self.first_window(weight)
        else:
            first = self.model.bucket.check(self.model.item(weight)).retry_after_ms or 0
        if not self.open:
            return first, FOREVER
        moments = [moment(held[self.kinds[0]]) for held in self.open]
        ((behind, held),) = self.model.reserve_several([weight], FOREVER, 0, max(moments))
        assert self.model.cancel(held)
        late = max(0, self.clock.ms - min(moments))
        return first, behind.wait_ms + late + 2 * pad_ms(self.longest)

    def first_window(self, weight):
        """Ms until there is room in the windows of all rates, in front of others or behind them."""
        now = first = self.clock.ms
        if now < self.moved_until:
            return 0
        taken = self.stamps(self.model, self.model.bucket.count())

        def has_room(rate):
            window = first // rate.interval
            counted = [stamp for stamp in taken if stamp // rate.interval == window]
            return len(counted) + weight <= rate.limit

        shortest = self.rates[0].interval  # that of each other rate is so many of them
        while not all(map(has_room, self.rates)):
            first += shortest - first % shortest
        return first - now

    def same_verdict(self, decisions, bounds, take_back):
        """The verdict; None where it is another one with good reason, and all was taken back."""
        verdicts = {kind: self.verdict(decision) for kind, decision in decisions.items()}
        different = {kind for kind in self.kinds if verdicts[kind] != verdicts[self.kinds[0]]}
        if bounds is None or not different or not different <= BY_OTHER_RULES:
            if self.exact or (self.kinds is not STATES and self.clock.ms >= self.moved_until):
                self.same_where_said(decisions)
            return self.same(verdicts)
        for kind, (_, retry, wait) in verdicts.items():
            assert bounds[0] <= (wait if retry is None else retry) <= bounds[1], (kind, verdicts)
        if self.kinds is STATES:
            self.flush()  # what has gone cannot be taken out of a state
            return None
        for kind in self.kinds:
            take_back(kind)
        return None

    @rule(ms=st.sampled_from([0, 1, 5, 20, 21, 60, 101, 150, 500, 10 * HOUR]))
    def advance(self, ms):
        while ms == 10 * HOUR and self.open:  # long before that it is forgotten, in different ways
            self.cancel(0)
        self.clock.advance(ms)

    @rule(weight=WEIGHTS, other=WEIGHTS, late=st.sampled_from([0, 0, 0, 1, 10, 20]))
    def put(self, weight, other, late):
        if self.held_until or not self.exact:
            late = 0
        late = min(late, self.clock.ms - self.latest)  # else it counts as of now, or as the last
        bounds = self.bounds(weight)
        items = self.ask(lambda to: to.item(weight, late))
        put = {kind: to.bucket.put(items[kind]) for kind, to in self.asked.items()}
        failing = self.ask(lambda to: self.rate(to.bucket.failing_rate))
        assert all(put[kind] is (failing[kind] is None) for kind in put)
        if bounds and len(set(put.values())) > 1:
            assert all(
                put[kind] is put[self.kinds[0]] for kind in put if kind not in BY_OTHER_RULES
            )
            self.flush()
            return
        if weight and self.same(failing) is None:
            self.latest = max(self.latest, self.clock.ms - late)
        for asked in (weight, weight if late else other):
            waits = self.ask(lambda to, asked=asked: to.bucket.waiting(to.item(asked, late)))
            if self.exact:
                self.same(waits)

    @rule(weight=WEIGHTS)
    def put_decision(self, weight):
        bounds = self.bounds(weight)
        decisions = self.ask(lambda to: to.bucket.put_decision(to.item(weight)))
        self.same_verdict(decisions, bounds, lambda kind: None) or self.flush()
        self.latest = self.clock.ms

    @rule(weight=WEIGHTS)
    def check(self, weight):
        decisions = self.ask(lambda to: to.bucket.check(to.item(weight)))
        self.same_verdict(decisions, self.bounds(weight), lambda kind: None)

    @rule(weight=WEIGHTS, patience=PATIENCE, pad=PADS)
    def reserve(self, weight, patience, pad):
        bounds = self.bounds(weight)
        reserved = self.ask(lambda to: to.reserve(weight, patience, pad))
        self.note(reserved, bounds)

    def note(self, reserved, bounds):
        """Remember a reservation that is for later; False if it is none, or was taken back."""
        decisions = {kind: decision for kind, (decision, _) in reserved.items()}
        items = {kind: item for kind, (_, item) in reserved.items()}

        def cancel(kind):
            assert not decisions[kind].allowed or self.asked[kind].cancel(items[kind])

        found = self.same_verdict(decisions, bounds, cancel)
        self.latest = self.clock.ms
        if found and found[2]:
            self.open.append(items)
        return found is not None

    @rule(
        weights=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        patience=PATIENCE,
        pad=PADS,
        behind=st.none() | NUMBERS,
    )
    def a_line_reserves(self, weights, patience, pad, behind):
        last = self.open[behind % len(self.open)] if self.open and behind is not None else None
        reserved = {
            kind: to.reserve_several(weights, patience, pad, last and moment(last[kind]))
            for kind, to in self.asked.items()
        }
        bounds = None if self.exact else (0, FOREVER)
        done = 0
        while done < min(map(len, reserved.values())):
            done += 1
            if not self.note({kind: its[done - 1] for kind, its in reserved.items()}, bounds):
                break
        for kind, its in reserved.items():  # what not all of them have got
            for decision, item in its[done:]:
                if decision.allowed and self.kinds is STATES:
                    self.flush()
                    return
                assert not decision.allowed or self.asked[kind].cancel(item)

    @precondition(lambda self: self.open)
    @rule(
        number=NUMBERS,
        late=st.sampled_from([0, 0, 0, 1, 7, 60, 250]),
        patience=st.sampled_from([FOREVER, FOREVER, 0, 15]),
    )
    def confirm(self, number, late, patience):
        held = self.open.pop(number % len(self.open))
        self.clock.set(max(self.clock.ms, moment(held[self.kinds[0]]) + late))
        if self.open and self.clock.ms > moment(held[self.kinds[0]]):
            self.moved_until = self.clock.ms + 4 * self.longest
        self.confirmed(held, patience)

    def confirmed(self, held, patience):
        decisions = {kind: to.confirm(held[kind], patience) for kind, to in self.asked.items()}
        found = self.same_verdict(
            decisions,
            None if self.exact else (0, FOREVER),
            lambda kind: self.asked[kind].cancel(held[kind]),
        )
        if found and found[2]:
            self.open.append(held)

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS, weight=st.integers(0, 3), patience=st.sampled_from([FOREVER, 0, 15]))
    def confirm_what_is_forgotten(self, number, weight, patience):
        held = self.open[number % len(self.open)]
        self.flush()
        self.put_decision(weight)
        self.clock.set(max(self.clock.ms, moment(held[self.kinds[0]])))
        self.confirmed(held, patience)

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS)
    def cancel(self, number):
        held = self.open.pop(number % len(self.open))
        self.same({kind: to.cancel(held[kind]) for kind, to in self.asked.items()})

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS, weight=st.integers(1, 2))
    def cancel_a_part(self, number, weight):
        held = self.open[number % len(self.open)]
        if weight < held[self.kinds[0]].item.weight:
            self.same({kind: to.cancel(held[kind], weight) for kind, to in self.asked.items()})

    @precondition(lambda self: self.kinds is not STATES or (self.exact and not self.stepped))
    @rule()
    def the_units_are_the_same(self):
        count = self.same(self.ask(lambda to: to.bucket.count()))
        if self.exact and self.kinds is not STATES:
            self.same(self.ask(lambda to: self.stamps(to, min(count, 9))))

    @staticmethod
    def stamps(to, count):
        return sorted(to.bucket.peek(place).timestamp for place in range(count))

    @rule()
    def leak(self):
        leaked = self.ask(lambda to: to.bucket.leak(self.clock.ms))
        if not self.held_until:
            self.same(leaked)

    @rule()
    def flush(self):
        self.ask(lambda to: to.bucket.flush())
        self.open, self.held_until = [], 0

    @rule(ms=st.sampled_from([1, 30, 150]))
    def hold(self, ms):
        self.held_until = max(self.held_until, self.clock.ms + ms)
        self.same(self.ask(lambda to: to.bucket.hold(to.item(0), ms)))

    @rule(ms=st.sampled_from([1_001, 50_000, 10 * HOUR]))
    def the_clock_steps_back(self, ms):
        while self.open:
            self.cancel(0)
        self.clock.set(self.clock.ms - ms)
        longest = 2 * self.longest + self.rates[0].interval + 150  # and a hold, begun anew
        for kind, to in self.asked.items():
            assert to.bucket.put(to.item(1)) or 0 < to.bucket.waiting(to.item(1)) <= longest, kind
        self.clock.advance(2 * longest)
        self.ask(lambda to: to.bucket.leak(self.clock.ms))
        self.latest = self.held_until = self.clock.ms
        self.stepped = True

    @rule()
    def release_hold(self):
        self.held_until = max(1, min(self.held_until, self.clock.ms))
        self.same(self.ask(lambda to: to.bucket.release_hold(to.item(0))))

    def teardown(self):
        if self.stepped:
            self.buckets.clear()  # their stamps are ahead of the clock by as much from now on


@pytest.mark.parametrize("kinds", [LOGS, [*WINDOWS], STATES], ids=["logs", "windows", "states"])
def test_all_backends_give_the_same_answers(kinds, made):
    machine = type("Backends", (Backends,), {"kinds": kinds, "made": made, "buckets": {}})
    options = settings(stateful_step_count=20)
    run_state_machine_as_test(machine, settings=options)
