"""The one thread that leaks: it starts, outlives errors and forks, and ends."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    InMemoryBucket,
    Limiter,
    MonotonicAsyncClock,
    Rate,
    RateItem,
    SingleBucketFactory,
    StateBucket,
)
from pyrate_limiter._core.leaking_thread import LeakingThread, leaking_thread
from pyrate_limiter.abstracts.bucket import Leaker
from tests.support.doubles import ListBucket, in_async_form, one


def sweepers():
    return [thread for thread in threading.enumerate() if thread.name == Leaker.name]


def wait_until(condition):
    """Real threads are waited for on real time, and no longer than they need."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def no_thread_is_left():
    gc.collect()
    wait_until(lambda: not sweepers())


@pytest.fixture(autouse=True)
def quiet():
    # What other tests have left behind, in the traceback of a failure for example, is ended.
    for reference in list(leaking_thread._leakers.values()):
        leaker = reference()
        if leaker is not None:
            leaker.close()
    no_thread_is_left()
    yield
    no_thread_is_left()


class Counting(ListBucket):
    def __init__(self, rates, leaks, fails=0):
        super().__init__(rates)
        self.is_async = False
        self.leaks, self.fails = leaks, fails

    def leak(self, current_timestamp=None):
        self.leaks.append(1)
        if len(self.leaks) <= self.fails:
            raise OSError("disk")
        return 0


def swept(bucket, interval=1):
    factory = SingleBucketFactory(bucket, schedule_leak=False)
    factory.leak_interval = interval
    factory.schedule_leak(bucket)
    return factory


def test_a_scheduled_bucket_is_leaked_again_and_again():
    leaks = []
    factory = swept(Counting(one(), leaks))
    wait_until(lambda: len(leaks) >= 3)
    factory.close()


def test_expired_units_are_swept_away():
    bucket = InMemoryBucket(one())
    bucket.put(RateItem("x", bucket.now() - 10_000))
    factory = swept(bucket)
    wait_until(lambda: bucket.count() == 0)
    factory.close()


def test_nothing_is_leaked_before_the_interval_is_over():
    leaks = []
    factory = swept(Counting(one(), leaks), 3_600_000)
    time.sleep(0.02)
    assert leaks == []
    factory.close()


def test_a_shorter_interval_takes_effect_at_once():
    leaks = []
    factory = swept(Counting(one(), leaks), 3_600_000)
    factory.leak_interval = 1
    wait_until(lambda: leaks)
    factory.close()


def test_an_error_is_logged_and_outlived(caplog):
    leaks = []
    with caplog.at_level(logging.ERROR, logger="pyrate_limiter"):
        factory = swept(Counting(one(), leaks, fails=2))
        wait_until(lambda: len(leaks) >= 4)
        factory.close()
    assert sum("failed, it will be tried again" in line for line in caplog.messages) == 2


def test_an_error_in_one_bucket_does_not_stop_the_others(caplog):
    good = []
    factory = swept(Counting(one(), [], fails=10**9))
    with caplog.at_level(logging.CRITICAL, logger="pyrate_limiter"):
        factory.schedule_leak(Counting(one(), good))
        wait_until(lambda: len(good) >= 2)
        factory.close()


def test_a_bucket_whose_clock_is_awaited_is_swept_without_a_warning(recwarn):
    bucket = InMemoryBucket(one())
    bucket._clock = MonotonicAsyncClock()
    leaker = Leaker(10_000)
    leaker.register(bucket)
    leaker.sweep()
    gc.collect()
    assert not recwarn
    leaker.close()


def test_async_buckets_are_leaked_on_their_loop():
    leaks = []

    class Own(ListBucket):
        is_async = True

        async def leak(self, current_timestamp=None):
            leaks.append(asyncio.get_running_loop())
            if len(leaks) == 1:
                raise OSError("disk")
            return 0

    async def scenario():
        factory = swept(Own(one()))
        while len(leaks) < 3:  # noqa: ASYNC110 - the sweeper's thread sets no event
            await asyncio.sleep(0.001)
        factory.close()
        return asyncio.get_running_loop()

    logging.getLogger("pyrate_limiter").setLevel(logging.CRITICAL)
    try:
        loop = asyncio.run(scenario())
    finally:
        logging.getLogger("pyrate_limiter").setLevel(logging.NOTSET)
    assert leaks[:3] == [loop] * 3


def test_an_async_bucket_that_has_nothing_to_leak_is_no_error(caplog):
    leaks = []
    bucket = Counting(one(), leaks)
    bucket.is_async = True

    async def scenario():
        factory = swept(bucket)
        while len(leaks) < 2:  # noqa: ASYNC110 - the sweeper's thread sets no event
            await asyncio.sleep(0.001)
        factory.close()

    asyncio.run(scenario())
    assert caplog.records == []


