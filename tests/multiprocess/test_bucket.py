import asyncio
import contextlib
import errno
import gc
import mmap
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing.managers import ListProxy
from pathlib import Path

import pytest

from pyrate_limiter import (
    GCRA,
    Duration,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    MonotonicClock,
    MultiprocessBucket,
    MultiprocessStateStore,
    Rate,
    RateItem,
    StateBucket,
)
from pyrate_limiter.buckets.multiprocess import file as shared_file
from pyrate_limiter.buckets.multiprocess import list_proxy, replica
from pyrate_limiter.errors import (
    BucketClosed,
    NotShared,
    PyrateError,
    ReentrantCall,
    SharedStorageBusy,
    SharedStorageLost,
    WrongType,
)
from pyrate_limiter.testing import ManualClock, sleeping_advances
from tests.support.doubles import one


def copy_of(shared):
    """A second replica, as another process would have it."""
    return pickle.loads(pickle.dumps(shared))


@pytest.fixture
def manager():
    with multiprocessing.get_context("spawn").Manager() as running:
        yield running


@pytest.fixture(params=["memory", "manager"])
def bucket(request):
    rates = [Rate(5, 1000)]
    if request.param == "memory":
        made = MultiprocessBucket.init(rates)
    else:
        items = request.getfixturevalue("manager").list()
        made = MultiprocessBucket(rates, items, multiprocessing.RLock())
    with made:
        made._clock = ManualClock(1_000_000)
        yield made


def test_replicas_see_what_others_stored(bucket):
    bucket.put(RateItem("a", 1_000_000, 3))
    assert not bucket.put(RateItem("a", 1_000_000, 3))
    assert len(bucket.items) == 3
    assert isinstance(bucket.items, ListProxy)
    assert [str(item) for item in bucket.items] == [str(RateItem("a", 1_000_000))] * 3
    assert bucket.items[0].name == "a"
    assert [item.name for item in bucket.items[1:]] == ["a", "a"]


def test_items_must_be_a_list_proxy():
    with pytest.raises(NotShared, match="ListProxy") as caught:
        MultiprocessBucket([Rate(1, 1000)], [], multiprocessing.RLock())
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PyrateError)
    with pytest.raises(ValueError, match="ListProxy"):
        MultiprocessStateStore([], multiprocessing.RLock())


def test_limiter_lock_is_the_lock_that_was_given(manager):
    lock = multiprocessing.RLock()
    bucket = MultiprocessBucket([Rate(1, 1000)], manager.list(), lock)
    assert bucket.limiter_lock() is lock
    assert bucket.mp_lock is lock
    with MultiprocessBucket.init([Rate(1, 1000)]) as bucket, bucket.limiter_lock():
        assert bucket.put(RateItem("a", bucket.now()))


def test_a_pickled_limiter_holds_the_same_lock_and_log():
    with MultiprocessBucket.init([Rate(2, 60_000)]) as bucket:
        limiter = Limiter(bucket)
        again = pickle.loads(pickle.dumps(limiter))
        assert again.bucket_factory.bucket.limiter_lock() is bucket.limiter_lock()
        verdicts = [each.try_acquire("a", blocking=False) for each in (limiter, again, limiter)]
        assert verdicts == [True, True, False]
        again.bucket_factory.close()


def test_under_asyncio_waiters_are_served_one_interval_apart():
    async def main(limiter):
        assert await limiter.try_acquire_async("a")
        return await asyncio.gather(*(limiter.try_acquire_async("a") for _ in range(4)))

    with MultiprocessBucket.init([Rate(1, 1000)]) as bucket:
        clock = bucket._clock = ManualClock(1_000_000)
        with sleeping_advances(clock):
            assert asyncio.run(main(Limiter(bucket, buffer_ms=0))) == [True] * 4
        stamps = [unit.timestamp for unit in bucket.items]
        assert all(late - early > 1000 for early, late in pairwise(stamps))
        assert len(stamps) == 5


def test_items_of_init_are_changed_by_the_bucket_alone():
    with MultiprocessBucket.init([Rate(1, 1000)]) as bucket:
        with pytest.raises(WrongType, match="append"):
            bucket.items.append(1)
        assert list(bucket.items) == []
        bucket.put(RateItem("a", bucket.now()))
        assert next(reversed(bucket.items)).name == "a"
        assert "a" in str(bucket.items)


def test_items_make_a_second_bucket_on_the_same_log():
    with MultiprocessBucket.init([Rate(2, 1000)]) as bucket:
        other = MultiprocessBucket([Rate(2, 1000)], bucket.items, bucket.limiter_lock())
        now = bucket.now()
        assert bucket.put(RateItem("a", now, 2))
        assert not other.put(RateItem("a", now))


