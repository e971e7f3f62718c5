"""Waiters that are cancelled, interrupted, stalled or forked, and what the others notice of it."""

import asyncio
import gc
import os
import signal
import threading
import time
import warnings
import weakref
from functools import partial
from itertools import pairwise

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    BucketFactory,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    SingleBucketFactory,
    StateBucket,
)
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._engine.wait_queue import queue_at
from tests.support.doubles import ListBucket

FULL = [Rate(1, 60_000)]
MAKERS = [InMemoryBucket, StateBucket]


def full_limiter(make=InMemoryBucket, wrap=None):
    bucket = make(FULL)
    limiter = Limiter(SingleBucketFactory(wrap(bucket) if wrap else bucket, schedule_leak=False))
    assert bucket.put(RateItem("first", bucket.now()))
    return bucket, limiter


def waiting_at(bucket):
    queue = queue_at(bucket)
    return 0 if queue is None else queue.size


def as_new(bucket):
    """What a bucket looks like in which nobody waits."""
    assert queue_at(bucket) is None
    if isinstance(bucket, StateBucket):
        owed_until, *_ = bucket.store.read(bucket._algorithm, bucket.rates)
        assert owed_until // 1000 <= bucket.now() + 60_000
    else:
        assert bucket.count() == 1
        assert not bucket._pending
    retry = bucket.check(RateItem("next", bucket.now())).retry_after_ms
    return retry <= 60_001


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("wrap", [None, BucketAsyncWrapper])
@pytest.mark.parametrize("make", MAKERS)
def test_cancelled_tasks_leave_nothing_behind(make, wrap):
    bucket, limiter = full_limiter(make, wrap)

    async def main():
        tasks = [asyncio.ensure_future(limiter.try_acquire_async("a")) for _ in range(20)]
        await asyncio.sleep(0.02)
        assert queue_at(bucket).size == 20
        for task in tasks[::-1]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)

    asyncio.run(main())
    assert as_new(bucket)


@pytest.mark.parametrize("make", MAKERS)
def test_tasks_that_end_with_their_event_loop_leave_nothing_behind(make):
    bucket, limiter = full_limiter(make)

    async def main():
        waiting = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await asyncio.sleep(0.02)
        assert not waiting.done()

    asyncio.run(main())
    assert as_new(bucket)


@pytest.mark.parametrize("make", MAKERS)
def test_a_waiter_that_is_never_resumed_leaves_nothing_behind(make):
    bucket, limiter = full_limiter(make)
    waiting = limiter.try_acquire_async("a")

    async def main():
        sleeping = waiting.send(None)
        sleeping.cancel()
        waiting.close()

    asyncio.run(main())
    assert as_new(bucket)


class SlowBucket(InMemoryBucket):
    """Its calls are done in a worker thread, and take until the gate is opened."""

    blocks = True

    def __init__(self):
        super().__init__([Rate(1, 200)])
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()

    def reserve(self, *args):
        decision = super().reserve(*args)
        self.inside.set()
        assert self.gate.wait(20)
        return decision

    def confirm(self, *args):
        self.inside.set()
        assert self.gate.wait(20)
        return super().confirm(*args)


def slow_limiter(wrap):
    bucket = SlowBucket()
    wrapped = wrap(bucket) if wrap else bucket
    return bucket, Limiter(SingleBucketFactory(wrapped, schedule_leak=False), buffer_ms=0)


async def inside(bucket):
    assert await asyncio.get_running_loop().run_in_executor(None, bucket.inside.wait, 20)
    bucket.inside.clear()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("wrap", [None, BucketAsyncWrapper])
def test_a_cancellation_does_not_wait_for_a_stuck_call_whose_units_are_given_back(wrap, times):
    bucket, limiter = slow_limiter(wrap)

    async def main():
        bucket.gate.clear()
        task = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await inside(bucket)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bucket.count() == 1
        bucket.gate.set()

    asyncio.run(main())
    until(lambda: bucket.count() == 0)


@pytest.mark.parametrize("wrap", [None, BucketAsyncWrapper])
def test_what_returns_after_its_cancellation_is_given_back_at_once(wrap):
    bucket, limiter = slow_limiter(wrap)

    async def main():
        bucket.gate.clear()
        task = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await inside(bucket)
        task.cancel()
        await asyncio.sleep(0.001)
        bucket.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bucket.count() == 0

    asyncio.run(main())


