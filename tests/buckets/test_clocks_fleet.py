"""Threads and tasks whose stamps come from other clocks, come late, or after a pause.

Asserted is that no admission comes earlier than the limits let it, counted from the beginning: a
machine that is busy can only make it later.
"""

import asyncio
import os
import random
import signal
import threading
import time

import pytest

from pyrate_limiter import (
    AbstractClock,
    BucketFactory,
    InMemoryBucket,
    Limiter,
    MonotonicClock,
    MultiprocessBucket,
    Rate,
    RateItem,
    SQLiteBucket,
    StateBucket,
)

pytestmark = pytest.mark.alone

LIMIT, INTERVAL = 5, 60  # units, ms
SECONDS = 0.6
MAKERS = pytest.mark.parametrize(
    "make",
    [InMemoryBucket, StateBucket, MultiprocessBucket.init, SQLiteBucket.init_from_file],
    ids=["memory", "state", "shared memory", "sqlite"],
)


def wall():
    return time.time_ns() // 1_000_000


START = time.monotonic_ns()


def stopwatch():
    return (time.monotonic_ns() - START) // 1_000_000


class ByItsOwnClock(BucketFactory):
    """What users write: all items go to one bucket, stamped by a clock of their own."""

    def __init__(self, bucket, read):
        self.bucket, self.read = bucket, read

    def wrap_item(self, name, weight=1):
        return RateItem(name, self.read(), weight)

    def get(self, _):
        return self.bucket


class WithASlowLookup(ByItsOwnClock):
    def __init__(self, bucket, read):
        super().__init__(bucket, read)
        self.chance = random.Random(1)

    async def get(self, _):
        await asyncio.sleep(self.chance.choice([0, 0, 0, 3 * INTERVAL / 1000]))
        return self.bucket


class SlowClock(AbstractClock):
    """Awaited, and answers late, in any order."""

    def __init__(self):
        self.chance = random.Random(2)

    async def now(self):
        read = MonotonicClock().now()
        await asyncio.sleep(self.chance.random() * 2 * INTERVAL / 1000)
        return read


def assert_paced(bucket, begun, ends, late_ms=0):
    """``late_ms`` is by how much stamps may be older than the calls, before the first one too."""
    for place, end in enumerate(sorted(ends)):
        if isinstance(bucket, StateBucket):
            earliest = max(0, place - LIMIT + 1) * INTERVAL / LIMIT
        else:
            earliest = place // LIMIT * INTERVAL
        assert (end - begun) * 1000 + late_ms + 2 >= earliest, f"admission {place} of {len(ends)}"


def by_threads(limiter, threads, seconds=SECONDS, **terms):
    """When calls were admitted that so many threads make, and when they began."""
    begun, ends = time.monotonic(), []

    def work():
        while time.monotonic() - begun < seconds:
            if limiter.try_acquire("x", **terms):
                ends.append(time.monotonic())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return begun, ends


@MAKERS
@pytest.mark.parametrize("read", [wall, stopwatch])
def test_threads_stamped_by_a_clock_of_the_users_own_keep_the_limit(make, read):
    with make([Rate(LIMIT, INTERVAL)]) as bucket:
        limiter = Limiter(ByItsOwnClock(bucket, read), buffer_ms=0)
        begun, ends = by_threads(limiter, 8, timeout=1)
        assert len(ends) >= LIMIT
        assert_paced(bucket, begun, ends)
        deadline = time.monotonic() + 30
        while not limiter.try_acquire("x", blocking=False):
            assert time.monotonic() < deadline, "the idle bucket refuses"
            time.sleep(0.005)


@MAKERS
def test_tasks_whose_bucket_is_looked_up_slowly_keep_the_limit(make):
    async def main(limiter):
        begun, ends = time.monotonic(), []

        async def work():
            while time.monotonic() - begun < SECONDS:
                if await limiter.try_acquire_async("x", blocking=False):
                    ends.append(time.monotonic())
                await asyncio.sleep(0.002)

        await asyncio.gather(*(work() for _ in range(30)))
        return begun, ends

    with make([Rate(LIMIT, INTERVAL)]) as bucket:
        begun, ends = asyncio.run(main(Limiter(WithASlowLookup(bucket, bucket.now))))
        assert_paced(bucket, begun, ends, late_ms=3 * INTERVAL)


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_tasks_at_a_clock_that_answers_late_keep_the_limit(make):
    bucket = make([Rate(LIMIT, INTERVAL)])
    bucket._clock = SlowClock()

    async def main(limiter):
        begun, ends = time.monotonic(), []

        async def work():
            while time.monotonic() - begun < SECONDS:
                if await limiter.try_acquire_async("x", timeout=1):
                    ends.append(time.monotonic())

        await asyncio.gather(*(work() for _ in range(20)))
        return begun, ends

    begun, ends = asyncio.run(main(Limiter(bucket, buffer_ms=0)))
    assert_paced(bucket, begun, ends, late_ms=2 * INTERVAL)


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_many_threads_at_an_interval_shorter_than_their_turns_keep_the_limit(make):
    bucket = make([Rate(2, 4)])
    begun, ends = by_threads(Limiter(bucket, buffer_ms=0), 60, timeout=1)
    for place, end in enumerate(sorted(ends)):
        assert (end - begun) * 1000 + 2 >= (
            max(0, place - 1) * 2 if make is StateBucket else place // 2 * 4
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_a_process_that_is_stopped_again_and_again_keeps_the_limit(make):
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        bucket = make([Rate(LIMIT, INTERVAL)])
        begun, ends = by_threads(Limiter(bucket, buffer_ms=0), 8, timeout=1)
        try:
            assert_paced(bucket, begun, ends)
            os.write(send, b"kept" if ends else b"none")
        finally:
            os._exit(0)
    try:
        for _ in range(8):
            time.sleep(0.03)
            os.kill(child, signal.SIGSTOP)
            time.sleep(0.05)
            os.kill(child, signal.SIGCONT)
    finally:
        os.waitpid(child, 0)
    os.close(send)
    assert os.read(receive, 10) == b"kept"
    os.close(receive)