def test_a_list_filled_by_somebody_else_counts(manager):
    items = manager.list([RateItem("old", 1_000_000), RateItem("old", 1_000_001)])
    bucket = MultiprocessBucket([Rate(3, 1000)], items, multiprocessing.RLock())
    bucket._clock = ManualClock(1_000_001)
    assert bucket.put(RateItem("new", 1_000_001))
    assert not bucket.put(RateItem("new", 1_000_001))
    items.append(RateItem("old", 1_001_500))
    bucket._clock.set(1_001_501)
    assert bucket.count() == 4
    assert bucket.put(RateItem("new", 1_001_501))


@pytest.mark.parametrize("step", [-3_600_000, 3_600_000])
def test_a_clock_that_steps_by_an_hour(step):
    with MultiprocessBucket.init([Rate(5, 1000)]) as one:
        two = copy_of(one)
        clock = one._clock = two._clock = ManualClock(10_000_000)
        assert sum(one.put(RateItem("a", clock.ms)) for _ in range(7)) == 5
        clock.set(clock.ms + step)
        admitted = sum(two.put(RateItem("a", clock.ms)) for _ in range(7))
        assert admitted <= 5
        clock.advance(1001)
        assert sum(one.put(RateItem("a", clock.ms)) for _ in range(7)) >= 5 - admitted
        clock.advance(2002)
        assert sum(two.put(RateItem("a", clock.ms)) for _ in range(7)) == 5