def test_an_async_bucket_made_outside_a_loop_is_swept_once_one_is_there():
    inner = InMemoryBucket(one(5))
    inner.put(RateItem("x", inner.now() - 10_000))
    factory = swept(BucketAsyncWrapper(inner))
    limiter = Limiter(factory)

    async def scenario():
        await limiter.try_acquire_async(weight=1)
        while inner.count() > 1:  # noqa: ASYNC110 - the sweeper's thread sets no event
            await asyncio.sleep(0.001)
        return inner.count()

    assert asyncio.run(scenario()) == 1
    limiter.close()


def test_a_finished_loop_is_left_alone():
    async def scenario():
        return swept(BucketAsyncWrapper(InMemoryBucket(one())))

    factory = asyncio.run(scenario())
    factory._leaker.leak_async()
    factory.close()


def test_the_thread_ends_when_the_last_limiter_is_closed():
    first, second = Limiter(Rate(1, 1000)), Limiter(Rate(1, 1000))
    wait_until(lambda: len(sweepers()) == 1)
    first.close()
    assert len(sweepers()) == 1
    second.close()
    wait_until(lambda: not sweepers())


def test_the_thread_comes_back_with_the_next_limiter():
    Limiter(Rate(1, 1000)).close()
    wait_until(lambda: not sweepers())
    limiter = Limiter(Rate(1, 1000))
    wait_until(lambda: len(sweepers()) == 1)
    limiter.close()


def test_the_thread_ends_when_the_last_bucket_is_disposed_of():
    limiter = Limiter(Rate(1, 1000))
    limiter.dispose(limiter.buckets()[0])
    wait_until(lambda: not sweepers())


def test_a_limiter_made_where_one_has_just_died_is_swept():
    kept = []
    for _ in range(50):
        swept(Counting(one(), []), 3_600_000)  # its leaker's address is free again
        leaks = []
        kept.append((swept(Counting(one(), leaks)), leaks))
    wait_until(lambda: all(leaks for _, leaks in kept))
    for factory, _ in kept:
        factory.close()


def test_making_many_limiters_costs_the_same_for_each(monkeypatch):
    looks = []
    look = LeakingThread._leaker
    monkeypatch.setattr(
        LeakingThread, "_leaker", lambda self, serial: looks.append(1) or look(self, serial)
    )
    limiters = [Limiter(Rate(1, 1000)) for _ in range(1000)]
    leaking_thread._nudge()  # by itself it looks again after ten seconds
    wait_until(lambda: not leaking_thread._news or len(looks) > 5000)
    for limiter in limiters:
        limiter.close()
    no_thread_is_left()
    assert len(looks) < 5000


def test_a_bucket_that_hangs_does_not_stop_the_sweeping_of_others():
    stuck, go_on, leaks = threading.Event(), threading.Event(), []

    class Hanging(Counting):
        def leak(self, current_timestamp=None):
            stuck.set()
            go_on.wait(30)
            return 0

    hanging, other = swept(Hanging(one(), [])), swept(Counting(one(), leaks))
    assert stuck.wait(30)
    seen = len(leaks)
    wait_until(lambda: len(leaks) >= seen + 3)
    go_on.set()
    hanging.close()
    other.close()
    wait_until(lambda: not [each for each in threading.enumerate() if "slow" in each.name])


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt()])
def test_whatever_a_leak_raises_is_outlived(error, caplog):
    class Raising(Counting):
        def leak(self, current_timestamp=None):
            super().leak()
            raise error

    leaks, others = [], []
    with caplog.at_level(logging.CRITICAL, logger="pyrate_limiter"):
        factory, other = swept(Raising(one(), leaks)), swept(Counting(one(), others))
        wait_until(lambda: len(leaks) >= 3 and len(others) >= 3)
        factory.close()
        other.close()


def test_a_log_handler_that_raises_is_outlived():
    class Broken(logging.Handler):
        def emit(self, record):
            raise SystemExit

    handler, leaks = Broken(), []
    logging.getLogger("pyrate_limiter").addHandler(handler)
    try:
        factory = swept(Counting(one(), leaks, fails=2))
        wait_until(lambda: len(leaks) >= 4)
    finally:
        logging.getLogger("pyrate_limiter").removeHandler(handler)
        factory.close()


def test_an_event_loop_that_is_closed_at_the_wrong_moment_is_outlived():
    class JustClosed:
        def is_running(self):
            return True

        def call_soon_threadsafe(self, *_):
            raise RuntimeError("Event loop is closed")

    leaks = []
    factory = swept(BucketAsyncWrapper(InMemoryBucket(one())))
    factory._leaker._loop = JustClosed()
    other = swept(Counting(one(), leaks))
    wait_until(lambda: len(leaks) >= 3)
    factory.close()
    other.close()


def test_a_thread_that_cannot_be_had_is_tolerated(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    leaks, later = [], []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        limiter = Limiter(swept(Counting(one(5), leaks)))
        assert limiter.try_acquire("a") is True
        keyed = Limiter.per_key(Rate(1, 1000))
        assert keyed.try_acquire("a") is True
        assert not limiter.bucket_factory._leaker.is_alive()
    other = swept(Counting(one(), later))
    wait_until(lambda: leaks and later)  # the next one starts it for all
    for each in (limiter, keyed, other):
        each.close()


def test_a_bucket_that_is_empty_can_be_disposed_of():
    class Sized(Counting):
        def __len__(self):
            return 0

    bucket = Sized(one(), [])
    factory = swept(bucket, 3_600_000)
    assert factory.dispose(bucket) is True
    assert factory.dispose(bucket) is False
    factory.close()


def test_a_limiter_that_was_made_while_a_test_froze_the_time_is_swept_afterwards(monkeypatch):
    leaks = []
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 1e12)
        factory = swept(Counting(one(), leaks))
    wait_until(lambda: len(leaks) >= 3)
    factory.close()


