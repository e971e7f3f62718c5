"""Buckets that are shared answer as `InMemoryBucket` does, however many share the log."""

import random

import pytest

from pyrate_limiter import (
    FixedWindow,
    InMemoryBucket,
    MultiprocessBucket,
    Rate,
    RateItem,
    SQLiteBucket,
)
from pyrate_limiter.testing import ManualClock

T = 10**12
STEPS = ("put", "put", "reserve", "line", "check", "confirm", "cancel", "go", "leak")


def answer(decision):
    return (
        decision.failing_rate,
        decision.retry_after_ms,
        decision.wait_ms,
        decision.remaining,
        decision.reset_after_ms,
    )


class Both:
    """Does the same at two buckets. Reservations are confirmed, late or early, or cancelled.

    A key's expired units may be dropped at any time, with those of the others.
    """

    def __init__(self, rng, model, pick, clock, *, keyed=False):
        self.rng, self.model, self.clock, self.keyed = rng, model, clock, keyed
        self.pick = pick
        self.open = []  # reservations at the model and at the other

    def play(self, steps=150):
        for _ in range(steps):
            self.real = self.pick()
            self.name, self.now = self.rng.choice("a" if self.keyed else "ab"), self.clock.ms
            getattr(self, self.rng.choice(STEPS))()
            self.compare()

    def compare(self):
        if self.keyed:
            nothing = RateItem("a", self.clock.ms, 0)
            assert answer(self.pick().check(nothing)) == answer(self.model.check(nothing))
            return
        assert self.pick().count() == self.model.count()
        for place in range(min(3, self.model.count())):
            assert str(self.pick().peek(place)) == str(self.model.peek(place))

    def item(self, weight=None):
        return RateItem(self.name, self.now, weight or self.rng.randint(1, 4))

    def put(self):
        item, real, model = self.item(), self.real, self.model
        assert real.put(item) == model.put(item)
        assert (real.failing_rate is None) == (model.failing_rate is None)
        if not self.open:  # behind a queue the model may answer from an older refusal
            assert real.failing_rate == model.failing_rate
            assert real.waiting(item) == model.waiting(item)

    def reserve(self):
        terms = self.rng.choice((0, 50, 500, 5000)), self.rng.choice((0, 7, None))
        mine = self.item()
        theirs = self.item(mine.weight)
        one, two = self.model.reserve(mine, *terms), self.real.reserve(theirs, *terms)
        assert answer(two) == answer(one)
        if one.wait_ms:
            self.open.append((one, two))

    def line(self):
        terms = self.rng.choice((0, 50, 500, 5000)), self.rng.choice((0, 7, None))
        bound = self.rng.choice((None, self.now - 5, self.now + 90))
        mine = [self.item() for _ in range(self.rng.randint(1, 5))]
        theirs = [self.item(item.weight) for item in mine]
        one = self.model.reserve_several(mine, *terms, bound)
        two = self.real.reserve_several(theirs, *terms, bound)
        assert list(map(answer, two)) == list(map(answer, one))
        pairs = zip(one, two, strict=True)
        self.open += [(first, second) for first, second in pairs if first.wait_ms]

    def check(self):
        item = self.item()
        assert answer(self.real.check(item)) == answer(self.model.check(item))

    def go(self):
        self.clock.advance(self.rng.choice((0, 1, 20, 130, 700)))

    def leak(self):
        dropped = self.real.leak(self.now), self.model.leak(self.now)
        assert self.keyed or dropped[0] == dropped[1]

    def one_of_the_open(self):
        return self.open.pop(self.rng.randrange(len(self.open))) if self.open else (None, None)

    def confirm(self):
        mine, theirs = self.one_of_the_open()
        if mine is None:
            return
        self.clock.set(max(self.now, mine.item.timestamp + self.rng.choice((0, 0, 3, 400))))
        max_wait_ms = self.rng.choice((0, 10_000))
        one = self.model.confirm(mine, self.clock.ms, max_wait_ms)
        two = self.real.confirm(theirs, self.clock.ms, max_wait_ms)
        assert (two.failing_rate, two.wait_ms) == (one.failing_rate, one.wait_ms)
        if one.allowed and one.wait_ms:
            self.open.append((one, two))

    def cancel(self):
        mine, theirs = self.one_of_the_open()
        expired = self.now - self.model.rates[-1].interval
        if mine is None or (self.keyed and mine.item.timestamp < expired):
            return  # one of the two may have dropped it
        part = self.rng.randint(1, mine.item.weight)
        assert self.real.cancel(theirs.part(part)) == self.model.cancel(mine.part(part))
        if part < mine.item.weight:
            mine.item.weight = theirs.item.weight = mine.item.weight - part
            self.open.append((mine, theirs))


def some_rates(seed):
    return [Rate(3, 100)] if seed % 3 == 0 else [Rate(4, 100), Rate(9, 1000)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("algorithm", [None, FixedWindow()], ids=["sliding", "fixed"])
def test_it_answers_as_the_log_in_memory(tmp_path, seed, algorithm):
    rng, rates, clock = random.Random(seed), some_rates(seed), ManualClock(T)
    model = InMemoryBucket(rates, algorithm=algorithm)
    path = str(tmp_path / "limits.db")
    several = [SQLiteBucket.init_from_file(rates, db_path=path, algorithm=algorithm) for _ in "abc"]
    for bucket in (model, *several):
        bucket._clock = clock
    try:
        Both(rng, model, lambda: rng.choice(several), clock).play()
    finally:
        for bucket in several:
            bucket.close()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("algorithm", [None, FixedWindow()], ids=["sliding", "fixed"])
def test_replicas_in_shared_memory_answer_as_the_log_in_memory(seed, algorithm):
    rng, rates, clock = random.Random(seed), some_rates(seed), ManualClock(T)
    model = InMemoryBucket(rates, algorithm=algorithm)
    first = MultiprocessBucket.init(rates, algorithm)
    several = [first]
    several += [MultiprocessBucket(rates, first.items, first.mp_lock, algorithm) for _ in "ab"]
    for bucket in (model, *several):
        bucket._clock = clock
    with first:
        Both(rng, model, lambda: rng.choice(several), clock).play()


@pytest.mark.parametrize("seed", range(12))
def test_one_key_of_many_answers_as_a_log_in_memory(tmp_path, seed):
    rng, rates, clock = random.Random(seed), some_rates(seed), ManualClock(T)
    model = InMemoryBucket(rates)
    model._clock = clock
    factories = [SQLiteBucket.per_key(tmp_path / "limits.db").keyed(rates) for _ in "ab"]
    for factory in factories:
        factory._logs.clock = clock

    def pick():
        factory = rng.choice(factories)
        other = factory.bucket("other")
        other.put(RateItem("other", clock.ms))
        return factory.bucket("a")

    try:
        Both(rng, model, pick, clock, keyed=True).play()
    finally:
        for factory in factories:
            factory.close()