KINDS = ["memory", "manager", "fixed window"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_two_replicas_together_answer_as_one_bucket(  # noqa: PLR0912, PLR0915 - each branch is an operation
    kind, seed, monkeypatch, request
):
    """Snapshots, records, edits and drops: whatever comes, in whatever order."""
    monkeypatch.setattr(replica, "ROOM", 200)
    chance = random.Random(seed)
    rates = [Rate(7, 100), Rate(30, 1000)]
    policy = FixedWindow() if kind == "fixed window" else None
    if kind == "manager":
        items = request.getfixturevalue("manager").list()
        one = MultiprocessBucket(rates, items, multiprocessing.RLock(), policy)
    else:
        one = MultiprocessBucket.init(rates, policy)
    replicas, model = (
        [one, copy_of(one) if kind != "manager" else None],
        InMemoryBucket(rates, policy),
    )
    if kind == "manager":
        replicas[1] = MultiprocessBucket(rates, items, one.mp_lock, policy)
    clock = ManualClock(1_000_000)
    for each in (*replicas, model):
        each._clock = clock
    reserved = []
    for _ in range(250 if kind == "manager" else 600):
        bucket = chance.choice(replicas)
        action = chance.randrange(12)
        name = chance.choice(["a", "b", "ü" * 50])
        pair = [RateItem(name, clock.ms, weight) for weight in [chance.randint(1, 4)] * 2]
        if action < 4:
            answers = [at.put(item) for at, item in zip((bucket, model), pair)]
        elif action < 7:
            answers = [at.reserve(item, 500, 5) for at, item in zip((bucket, model), pair)]
            if answers[0].wait_ms:
                reserved.append(answers)
        elif action < 8 and reserved:
            made = reserved.pop(chance.randrange(len(reserved)))
            answers = [at.cancel(its) for at, its in zip((bucket, model), made)]
        elif action < 10 and reserved:
            made = reserved[0]
            pair = [its.item for its in made]
            clock.set(max(clock.ms, pair[0].timestamp - model._stepped + chance.choice([0, 0, 9])))
            answers = [at.confirm(its, clock.ms, 500) for at, its in zip((bucket, model), made)]
            if not answers[0].wait_ms:
                del reserved[0]
            else:
                reserved[0] = answers
        elif action == 10 and chance.random() < 0.1:
            clock.set(clock.ms - 5000)
            pair = [RateItem(name, clock.ms, item.weight) for item in pair]
            answers = [at.check(item) for at, item in zip((bucket, model), pair)]
        elif chance.random() < 0.1:
            answers = [at.leak(clock.ms) >= 0 for at in (bucket, model)]
        else:
            answers = [at.check(item) for at, item in zip((bucket, model), pair)]
        assert answers[0] == answers[1]
        assert pair[0].timestamp == pair[1].timestamp
        clock.advance(chance.randrange(30))
    live = [
        (item.name, item.timestamp) for item in model.items if item.timestamp >= clock.ms - 1000
    ]
    for bucket in replicas:
        units = [(unit.name, unit.timestamp) for unit in bucket.items]
        assert units[len(units) - len(live) :] == live
    one.close()


def test_an_error_inside_an_operation_stores_nothing():
    class Broken(FixedWindow):
        fails = False

        def leak_bound(self, rates, now):
            return super().leak_bound(rates, now)

        def retry_after(self, rate, now, blocking_timestamp):
            if Broken.fails:
                raise KeyError("policy")
            return super().retry_after(rate, now, blocking_timestamp)

    with MultiprocessBucket.init([Rate(5, 1000)], Broken()) as bucket:
        now = bucket.now()
        Broken.fails = True
        with pytest.raises(KeyError):
            bucket.reserve(RateItem("a", now, 2))  # stored, and then the verdict fails
        Broken.fails = False
        assert bucket.count() == 0
        assert bucket.put(RateItem("a", now, 5))


@pytest.mark.parametrize("place", ["lockf", "get_ident", "pull"])
@pytest.mark.parametrize("method", ["take", "put"])
def test_an_interruption_leaves_the_lock_free(method, place, monkeypatch):
    with MultiprocessBucket.init([Rate(5, 1000)]) as bucket:
        homes = {"lockf": shared_file.fcntl, "get_ident": threading, "pull": replica.LogFile}
        module = homes[place]
        original = getattr(module, place)

        def interrupted(*arguments):
            original(*arguments)
            monkeypatch.undo()
            raise KeyboardInterrupt

        arguments = ("a", 1) if method == "take" else (RateItem("a", bucket.now()),)
        monkeypatch.setattr(module, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(bucket, method)(*arguments)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(_is_free, (bucket,))
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(bucket.take, "a", 1).result(timeout=10)
        assert bucket.count() == 1


def _is_free(bucket):
    return bucket.mp_lock.acquire(False)


def test_a_name_may_be_no_plain_string():
    class Text(str):
        __slots__ = ()

    with MultiprocessBucket.init([Rate(5, 1000)]) as bucket:
        bucket.put(RateItem(Duration.SECOND, bucket.now()))
        assert copy_of(bucket).peek(0).name is Duration.SECOND


def test_a_dead_manager_gives_a_clear_error():
    manager = multiprocessing.get_context("spawn").Manager()
    bucket = MultiprocessBucket([Rate(5, 1000)], manager.list(), multiprocessing.RLock())
    store = MultiprocessStateStore(manager.list(), multiprocessing.RLock())
    assert bucket.put(RateItem("a", bucket.now()))
    manager.shutdown()
    for _ in range(2):
        with pytest.raises(SharedStorageLost, match="manager"):
            bucket.put(RateItem("a", bucket.now()))
        with pytest.raises(ConnectionError):
            store.check(StateBucket([Rate(5, 1000)]).algorithm, bucket.rates, 0, 1)


def test_a_manager_that_ends_in_the_middle_of_an_operation_gives_the_same_error():
    manager = multiprocessing.get_context("spawn").Manager()

    class Ending(MonotonicClock):
        def now(self):
            manager.shutdown()
            return super().now()

    bucket = MultiprocessBucket([Rate(5, 1000)], manager.list(), manager.RLock())
    item = RateItem("a", bucket.now())
    bucket._clock = Ending()
    with pytest.raises(SharedStorageLost, match="manager"):
        bucket.reserve(item)


def errors_of_the_connection():
    return {id(it) for it in gc.get_objects() if issubclass(type(it), (OSError, EOFError))}


def test_the_error_of_a_dead_manager_goes_with_the_last_who_knows_it():
    # What a collection finds of it, buffers of the connection among that, breaks Python 3.12.
    manager = multiprocessing.get_context("spawn").Manager()
    bucket = MultiprocessBucket([Rate(5, 1000)], manager.list(), multiprocessing.RLock())
    store = MultiprocessStateStore(manager.list(), multiprocessing.RLock())
    assert bucket.put(RateItem("a", bucket.now()))
    manager.shutdown()
    gc.collect()
    gc.disable()
    try:
        before = errors_of_the_connection()
        for _ in range(2):
            for call in (bucket.count, lambda: store.read(GCRA(), bucket.rates)):
                with contextlib.suppress(SharedStorageLost):
                    call()
        assert errors_of_the_connection() <= before
    finally:
        gc.enable()


def test_memory_that_was_closed_cannot_be_opened_any_more():
    bucket = MultiprocessBucket.init([Rate(5, 1000)])
    data = pickle.dumps(bucket)
    other = pickle.loads(data)
    bucket.close()
    bucket.close()
    with pytest.raises(BucketClosed):
        bucket.put(RateItem("a", other.now()))
    assert other.put(RateItem("a", other.now()))  # who has it open besides goes on
    assert pickle.loads(data).count() == bucket.count() == 1
    del bucket, other
    gc.collect()
    with pytest.raises(SharedStorageLost):
        pickle.loads(data)


def test_memory_that_nobody_refers_to_is_removed():
    bucket = MultiprocessBucket.init([Rate(5, 1000)])
    path = bucket.items.file.path
    assert Path(path).exists()
    del bucket
    gc.collect()
    assert not Path(path).exists()
    assert not Path(path + ".lock").exists()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_program_leaves_nothing_behind_and_says_nothing(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"""
import gc
import multiprocessing
import pickle
from pathlib import Path
from pyrate_limiter import *

def work(bucket, state):
    assert bucket.put(RateItem("a", bucket.now()))
    assert state.put(RateItem("a", state.now()))

if __name__ == "__main__":
    bucket = MultiprocessBucket.init([Rate(5, 60_000)])
    state = StateBucket([Rate(5, 60_000)], store=MultiprocessStateStore.init())
    child = multiprocessing.get_context("{method}").Process(target=work, args=(bucket, state))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert bucket.count() == state.count() == 1
    dropped = MultiprocessBucket.init([Rate(5, 60_000)])
    path, _ = dropped.items.file.path, pickle.dumps(dropped)
    del dropped
    gc.collect()
    assert Path(path).exists()  # who has been handed it may open it yet
    print(path, bucket.items.file.path, state.store._values.file.path)
""")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for path in done.stdout.split():
        assert not Path(path).exists()
        assert not Path(path + ".lock").exists()


def test_without_record_locks_a_manager_serves(monkeypatch):
    monkeypatch.delattr(shared_file, "fcntl")
    bucket = MultiprocessBucket.init([Rate(5, 1000)])
    state = StateBucket([Rate(5, 1000)], store=MultiprocessStateStore.init())
    try:
        for limited in (bucket, state):
            assert [Limiter(limited).try_acquire("a", 3, blocking=False) for _ in "12"] == [
                True,
                False,
            ]
    finally:
        for limited in (bucket, state):
            limited.close()
            limited.close()
    for items in (bucket.items, state.store._values):
        assert not list_proxy._helpers[items]._process.is_alive()


@pytest.mark.parametrize(
    "make", [lambda: MultiprocessBucket.init(one()), MultiprocessStateStore.init]
)
@pytest.mark.parametrize("failing", ["_allocate", "open_file"])
def test_an_init_that_fails_leaves_no_file_and_no_descriptor(make, failing, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shared_file, "_FOLDER", str(tmp_path))
    monkeypatch.setattr(shared_file, failing, full)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="No space left"):
        make()
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/proc/self/fd").iterdir()) <= before
    assert not [path for path in shared_file._made if path.startswith(str(tmp_path))]


@pytest.fixture
def suspended(request):
    """A process that is stopped while it holds the lock of a bucket; it goes on afterwards."""
    children = []

    def suspend(lock):
        ready = multiprocessing.get_context("fork").Event()
        child = multiprocessing.get_context("fork").Process(target=_hold, args=(lock, ready))
        child.start()
        children.append(child)
        assert ready.wait(30)
        os.kill(child.pid, signal.SIGSTOP)

    yield suspend
    for child in children:
        os.kill(child.pid, signal.SIGCONT)
        child.kill()
        child.join()


def _hold(lock, ready):
    lock.acquire()
    ready.set()
    time.sleep(600)


def shared_buckets():
    state = MultiprocessStateStore.init()
    yield MultiprocessBucket.init([Rate(5, 1000)]), lambda bucket: bucket.mp_lock
    yield StateBucket([Rate(5, 1000)], store=state), lambda bucket: bucket.store.lock
    lock = multiprocessing.RLock()
    items = MultiprocessBucket.init([Rate(5, 1000)]).items
    yield MultiprocessBucket([Rate(5, 1000)], items, lock), lambda bucket: bucket.mp_lock


@pytest.mark.parametrize("kind", range(3))
def test_a_process_that_is_suspended_with_the_lock_costs_others_no_more_time_than_they_said(
    kind, suspended
):
    bucket, lock_of = list(shared_buckets())[kind]
    held = RateItem("a", bucket.now())
    reserved = bucket.reserve(held, 1000)
    assert reserved.allowed
    suspended(lock_of(bucket))
    begun = time.monotonic()
    item = RateItem("a", bucket.now())
    refusal = bucket.reserve(item, 100)
    assert (refusal.allowed, refusal.failing_rate, refusal.wait_ms) == (False, bucket.rates[0], 0)
    assert bucket.reserve(item, 0, None, 100).allowed is False
    assert bucket.confirm(reserved, bucket.now(), 100).allowed is False
    assert bucket.confirm(reserved, bucket.now(), 0).allowed is False
    assert bucket.cancel(reserved) is False
    assert time.monotonic() - begun < 20  # it would be for ever
    for call in (bucket.reserve, bucket.put):
        with pytest.raises(SharedStorageBusy, match="suspended") as caught:
            call(item)
        assert isinstance(caught.value, TimeoutError)
    assert Limiter(bucket).try_acquire("a", timeout=0.1) is False


def test_how_long_a_call_may_wait_for_the_lock_says_nothing_of_the_next_one(suspended):
    bucket, lock_of = next(shared_buckets())
    suspended(lock_of(bucket))
    wrong = RateItem("a", bucket.now())
    wrong.weight = "one"
    with pytest.raises(PyrateError):
        bucket.reserve(wrong, 1 << 60)  # for ever
    with pytest.raises(SharedStorageBusy):
        bucket.put(RateItem("a", bucket.now()))


@pytest.mark.parametrize("kind", range(3))
def test_an_operation_that_a_signal_handler_calls_in_the_middle_of_another_is_refused_at_once(kind):
    bucket, _ = list(shared_buckets())[kind]
    session = bucket.store._lock if kind == 1 else bucket._lock
    assert bucket.put(RateItem("a", bucket.now()))

    def handler():
        bucket.put(RateItem("a", bucket.now()))

    with session, pytest.raises(ReentrantCall, match="signal handler"):
        handler()
    assert bucket.put(RateItem("a", bucket.now(), 4))
    assert not bucket.put(RateItem("a", bucket.now()))


@pytest.mark.parametrize("kind", range(3))
def test_what_an_interrupted_operation_has_left_is_cleared_away_by_the_next(kind):
    bucket, _ = list(shared_buckets())[kind]
    session = bucket.store._lock if kind == 1 else bucket._lock

    def interrupted():
        session.__enter__()
        raise KeyboardInterrupt  # before anything can leave

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert bucket.put(RateItem("a", bucket.now()))
    if kind < 2:  # another thread cannot release a lock of multiprocessing
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(bucket.put, RateItem("a", bucket.now())).result(timeout=30)


def test_state_stores_share_one_state(manager):
    shared = MultiprocessStateStore.init()
    listed = MultiprocessStateStore(manager.list(), multiprocessing.RLock())
    clock = ManualClock(1_000_000)
    for store, other in [
        (shared, copy_of(shared)),
        (listed, MultiprocessStateStore(listed._values, listed.lock)),
    ]:
        one, two = (
            StateBucket([Rate(5, 1000)], store=each, clock=clock) for each in (store, other)
        )
        assert one.put(RateItem("a", clock.ms, 3))
        assert not two.put(RateItem("a", clock.ms, 3))
        reservation = two.reserve(RateItem("a", clock.ms, 3), 10_000)
        assert reservation.wait_ms > 0
        assert not one.put(RateItem("a", clock.ms, 1))
        assert one.cancel(reservation)
        assert one.put(RateItem("a", clock.ms, 2))
        assert one.count() == two.count() == 5
        two.flush()
        assert one.count() == 0


def test_values_read_as_the_numbers_of_the_state():
    store = MultiprocessStateStore.init()
    bucket = StateBucket([Rate(5, 1000), Rate(50, 20_000)], store=store)
    assert list(store._values) == []
    bucket.put(RateItem("a", 1_000_000))
    assert list(store._values) == [1_000_200_000, 1_000_400_000]


def test_the_file_stays_bounded():
    with MultiprocessBucket.init([Rate(10, 100)]) as bucket:
        for moment in range(30_000):
            bucket.put(RateItem(f"name {moment}", moment * 20))
        assert Path(bucket.items.file.path).stat().st_size < 2_000_000
        assert len(pickle.loads(pickle.dumps(bucket)).items) < 5_000


def test_the_file_of_a_state_stays_bounded():
    store = MultiprocessStateStore.init()
    bucket = StateBucket([Rate(10**9, 1000)], store=store)
    for moment in range(3_000):
        assert bucket.put(RateItem("a", moment))
    assert Path(store._values.file.path).stat().st_size <= 2 * mmap.PAGESIZE


def test_lock_must_be_held_to_be_released():
    lock = shared_file.SharedFile.create().lock
    with pytest.raises(RuntimeError):
        lock.release()
    assert lock.acquire(timeout=0.01)
    assert lock.acquire(False)
    lock.release()
    lock.release()
    assert pickle.loads(pickle.dumps(lock)) is lock