@pytest.mark.parametrize("interval", [1, 3_600_000])
def test_time_that_a_test_freezes_ends_no_sweeping(monkeypatch, interval):
    leaks = ([], [])
    before = swept(Counting(one(), leaks[0]), interval)
    wait_until(lambda: leaking_thread._wakes_at)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 1e12)
        during = swept(Counting(one(), leaks[1]))
        wait_until(lambda: not leaking_thread._news)
    before.leak_interval = 1
    for seen in leaks:
        seen.clear()
        wait_until(lambda seen=seen: len(seen) >= 3)
    before.close()
    during.close()


PATCHED_LATE = """
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)
import pyrate_limiter.limiter
from pyrate_limiter import Limiter, Rate
import gevent, gevent.monkey
gevent.monkey.patch_all()
limiter = Limiter.per_key(Rate(1, 1))
limiter.bucket_factory.leak_interval = 1
print(limiter.try_acquire("a"))
while len(limiter.bucket_factory):
    gevent.sleep(0.001)
limiter.close()
print(Limiter(Rate(1, 1)).try_acquire("a"))
"""


def test_gevent_may_patch_threads_after_the_import():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PATCHED_LATE],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")


def test_the_thread_does_not_keep_the_process_alive():
    limiter = Limiter(Rate(1, 1000))
    wait_until(lambda: len(sweepers()) == 1)
    assert sweepers()[0].daemon
    limiter.close()


def make(kind):
    if kind == "keyed":
        return Limiter.per_key(Rate(1, 1000))
    if kind == "state":
        return Limiter(StateBucket(one()))
    if kind == "async":
        return Limiter(BucketAsyncWrapper(InMemoryBucket(one())))
    if kind == "own":
        return Limiter(in_async_form(ListBucket, "put")(one()))
    return Limiter(Rate(1, 1000))


def descriptors():
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.mark.parametrize("kind", ["memory", "state", "keyed", "async", "own"])
@pytest.mark.parametrize("end", ["close", "drop"])
def test_fifty_limiters_made_and_dropped_leave_nothing(kind, end):
    async def use(limiter):
        await limiter.try_acquire_async("x")
        limiter.try_acquire("y", weight=0)

    asyncio.run(use(make(kind)))  # what is made once per process is made now
    gc.collect()
    open_before, traces = descriptors(), []
    for _ in range(50):
        limiter = make(kind)
        asyncio.run(use(limiter))
        traces += [weakref.ref(limiter), weakref.ref(limiter.bucket_factory)]
        traces += [weakref.ref(bucket) for bucket in limiter.buckets()]
        if end == "close":
            limiter.close()
        del limiter
    no_thread_is_left()
    assert [trace for trace in traces if trace() is not None] == []
    assert descriptors() <= open_before


FORK_UNDER_LOAD = """
import os, signal, threading
from pyrate_limiter import Limiter, Rate

limiters = [Limiter(Rate(10**9, 3_600_000)) for _ in range(4)]
stop = threading.Event()

def work(limiter):
    while not stop.is_set():
        limiter.try_acquire()

threads = [threading.Thread(target=work, args=(each,)) for each in limiters]
for thread in threads:
    thread.start()
outcomes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if all(each.try_acquire() for each in limiters) else 1)
    outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(outcomes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
class TestFork:
    @staticmethod
    def in_child(check):
        child = os.fork()
        if child == 0:
            try:
                status = 0 if check() else 1
            except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
                status = 2
            os._exit(status)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "hung"

    def test_the_child_sweeps(self):
        bucket = InMemoryBucket(one())
        factory = swept(bucket)
        wait_until(lambda: len(sweepers()) == 1)

        def check():
            bucket.put(RateItem("x", bucket.now() - 10_000))
            wait_until(lambda: bucket.count() == 0)
            return True

        assert self.in_child(check) == 0
        assert factory._leaker.is_alive()
        factory.close()

    def test_the_child_limits(self):
        limiter = Limiter(Rate(3, 3_600_000))
        limiter.try_acquire()

        def check():
            got = [limiter.try_acquire(blocking=False) for _ in range(3)]
            limiter.close()
            return got == [True, True, False]

        assert self.in_child(check) == 0
        assert limiter.try_acquire(blocking=False) is True
        limiter.close()

    def test_locks_that_other_threads_hold_are_free_in_the_child(self):
        # In a process of its own: the locks of a tracer such as coverage are not made for forks.
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORK_UNDER_LOAD],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert (done.stdout, done.stderr) == ("[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n", "")
