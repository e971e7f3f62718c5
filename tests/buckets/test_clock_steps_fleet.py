"""The clock of a host steps by an hour in the middle of its processes' traffic."""

import contextlib
import multiprocessing
import os
import threading
import time
from itertools import pairwise

import pytest

from pyrate_limiter import (
    InMemoryBucket,
    Limiter,
    MultiprocessBucket,
    Rate,
    SingleBucketFactory,
    SQLiteBucket,
    StateBucket,
    WallClock,
)
from pyrate_limiter.testing import ManualClock

pytestmark = pytest.mark.alone

FORK = multiprocessing.get_context("fork")
HOUR = 3_600_000
LIMIT, INTERVAL = 20, 200
PROCESSES = 4


class SteppingClock(WallClock):
    """Epoch time that all processes see step. Notes the true time of each reading by thread."""

    def __init__(self, offset):
        self.offset = offset
        self.read = threading.local()

    def now(self):
        self.read.at = super().now()
        return self.read.at + self.offset.value


def work(bucket, blocking, stop, found):
    limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False), buffer_ms=0)
    moments = []
    while not stop.is_set():
        if limiter.try_acquire("x", blocking=blocking, **({"timeout": 5} if blocking else {})):
            # It was admitted between the last look at the clock and the return.
            moments.append((bucket._clock.read.at, WallClock().now()))
    found.put(moments)


@pytest.fixture(params=[MultiprocessBucket, SQLiteBucket, InMemoryBucket])
def bucket(request, tmp_path):
    rates = [Rate(LIMIT, INTERVAL)]
    if request.param is MultiprocessBucket:
        made = MultiprocessBucket.init(rates)
    elif request.param is SQLiteBucket:
        made = SQLiteBucket.init_from_file(rates, db_path=str(tmp_path / "limits.db"))
    else:
        made = InMemoryBucket(rates)
    with made:
        yield made


@contextlib.contextmanager
def at_work(bucket, stop, found):
    """Half of the workers wait for room, half do not. Threads, where memory is not shared."""
    if isinstance(bucket, InMemoryBucket) and not isinstance(bucket, MultiprocessBucket):
        make = threading.Thread
    else:
        make = FORK.Process
    workers = [
        make(target=work, args=(bucket, number % 2 == 0, stop, found), daemon=True)
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_that_steps_in_live_traffic_lets_one_further_limit_through(bucket, step):
    offset = FORK.Value("q", 2 * HOUR, lock=False)
    bucket._clock = SteppingClock(offset)
    stop, found = FORK.Event(), FORK.Queue()
    with at_work(bucket, stop, found):
        time.sleep(0.7)
        before = WallClock().now()
        offset.value += step
        after = WallClock().now()
        time.sleep(1.3)
        stop.set()
        moments = sorted(moment for _ in range(PROCESSES) for moment in found.get(timeout=10))
    # Nobody is refused until the clock has caught up, or much longer than an interval.
    assert max(late - early for (_, early), (late, _) in pairwise(moments)) < 3 * INTERVAL
    for limit, allowed in [(LIMIT, range(before, after + 1)), (2 * LIMIT, ())]:
        for group in zip(*(moments[start:] for start in range(limit + 1))):
            first, last = group[0][0], max(returned for _, returned in group)
            over = last - first <= INTERVAL
            assert not over or any(first <= at <= last for at in allowed), f"{limit + 1} at {first}"


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
def test_who_waits_after_a_step_back_waits_in_truth(make, monkeypatch):
    bucket, true = make([Rate(1, 100)]), time.time_ns
    bucket._clock = WallClock()
    limiter = Limiter(bucket, buffer_ms=0)
    assert limiter.try_acquire("a")
    monkeypatch.setattr(time, "time_ns", lambda: true() - 60_000_000_000)
    assert limiter.try_acquire("a")
    began = time.monotonic()
    assert all(limiter.try_acquire("a") for _ in range(3))
    assert time.monotonic() - began > 0.19  # the first may find room that the step has made


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket, MultiprocessBucket.init])
def test_after_a_step_back_those_who_come_slowly_are_all_admitted(make):
    bucket, clock = make([Rate(2, 1000)]), ManualClock(1_700_000_000_000)
    bucket._clock = clock
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", blocking=False)
    clock.set(clock.now() - HOUR)
    got = []
    for _ in range(30):
        clock.advance(2000)
        got.append(limiter.try_acquire("a", blocking=False))
    assert all(got)
    bucket.close()