@pytest.mark.parametrize("wrap", [None, BucketAsyncWrapper])
def test_a_waiter_cancelled_while_it_confirms_leaves_nothing_behind(wrap):
    bucket, limiter = slow_limiter(wrap)
    assert bucket.put(RateItem("first", bucket.now()))

    async def main():
        task = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await inside(bucket)
        bucket.gate.clear()
        await inside(bucket)
        task.cancel()
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.2)
        bucket.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    until(lambda: [unit.name for unit in bucket.items] == ["first"])
    assert not bucket._pending


def test_a_waiter_dropped_while_it_confirms_leaves_nothing_behind():
    bucket, limiter = slow_limiter(None)
    assert bucket.put(RateItem("first", bucket.now()))

    async def main():
        waiting = limiter.try_acquire_async("a")
        future = waiting.send(None)
        while not bucket.inside.is_set():
            await asyncio.wait([future])
            future = waiting.send(None)
        bucket.inside.clear()
        bucket.gate.clear()
        while not bucket.inside.is_set():
            await asyncio.wait([future], timeout=0.01)
            if future.done():
                future = waiting.send(None)
        waiting.close()
        bucket.gate.set()

    asyncio.run(main())
    until(lambda: [unit.name for unit in bucket.items] == ["first"])


@pytest.mark.parametrize("make", MAKERS)
def test_timeouts_leave_nothing_behind(make):
    bucket, limiter = full_limiter(make)
    begun = time.monotonic()
    assert not limiter.try_acquire("a", timeout=0.05)
    assert not asyncio.run(limiter.try_acquire_async("a", timeout=0.05))
    assert time.monotonic() - begun >= 0.1
    assert as_new(bucket)


def test_a_timeout_does_not_end_early_where_the_buckets_clock_counts_less_finely():
    class RoundsDown(InMemoryBucket):
        def pause(self, reservation):
            return 0.0

    _, limiter = full_limiter(RoundsDown)
    begun = time.monotonic()
    assert not limiter.try_acquire("a", timeout=0.05)
    assert time.monotonic() - begun >= 0.05


async def wait_for(limiter):
    await asyncio.wait_for(limiter.try_acquire_async("a"), 0.03)


@pytest.mark.parametrize("make", MAKERS)
def test_asyncios_own_timeout_leaves_nothing_behind(make):
    bucket, limiter = full_limiter(make)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(wait_for(limiter))
    assert as_new(bucket)


@pytest.mark.parametrize("make", MAKERS)
def test_an_error_in_sleep_gives_the_units_back(make, monkeypatch):
    bucket, limiter = full_limiter(make)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyrate_limiter.limiter.sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        limiter.try_acquire("a")
    assert as_new(bucket)


@pytest.fixture
def interrupt():
    """Raises KeyboardInterrupt in the main thread after so many seconds."""

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


needs_alarm = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")


@needs_alarm
@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("make", MAKERS)
def test_an_interrupt_in_a_real_sleep_gives_the_units_back(make, interrupt):
    bucket, limiter = full_limiter(make)
    interrupt(0.05)
    with pytest.raises(KeyboardInterrupt):
        limiter.try_acquire("a")
    assert as_new(bucket)


@needs_alarm
@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("make", MAKERS)
def test_an_interrupt_in_the_queue_leaves_nothing_behind(make, interrupt):
    bucket, limiter = full_limiter(make)
    front = threading.Thread(target=limiter.try_acquire, args=("a",), kwargs={"timeout": 1})
    front.start()
    until(lambda: waiting_at(bucket) == 1)
    interrupt(0.05)
    with pytest.raises(KeyboardInterrupt):
        limiter.try_acquire("main")
    assert waiting_at(bucket) == 1
    front.join()
    assert as_new(bucket)


def test_a_stalled_event_loop_holds_threads_up_for_a_moment_only():
    bucket = InMemoryBucket([Rate(1, 40)])
    limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False), buffer_ms=0)
    assert limiter.try_acquire("first")
    stalled, resume = threading.Event(), threading.Event()

    async def main():
        waiting = asyncio.ensure_future(limiter.try_acquire_async("task"))
        await asyncio.sleep(0)
        stalled.set()
        resume.wait()  # it blocks the loop, which is the point
        resumed = time.monotonic_ns() // 1_000_000
        assert await waiting
        return resumed

    results = []
    runner = threading.Thread(target=lambda: results.append(asyncio.run(main())))
    runner.start()
    stalled.wait()
    for number in range(3):
        assert limiter.try_acquire(f"thread {number}", timeout=20)
    assert not results
    resume.set()
    runner.join()
    stamps = [(unit.name, unit.timestamp) for unit in bucket.items]
    assert [name for name, _ in stamps] == ["first", "thread 0", "thread 1", "thread 2", "task"]
    assert stamps[-1][1] >= results[0]
    assert all(b[1] - a[1] > 40 for a, b in pairwise(stamps))


