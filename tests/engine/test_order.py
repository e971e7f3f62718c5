"""Waiters leave in the order in which they came.

Many of these share a moment, and the operating system wakes whom it likes. A thread that has left
wakes the next and then writes down its number: a long switch interval lets it do so.
"""

import asyncio
import contextvars
import sys
import threading
import time

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    InMemoryBucket,
    InMemoryStateStore,
    Limiter,
    Rate,
    RateItem,
    SingleBucketFactory,
    StateBucket,
)
from pyrate_limiter._engine import wait_queue
from pyrate_limiter._engine.native import unwrapped
from pyrate_limiter._engine.wait_queue import queue_at

WAITERS = 100
HEAD_START_MS = 400


@pytest.fixture(autouse=True)
def _nobody_counts_as_stalled(monkeypatch):
    monkeypatch.setattr(wait_queue, "GRACE_SECONDS", 20)
    before = sys.getswitchinterval()
    sys.setswitchinterval(20)
    yield
    sys.setswitchinterval(before)


def log():
    return InMemoryBucket([Rate(25, 150)]), 25


def spaced_log():
    return InMemoryBucket([Rate(1, 5)]), 1


def gcra():
    return StateBucket([Rate(25, 150)]), 25


def spaced_gcra():
    return StateBucket([Rate(250, 1000, burst=1)]), 1


BUCKETS = [log, spaced_log, gcra, spaced_gcra]


def limiter_on(bucket):
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False))


def waiting_at(bucket):
    queue = queue_at(unwrapped(bucket))
    return 0 if queue is None else queue.size


class Arrivals:
    """Starts waiters one after the other, each when the one before stands in line, or is gone."""

    def __init__(self, bucket):
        self.bucket = bucket
        self.left = []

    def arrived(self, number):
        return len(self.left) + waiting_at(self.bucket) > number

    def thread(self, limiter, number):
        def wait():
            WHO.set(number)
            assert limiter.try_acquire(str(number))
            self.left.append(number)

        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + 20
        while not self.arrived(number):
            assert time.monotonic() < deadline
            time.sleep(0.0001)
        return thread

    async def task(self, limiter, number):
        WHO.set(number)
        assert await limiter.try_acquire_async(str(number))
        self.left.append(number)


def fill(bucket, limit):
    """Fill it, and reserve what comes next, so that all have arrived before the first may leave.

    Who need not wait does not stand in line: he may pass those whose moment has come just now.
    """
    limiter = limiter_on(bucket)
    assert limiter.try_acquire("first", limit, blocking=False)
    while bucket.reserve(RateItem("first", bucket.now(), limit), 1 << 40).wait_ms < HEAD_START_MS:
        pass
    return limiter


@pytest.mark.parametrize("make", BUCKETS)
def test_threads_leave_in_the_order_in_which_they_came(make):
    bucket, limit = make()
    limiter = fill(bucket, limit)
    arrivals = Arrivals(bucket)
    threads = [arrivals.thread(limiter, number) for number in range(WAITERS)]
    for thread in threads:
        thread.join()
    assert arrivals.left == list(range(WAITERS))
    assert waiting_at(bucket) == 0


@pytest.mark.parametrize("wrap", [lambda bucket: bucket, BucketAsyncWrapper])
@pytest.mark.parametrize("make", BUCKETS)
def test_tasks_leave_in_the_order_in_which_they_came(make, wrap):
    bucket, limit = make()
    fill(bucket, limit)
    limiter, arrivals = limiter_on(wrap(bucket)), Arrivals(bucket)

    async def main():
        await asyncio.gather(*(arrivals.task(limiter, number) for number in range(WAITERS)))

    asyncio.run(main())
    assert arrivals.left == list(range(WAITERS))
    assert waiting_at(bucket) == 0


WHO = contextvars.ContextVar("who", default=None)


class Witness(InMemoryStateStore):
    """A store that remembers whom it has admitted."""

    __slots__ = ("admitted",)

    def __init__(self):
        super().__init__()
        self.admitted = []

    def check(self, *terms, **more):
        decision = super().check(*terms, **more)
        self.admitted += [WHO.get()] * decision.allowed
        return decision

    def reserve(self, *terms, **more):
        decision = super().reserve(*terms, **more)
        self.admitted += [WHO.get()] * decision.allowed
        return decision


def witnessed_log():
    bucket, limit = log()
    return bucket, limit, lambda: [int(unit.name) for unit in bucket.items if unit.name != "first"]


def witnessed_gcra():
    store = Witness()
    bucket, limit = StateBucket([Rate(25, 150)], store=store), 25
    return bucket, limit, lambda: [number for number in store.admitted if number is not None]


# A task that a thread has woken may come back before the thread does: so the bucket is asked.
@pytest.mark.parametrize("make", [witnessed_log, witnessed_gcra])
def test_threads_and_tasks_leave_in_the_order_in_which_they_came(make):
    bucket, limit, admitted = make()
    limiter = fill(bucket, limit)
    arrivals = Arrivals(bucket)
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    waiters = []
    for number in range(WAITERS):
        if number % 3:
            task = asyncio.run_coroutine_threadsafe(arrivals.task(limiter, number), loop)
            waiters.append(task.result)
            while not arrivals.arrived(number):
                time.sleep(0.0001)
        else:
            waiters.append(arrivals.thread(limiter, number).join)
    for wait in waiters:
        wait()
    loop.call_soon_threadsafe(loop.stop)
    runner.join()
    loop.close()
    assert sorted(arrivals.left) == admitted() == list(range(WAITERS))
    assert waiting_at(bucket) == 0


def test_a_heavy_waiter_is_not_passed_by_light_ones():
    bucket = InMemoryBucket([Rate(4, 60)])
    limiter = limiter_on(bucket)
    assert limiter.try_acquire("first", 3)
    arrivals = Arrivals(bucket)

    async def main():
        heavy = asyncio.ensure_future(limiter.try_acquire_async("heavy", 4))
        await asyncio.sleep(0.01)  # with less, the heavy one would not miss what it takes
        assert not limiter.try_acquire("light", blocking=False)
        light = [asyncio.ensure_future(arrivals.task(limiter, number)) for number in range(4)]
        assert await heavy
        assert arrivals.left == []
        await asyncio.gather(*light)

    asyncio.run(main())
    assert arrivals.left == [0, 1, 2, 3]
