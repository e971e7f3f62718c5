"""Processes that share a bucket, with real time, real signals and real deaths."""

import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyrate_limiter import (
    Limiter,
    MonotonicClock,
    MultiprocessBucket,
    MultiprocessStateStore,
    Rate,
    RateItem,
    SingleBucketFactory,
    StateBucket,
)
from pyrate_limiter.buckets.multiprocess import file as shared_file
from pyrate_limiter.buckets.multiprocess.file import SharedFile
from pyrate_limiter.errors import SharedStorageBusy

pytestmark = [
    pytest.mark.alone,
    # Later versions of Python warn of any fork while there are threads; here it is what is tested.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

FORK = multiprocessing.get_context("fork")
PATIENCE = 30  # seconds for a busy machine; nothing waits so long where all is well


def limiter_on(bucket):
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False), buffer_ms=0)


def over_limit(stamps, limit, interval):
    """The most units in any window, beyond the limit."""
    stamps = sorted(stamps)
    return max([0] + [1 for early, late in zip(stamps, stamps[limit:]) if late - early <= interval])


@contextlib.contextmanager
def running(context, count, target, *args):
    children = [context.Process(target=target, args=(*args, n), daemon=True) for n in range(count)]
    for child in children:
        child.start()
    try:
        yield children
    finally:
        for child in children:
            if child.is_alive():
                os.kill(child.pid, signal.SIGCONT)
                child.kill()
            child.join()


# Children ---------------------------------------------------------------------------------------


def hammer(bucket, number):
    limiter = limiter_on(bucket)
    while True:
        limiter.try_acquire(str(number), blocking=False)


def wait_again_and_again(bucket, number):
    limiter = limiter_on(bucket)
    while True:
        limiter.try_acquire(str(number))


def ask(limiter):
    while True:
        with contextlib.suppress(SharedStorageBusy):  # the others go first on a busy machine
            return limiter.try_acquire("share", blocking=False)


def take_share(bucket, answers, share, _):
    limiter = limiter_on(bucket)
    answers.put(sum(ask(limiter) for _ in range(share)))


def take_until_refused(bucket, answers, _):
    limiter = limiter_on(bucket)
    while limiter.try_acquire("share", blocking=False):
        pass
    answers.put(bucket.count())


def hold_lock(bucket, held, _):
    bucket.limiter_lock().acquire()
    held.set()
    time.sleep(PATIENCE)


