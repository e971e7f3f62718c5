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
STEPS = ("put", "put", "claim", "line", "check", "settle", "release", "part", "go", "leak")


def answer(decision):
    return (
        decision.failing_rate,
        decision.retry_after_ms,
        decision.wait_ms,
        decision.remaining,
        decision.reset_after_ms,
    )


def play(rng, model, pick, clock, *, keyed=False):
    """Do the same at both; claims are settled, late or early, or given back.

    A key's expired units may be dropped at any time, with those of the others.
    """
    open_claims = []
    for _ in range(150):
        real = pick()
        step = rng.choice(STEPS)
        name, weight, now = rng.choice("a" if keyed else "ab"), rng.randint(1, 4), clock.ms
        if step == "put":
            item = RateItem(name, now, weight)
            assert real.put(item) == model.put(item)
            assert (real.failing_rate is None) == (model.failing_rate is None)
            if not open_claims:  # behind a queue the model may answer from an older refusal
                assert real.failing_rate == model.failing_rate
                assert real.waiting(item) == model.waiting(item)
        elif step == "claim":
            patience, pad = rng.choice((0, 50, 500, 5000)), rng.choice((0, 7, None))
            mine, theirs = RateItem(name, now, weight), RateItem(name, now, weight)
            one, two = model.claim(mine, patience, pad), real.claim(theirs, patience, pad)
            assert answer(two) == answer(one)
            if one.wait_ms:
                open_claims.append((mine, theirs))
        elif step == "line":
            patience, pad = rng.choice((0, 50, 500, 5000)), rng.choice((0, 7, None))
            bound = rng.choice((None, now - 5, now + 90))
            weights = [rng.randint(1, 3) for _ in range(rng.randint(1, 5))]
            mine = [RateItem(name, now, weight) for weight in weights]
            theirs = [RateItem(name, now, weight) for weight in weights]
            one = model.claim_several(mine, patience, pad, bound)
            two = real.claim_several(theirs, patience, pad, bound)
            assert list(map(answer, two)) == list(map(answer, one))
            open_claims += [
                pair for *pair, decision in zip(mine, theirs, one, strict=False) if decision.wait_ms
            ]
        elif step == "check":
            item = RateItem(name, now, weight)
            assert answer(real.check(item)) == answer(model.check(item))
        elif step == "go":
            clock.advance(rng.choice((0, 1, 20, 130, 700)))
        elif step == "leak":
            dropped = real.leak(now), model.leak(now)
            assert keyed or dropped[0] == dropped[1]
        elif open_claims:
            mine, theirs = open_claims.pop(rng.randrange(len(open_claims)))
            if keyed and step != "settle" and mine.timestamp < now - model.rates[-1].interval:
                continue  # one of the two may have dropped it
            if step == "part":
                part = rng.randint(1, mine.weight)
                given = [RateItem(name, item.timestamp, part) for item in (mine, theirs)]
                assert real.release(given[1]) == model.release(given[0])
                if part < mine.weight:
                    mine.weight = theirs.weight = mine.weight - part
                    open_claims.append((mine, theirs))
                continue
            if step == "release":
                assert real.release(theirs) == model.release(mine)
                continue
            clock.set(max(now, mine.timestamp + rng.choice((0, 0, 3, 400))))
            patience = rng.choice((0, 10_000))
            one = model.settle(mine, clock.ms, patience)
            two = real.settle(theirs, clock.ms, patience)
            assert (two.failing_rate, two.wait_ms) == (one.failing_rate, one.wait_ms)
            if one.allowed and one.wait_ms:
                open_claims.append((mine, theirs))
        if keyed:
            nothing = RateItem("a", clock.ms, 0)
            assert answer(pick().check(nothing)) == answer(model.check(nothing))
            continue
        assert pick().count() == model.count()
        places = range(min(3, model.count()))
        found = [str(pick().peek(place)) for place in places]
        assert found == [str(model.peek(place)) for place in places]


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
        play(rng, model, lambda: rng.choice(several), clock)
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
        play(rng, model, lambda: rng.choice(several), clock)


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
        play(rng, model, pick, clock, keyed=True)
    finally:
        for factory in factories:
            factory.close()