def test_a_waiter_on_one_key_delays_no_other_key():
    with Limiter.per_key(FULL) as limiter:
        assert limiter.try_acquire("full")
        full = partial(limiter.try_acquire, "full", timeout=1)
        waiting = threading.Thread(target=full)
        waiting.start()
        for number in range(200):
            assert limiter.try_acquire(f"free {number}")
            assert not limiter.try_acquire("full", blocking=False)
        assert waiting.is_alive()
        waiting.join()


class OwnKeys(BucketFactory):
    """A user's own factory over a user's own buckets, which are called under the limiter's lock."""

    def __init__(self, make):
        self.make, self.buckets = make, {}

    def wrap_item(self, name, weight=1):
        return RateItem(name, time.monotonic_ns() // 1_000_000, weight)

    def get(self, item):
        return self.buckets.setdefault(item.name, self.make())


@pytest.mark.parametrize("wrap", [lambda bucket: bucket, BucketAsyncWrapper])
def test_a_task_that_waits_on_one_key_delays_no_other_key(wrap):
    limiter = Limiter(OwnKeys(lambda: wrap(ListBucket(FULL))))

    async def main():
        assert await limiter.try_acquire_async("full")
        waiting = asyncio.ensure_future(limiter.try_acquire_async("full", timeout=30))
        await asyncio.sleep(0.01)
        for number in range(50):
            assert await limiter.try_acquire_async(f"free {number}")
            assert not await limiter.try_acquire_async("full", blocking=False)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


def test_a_thread_that_waits_on_an_own_bucket_delays_no_other_key():
    limiter = Limiter(OwnKeys(lambda: ListBucket(FULL)))
    assert limiter.try_acquire("full")
    waiting = threading.Thread(target=limiter.try_acquire, args=("full",), kwargs={"timeout": 1})
    waiting.start()
    for number in range(200):
        assert limiter.try_acquire(f"free {number}", blocking=False)
    assert waiting.is_alive()
    waiting.join()


def test_limiters_that_waited_leave_no_object_behind():
    references = []
    for _ in range(50):
        bucket = InMemoryBucket([Rate(1, 2)])
        limiter = Limiter(bucket)
        limiter.try_acquire("a")
        limiter.try_acquire("a")
        references += [weakref.ref(bucket), weakref.ref(limiter)]
        del bucket, limiter
    gc.collect()
    until(lambda: not any(reference() for reference in references))
    assert waited_for == {}


def in_child(work):
    """Fork, do it there, and return what the child says; the child must not hang."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "this process is multi-threaded"
        child = os.fork()
    if child == 0:
        answer = "nothing"
        try:
            signal.alarm(20)
            answer = str(work())
        except BaseException as error:  # noqa: BLE001 - it is reported by the parent
            answer = repr(error)
        finally:
            os.write(write, answer.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
@pytest.mark.parametrize("make", MAKERS)
def test_a_child_forked_in_the_middle_of_traffic_limits(make):
    bucket = make([Rate(20, 100)])
    limiter = Limiter(bucket)
    stop = threading.Event()

    def traffic():
        while not stop.is_set():
            limiter.try_acquire("parent", timeout=0.1)

    async def tasks():
        await asyncio.gather(*(asyncio.to_thread(traffic) for _ in range(2)))

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for thread in threads:
        thread.start()

    def child():
        begun = time.monotonic()
        assert all(limiter.try_acquire("child", timeout=10) for _ in range(45))
        assert asyncio.run(limiter.try_acquire_async("child", timeout=10))
        return time.monotonic() - begun >= 0.1

    try:
        answers = [in_child(child) for _ in range(4)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        limiter.close()
    assert answers == ["True"] * 4


@needs_fork
def test_a_child_sweeps_what_its_parent_swept():
    bucket = InMemoryBucket([Rate(5, 50)])
    factory = SingleBucketFactory(bucket)
    factory.leak_interval = 20
    with Limiter(factory) as limiter:
        assert limiter.try_acquire("a", 5)

        def child():
            until(lambda: bucket.count() == 0)
            return "swept"

        assert in_child(child) == "swept"


@needs_fork
def test_a_child_does_not_wait_for_the_parents_waiters():
    bucket = InMemoryBucket([Rate(1, 100)])
    limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False))
    assert limiter.try_acquire("first")
    waiters = [threading.Thread(target=limiter.try_acquire, args=("a",)) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    until(lambda: waiting_at(bucket) == 3)

    def child():
        return limiter.try_acquire("child"), bucket.count()

    # The unit that was used before the fork, and its own.
    assert in_child(child) == "(True, 2)"
    for waiter in waiters:
        waiter.join()
