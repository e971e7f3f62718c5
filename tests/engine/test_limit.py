"""Real threads, tasks and sleeps: never more than the limit, and nothing left behind.

A log keeps the time of every unit, so three things together hold the limit in true time: the kept
times keep to it in every window, nobody returns before his kept time, and whoever overslept is kept
at the time at which he woke.
"""

import asyncio
import random
import threading
import time
from collections import Counter

import pytest

from pyrate_limiter import (
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    SingleBucketFactory,
    SlidingWindowLog,
    StateBucket,
)

RATES = [Rate(12, 60), Rate(40, 300)]


def on(bucket, **options):
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False), **options)


def in_threads(*works):
    errors = []

    def run(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Traffic:
    """Calls of every kind, under names of their own, and what became of them."""

    def __init__(self, limiter, seed):
        self.limiter = limiter
        self.random = random.Random(seed)
        self.number = 0
        self.admitted = Counter()
        self.returned = {}
        self.lock = threading.Lock()

    def draw(self):
        with self.lock:
            self.number += 1
            weight = self.random.choice([1, 1, 1, 2, 5])
            how = self.random.choice(
                [{}, {}, {"blocking": False}, {"timeout": 0}, {"timeout": 0.03}, {"timeout": 0.2}]
            )
            return f"call {self.number}", weight, how

    def note(self, name, weight, admitted):
        if admitted:
            self.admitted[name] = weight
            self.returned[name] = time.monotonic_ns() // 1_000_000

    def calls(self, number):
        for _ in range(number):
            name, weight, how = self.draw()
            self.note(name, weight, self.limiter.try_acquire(name, weight, **how))

    def tasks(self, number):
        asyncio.run(self.run_tasks(number))

    async def run_tasks(self, number):
        await asyncio.gather(*(self.one_task() for _ in range(number)))

    async def one_task(self):
        name, weight, how = self.draw()
        task = asyncio.ensure_future(self.limiter.try_acquire_async(name, weight, **how))
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.random() / 10)
            task.cancel()
        try:
            admitted = await task
        except asyncio.CancelledError:
            return
        self.note(name, weight, admitted)

    def check(self, bucket):
        units = list(bucket.items)
        assert Counter(unit.name for unit in units) == self.admitted
        last = {unit.name: unit.timestamp for unit in units}
        assert all(self.returned[name] >= stamp for name, stamp in last.items())
        assert_within_limits(bucket)


def assert_within_limits(bucket):
    stamps = [unit.timestamp for unit in bucket.items]
    assert stamps == sorted(stamps)
    for rate in bucket.rates:
        for first, stamp in enumerate(stamps):
            start = bucket._algorithm.window_start(rate, stamp)
            inside = sum(start <= other <= stamp for other in stamps[: first + 1])
            inside += sum(other == stamp for other in stamps[first + 1 :])
            assert inside <= rate.limit


@pytest.mark.parametrize("policy", [SlidingWindowLog, FixedWindow])
def test_threads_never_pass_the_limit(policy):
    bucket = InMemoryBucket(RATES, policy())
    traffic = Traffic(on(bucket), 1)
    in_threads(*[lambda: traffic.calls(8)] * 8)
    traffic.check(bucket)


@pytest.mark.parametrize("policy", [SlidingWindowLog, FixedWindow])
def test_tasks_that_are_cancelled_never_pass_the_limit(policy):
    bucket = InMemoryBucket(RATES, policy())
    traffic = Traffic(on(bucket), 2)
    traffic.tasks(60)
    traffic.check(bucket)


def test_threads_and_event_loops_on_one_limiter_never_pass_the_limit():
    bucket = InMemoryBucket(RATES)
    traffic = Traffic(on(bucket), 3)
    in_threads(
        *[lambda: traffic.calls(8)] * 4,
        *[lambda: traffic.tasks(25)] * 2,
    )
    traffic.check(bucket)


def test_two_limiters_on_one_bucket_never_pass_the_limit():
    bucket = InMemoryBucket(RATES)
    one, other = Traffic(on(bucket), 4), Traffic(on(bucket, buffer_ms=0), 5)
    other.number = 1000
    in_threads(*[lambda: one.calls(6)] * 3, *[lambda: other.calls(6)] * 3)
    one.admitted += other.admitted
    one.returned |= other.returned
    one.check(bucket)


def test_without_reserving_ahead_the_limit_holds_as_well():
    bucket = InMemoryBucket(RATES)
    traffic = Traffic(on(bucket, reserve_ahead=False), 6)
    in_threads(*[lambda: traffic.calls(5)] * 4, lambda: traffic.tasks(20))
    traffic.check(bucket)


def test_whoever_oversleeps_is_kept_at_the_time_at_which_he_woke(monkeypatch):
    bucket = InMemoryBucket([Rate(4, 40)])
    limiter = on(bucket)
    draw = random.Random(7)
    woke = {}

    def oversleep(seconds):
        time.sleep(seconds + draw.choice([0, 0, 0.02, 0.06]))
        woke[threading.current_thread().name] = time.monotonic_ns() // 1_000_000

    monkeypatch.setattr("pyrate_limiter.limiter.sleep", oversleep)

    def work():
        name = threading.current_thread().name
        for call in range(3):
            woke.pop(name, None)
            assert limiter.try_acquire(f"{name}/{call}")
            if name in woke:
                kept = next(u.timestamp for u in bucket.items if u.name == f"{name}/{call}")
                assert kept >= woke[name]

    in_threads(*[work] * 8)
    assert bucket.count() == 24
    assert_within_limits(bucket)


@pytest.mark.parametrize("burst", [1, 6])
def test_gcra_lets_nobody_through_before_his_time(burst):
    rate = Rate(6, 60, burst=burst)
    limiter = on(StateBucket([rate]))
    returned = []
    begun = time.monotonic()

    def calls():
        for _ in range(4):
            assert limiter.try_acquire("a")
            returned.append(time.monotonic() - begun)

    async def task():
        assert await limiter.try_acquire_async("a")
        returned.append(time.monotonic() - begun)

    async def tasks():
        await asyncio.gather(*(task() for _ in range(12)))

    in_threads(*[calls] * 4, lambda: asyncio.run(tasks()))
    assert len(returned) == 28
    for place, seconds in enumerate(sorted(returned)):
        assert seconds >= (place - burst + 1) * rate.interval / rate.limit / 1000 - 0.001


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_eight_threads_without_blocking_are_refused_only_when_it_is_full(make):
    limit = 4000
    limiter = on(make([Rate(limit, 3_600_000)]))
    answers = []

    def work():
        answers.extend([limiter.try_acquire("a", blocking=False) for _ in range(1000)])

    in_threads(*[work] * 8)
    # GCRA has one unit back after 900 ms.
    assert limit <= answers.count(True) <= limit + (make is StateBucket) * 10
    assert len(answers) == 8000


def test_eight_threads_are_never_refused_with_room_to_spare_under_many_keys():
    with Limiter.per_key(Rate(1000, 3_600_000)) as limiter:
        refused = []

        def work():
            names = [f"key {call % 8}" for call in range(1000)]
            refused.extend(name for name in names if not limiter.try_acquire(name, blocking=False))

        in_threads(*[work] * 8)
        assert not refused
        assert not limiter.try_acquire("key 0", blocking=False)