def die_after(call):
    def dying(*arguments):
        call(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


def die_at(bucket, place, _):
    packed = shared_file._PACKED
    if place == "growing":
        shared_file._allocate = die_after(shared_file._allocate)
    elif place == "data":
        SharedFile.write = die_after(SharedFile.write)
    elif place == "half a commit":
        shared_file._PACKED = SimpleNamespace(
            pack_into=die_after(packed.pack_into), unpack_from=packed.unpack_from
        )
    else:
        SharedFile.commit = die_after(SharedFile.commit)
    size = Path(bucket.items.file.path).stat().st_size
    bucket.put(RateItem("d" * size, bucket.now()))  # the file has to grow for that


def fill(bucket, admitted, _):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    number = 0
    with contextlib.suppress(OSError):
        while bucket.put(RateItem(f"{number}" * 100, bucket.now())):
            number += 1
    admitted.put((number, bucket.count()))


def wait_in_line(bucket, order, number):
    assert limiter_on(bucket).try_acquire("line")
    order.put((number, time.monotonic()))


def make_and_hold(paths, _):
    bucket = MultiprocessBucket.init([Rate(5, 1000)])
    paths.put(bucket.items.file.path)
    time.sleep(PATIENCE)


# Tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [hammer, wait_again_and_again])
def test_processes_that_are_killed_and_suspended_never_exceed_the_limit(work):
    limit, interval, seconds = 20, 100, 4.0
    bucket = MultiprocessBucket.init([Rate(limit, interval)])
    chance = random.Random()
    begun = bucket.now()
    with running(FORK, 8, work, bucket) as children:
        for victim in children[:4]:
            time.sleep(seconds / 10 * chance.random() + 0.2)
            victim.kill()
            victim.join()
        sleeper = children[4]
        os.kill(sleeper.pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(sleeper.pid, signal.SIGCONT)
        time.sleep(max(0.0, seconds - (bucket.now() - begun) / 1000))
        ended = bucket.now()
        with bucket.limiter_lock():
            assert bucket.count()  # from now on it knows what the others have stored
            stored = Counter(unit.timestamp for unit in bucket.items)
            # What is reserved and not confirmed, by one who died too, nobody has used.
            stamps = sorted((stored - Counter(bucket._pending)).elements())
    assert over_limit(stamps, limit, interval) == 0
    # Survivors went on within two seconds, whoever was stopped or killed.
    moments = [begun, *stamps, ended]
    assert max(late - early for early, late in pairwise(moments)) < 2000
    assert len(stamps) >= limit * (ended - begun - 2000) / (interval + 1) * 0.5


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nobody_is_refused_while_there_is_room(method):
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    with (
        MultiprocessBucket.init([Rate(1000, 3_600_000)]) as bucket,
        running(context, 8, take_share, bucket, answers, 125),
    ):
        assert [answers.get(timeout=PATIENCE) for _ in range(8)] == [125] * 8
        assert not bucket.put(RateItem("one more", bucket.now()))
        assert len(bucket.items) == 1000


def test_nobody_is_refused_with_room_to_spare_while_others_are_killed():
    limit = 100_000
    answers = FORK.Queue()
    with (
        MultiprocessBucket.init([Rate(limit, 3_600_000)]) as bucket,
        running(FORK, 8, take_until_refused, bucket, answers) as children,
    ):
        for number, victim in enumerate(children[:4], 1):
            while bucket.count() < number * limit // 10:
                time.sleep(0.001)
            victim.kill()
        # The first refusal of each survivor was right: the log was full.
        assert [answers.get(timeout=PATIENCE) for _ in range(4)] == [limit] * 4


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_state_is_shared_exactly(method):
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    bucket = StateBucket([Rate(800, 36_000_000)], store=MultiprocessStateStore.init())
    with running(context, 4, take_share, bucket, answers, 200):
        assert [answers.get(timeout=PATIENCE) for _ in range(4)] == [200] * 4
    assert not bucket.put(RateItem("one more", bucket.now()))


def test_a_managers_list_is_shared_exactly():
    answers = FORK.Queue()
    with multiprocessing.get_context("spawn").Manager() as manager:
        bucket = MultiprocessBucket([Rate(200, 3_600_000)], manager.list(), FORK.RLock())
        with running(FORK, 4, take_share, bucket, answers, 50):
            assert [answers.get(timeout=PATIENCE) for _ in range(4)] == [50] * 4
        assert bucket.count() == 200
        assert not bucket.put(RateItem("one more", bucket.now()))


def test_a_child_killed_with_the_lock_in_hand_blocks_nobody():
    bucket = MultiprocessBucket.init([Rate(5, 1000)])
    held = FORK.Event()
    with running(FORK, 1, hold_lock, bucket, held) as (child,):
        assert held.wait(PATIENCE)
        threading.Timer(0.2, child.kill).start()
        begun = time.monotonic()
        assert limiter_on(bucket).try_acquire("survivor", blocking=False)
        assert 0.1 < time.monotonic() - begun < PATIENCE / 2


@pytest.mark.parametrize("place", ["growing", "data", "half a commit"])
def test_what_a_child_left_half_done_is_not_seen(place):
    bucket = MultiprocessBucket.init([Rate(5, 60_000)])
    for expected in range(1, 6):
        with running(FORK, 1, die_at, bucket, place) as (child,):
            child.join(PATIENCE)
            assert child.exitcode == -signal.SIGKILL
        assert bucket.put(RateItem("survivor", bucket.now()))
        assert bucket.count() == expected
    assert not bucket.put(RateItem("survivor", bucket.now()))


def test_what_a_child_has_done_before_it_was_killed_counts():
    bucket = MultiprocessBucket.init([Rate(1, 60_000)])
    with running(FORK, 1, die_at, bucket, "commit") as (child,):
        child.join(PATIENCE)
        assert child.exitcode == -signal.SIGKILL
    assert not bucket.put(RateItem("survivor", bucket.now()))


def test_a_process_whose_memory_is_full_stores_nothing_and_others_go_on():
    bucket = MultiprocessBucket.init([Rate(10**6, 3_600_000)])
    answers = FORK.Queue()
    with running(FORK, 1, fill, bucket, answers):
        number, counted = answers.get(timeout=PATIENCE)
    assert 0 < number == counted == bucket.count()
    for _ in range(number):
        assert bucket.put(RateItem("b" * 100, bucket.now()))
    assert bucket.count() == 2 * number


def test_what_a_killed_process_leaves_is_removed_and_what_is_used_stays(monkeypatch):
    monkeypatch.setattr(shared_file, "_NEW_SECONDS", -1)
    paths = FORK.Queue()
    with running(FORK, 2, make_and_hold, paths) as (victim, _):
        first, second = paths.get(timeout=PATIENCE), paths.get(timeout=PATIENCE)
        MultiprocessBucket.init([Rate(5, 1000)]).close()
        assert Path(first).exists()
        assert Path(second).exists()
        victim.kill()
        victim.join(PATIENCE)
        MultiprocessBucket.init([Rate(5, 1000)]).close()
        left = [path for path in (first, second) if Path(path).exists()]
        assert len(left) == 1
        assert not Path(({first, second} - set(left)).pop() + ".lock").exists()
        assert Path(left[0] + ".lock").exists()
    MultiprocessBucket.init([Rate(5, 1000)]).close()
    assert not Path(left[0]).exists()


def test_an_event_loop_does_not_wait_for_a_suspended_holder():
    bucket = MultiprocessBucket.init([Rate(50, 1000)])
    held = FORK.Event()

    async def main(child):
        ticks = [time.monotonic()]
        task = asyncio.ensure_future(limiter_on(bucket).try_acquire_async("a"))
        for _ in range(10):
            await asyncio.sleep(0.02)
            ticks.append(time.monotonic())
        assert not task.done()
        child.kill()
        assert await asyncio.wait_for(task, PATIENCE)
        assert max(late - early for early, late in pairwise(ticks)) < 5

    with running(FORK, 1, hold_lock, bucket, held) as (child,):
        assert held.wait(PATIENCE)
        os.kill(child.pid, signal.SIGSTOP)
        asyncio.run(main(child))


def test_a_lock_waits_no_longer_than_it_is_told():
    bucket = MultiprocessBucket.init([Rate(5, 1000)])
    held = FORK.Event()
    with running(FORK, 1, hold_lock, bucket, held):
        assert held.wait(PATIENCE)
        lock = bucket.limiter_lock()
        assert lock.acquire(False) is False
        begun = time.monotonic()
        assert lock.acquire(timeout=0.1) is False
        assert time.monotonic() - begun >= 0.1


def test_processes_are_served_in_the_order_in_which_they_came():
    bucket = MultiprocessBucket.init([Rate(1, 1000)])  # on a busy machine they are slow to wake
    order = FORK.Queue()
    bucket.put(RateItem("first", bucket.now()))
    with contextlib.ExitStack() as stack:
        for number in range(4):
            stored = len(bucket.items)
            child = FORK.Process(target=wait_in_line, args=(bucket, order, number), daemon=True)
            child.start()
            stack.callback(child.join, PATIENCE)
            deadline = time.monotonic() + PATIENCE
            while len(bucket.items) == stored and time.monotonic() < deadline:
                time.sleep(0.001)
        served = sorted((order.get(timeout=PATIENCE) for _ in range(4)), key=lambda one: one[1])
    assert [number for number, _ in served] == list(range(4))


def test_forking_while_another_thread_is_at_it():
    bucket = MultiprocessBucket.init([Rate(10**6, 3_600_000)])
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            bucket.put(RateItem("busy", bucket.now()))

    thread = threading.Thread(target=keep_busy)
    thread.start()
    answers = FORK.Queue()
    try:
        for _ in range(10):
            with running(FORK, 1, take_share, bucket, answers, 20) as (child,):
                assert answers.get(timeout=PATIENCE) == 20
                child.join(PATIENCE)  # killed, it could take the queue's lock with it
    finally:
        stop.set()
        thread.join()
    assert sum(unit.name == "share" for unit in bucket.items) == 200


def test_a_process_forked_while_a_thread_of_it_waits_for_the_lock_has_its_turn_as_well():
    bucket = MultiprocessBucket.init([Rate(5, 60_000)])
    lock, held, answers = bucket.limiter_lock(), FORK.Event(), FORK.Queue()
    with running(FORK, 1, hold_lock, bucket, held) as (holder,), ThreadPoolExecutor(1) as threads:
        assert held.wait(PATIENCE)
        waiting = threads.submit(limiter_on(bucket).try_acquire, "thread")
        while not lock.is_locked:
            time.sleep(0.001)
        with running(FORK, 1, take_share, bucket, answers, 2):
            holder.kill()
            assert answers.get(timeout=PATIENCE) == 2
        assert waiting.result(timeout=PATIENCE)
    assert sorted(unit.name for unit in bucket.items) == ["share", "share", "thread"]


class ForkingClock(MonotonicClock):
    """Forks when it is read for the first time."""

    child = None

    def now(self):
        if self.child is None:
            self.child = os.fork()
        return super().now()


@pytest.mark.parametrize("kind", ["log", "state"])
def test_an_operation_in_whose_middle_a_process_forks_is_the_parents_alone(kind):
    if kind == "log":
        bucket = MultiprocessBucket.init([Rate(5, 60_000)])
    else:
        bucket = StateBucket([Rate(5, 60_000)], store=MultiprocessStateStore.init())
    limiter = limiter_on(bucket)
    clock = bucket._clock = ForkingClock()
    error = None
    try:
        admitted = limiter.try_acquire("parent", blocking=False)
    except BaseException as caught:  # noqa: BLE001 - the child must not go on with the tests
        error = caught
    if clock.child == 0:
        refused = isinstance(error, SharedStorageBusy)
        os._exit(0 if refused and limiter.try_acquire("child", blocking=False) else 1)
    assert (admitted, error) == (True, None)
    assert os.waitpid(clock.child, 0)[1] == 0
    assert bucket.count() == 2


def test_the_process_pool_example():
    example = Path(__file__).parents[2] / "examples" / "process_pool.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "40 calls" in done.stdout
