"""What 2.10.0 does wrong, and `compat.v2` does not."""

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import sqlite3
import threading
import time
from pathlib import Path

import filelock
import pytest

from pyrate_limiter import Rate
from pyrate_limiter.compat.v2 import (
    FILE_LOCK,
    AbstractBucket,
    BucketFullException,
    FileLockSQLiteBucket,
    InvalidParams,
    Limiter,
    MemoryListBucket,
    MemoryQueueBucket,
    RequestRate,
    SQLiteBucket,
)
from pyrate_limiter.errors import WrongType

# Later versions of Python warn of any fork while there are threads; here it is what is tested.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.usefixtures("temporary_folder"),
]

FILES = [SQLiteBucket, FileLockSQLiteBucket]


class Clock:
    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_refusal_can_be_copied_and_pickled(copied):
    error = copied(BucketFullException(("a", 1), RequestRate(3, 5), 2.5))
    assert str(error) == "Bucket for ('a', 1) with Rate 3/5 is already full"
    assert error.meta_info["remaining_time"] == 2.5
    assert error.meta_info["identity"] == ("a", 1)


@pytest.mark.parametrize("kind", [MemoryQueueBucket, MemoryListBucket])
def test_an_identity_that_is_named_twice_needs_room_for_two(kind):
    limiter = Limiter(RequestRate(3, 5), bucket_class=kind, time_function=Clock())
    limiter.try_acquire("a", "a")
    with pytest.raises(BucketFullException) as caught:
        limiter.try_acquire("a", "b", "a")
    assert caught.value.meta_info["remaining_time"] == 5.0
    assert limiter.get_current_volume("a") == 2
    assert limiter.get_current_volume("b") == 0
    limiter.try_acquire("b", "a")
    assert limiter.get_current_volume("a") == 3


def test_an_identity_that_is_named_more_often_than_a_rate_admits_is_a_mistake():
    limiter = Limiter(RequestRate(1, 5), time_function=Clock())
    with pytest.raises(InvalidParams, match="a is named 2 times, which 1/5 never admits"):
        limiter.try_acquire("a", "a")


def test_a_full_queue_and_an_empty_one_do_not_block():
    bucket = MemoryQueueBucket(maxsize=1)
    assert [bucket.put(1), bucket.put(2), bucket.get(5), bucket.get(1)] == [1, 0, 1, 0]


def test_a_unit_leaves_its_window_to_the_millisecond_whatever_the_floats():
    clock = Clock(0.1)
    limiter = Limiter(RequestRate(1, 0.2), time_function=clock)
    limiter.try_acquire("a")
    clock.seconds = 0.3  # 0.3 - 0.2 < 0.1
    limiter.try_acquire("a")


@pytest.mark.parametrize("wrong", [{"limit": "3"}, {"limit": None}, {"interval": None}])
def test_a_rate_that_cannot_be_compared_is_refused(wrong):
    with pytest.raises(WrongType, match="a number"):
        RequestRate(**{"limit": 3, "interval": 5, **wrong})


@pytest.mark.parametrize("wrong", [5, [RequestRate(1, 5)], Rate(1, 5)])
def test_what_is_no_rate_is_refused(wrong):
    with pytest.raises(WrongType, match="a RequestRate"):
        Limiter(wrong)


def test_a_class_of_this_release_is_refused_as_a_bucket():
    from pyrate_limiter import InMemoryBucket

    with pytest.raises(WrongType, match="derive it from one of"):
        Limiter(RequestRate(1, 5), bucket_class=InMemoryBucket)


def test_a_limiter_is_not_pickled_without_saying_so():
    with pytest.raises(TypeError, match="make it anew in each process"):
        pickle.dumps(Limiter(RequestRate(1, 5)))


def test_a_guard_without_an_identity_warns_and_stays_harmless():
    limiter = Limiter(RequestRate(1, 5))
    with pytest.warns(UserWarning, match="without an identity limits nothing"):
        guard = limiter.ratelimit(delay=True)
    assert [guard(lambda: 1)() for _ in range(3)] == [1, 1, 1]


def test_max_delay_is_for_all_waits_of_a_call_together(monkeypatch):
    clock = Clock()
    limiter = Limiter(RequestRate(1, 5), time_function=clock)

    def sleep_while_another_takes_the_room(seconds):
        clock.seconds += seconds
        limiter.try_acquire("a")

    monkeypatch.setattr(
        "pyrate_limiter.limit_context_decorator.sleep", sleep_while_another_takes_the_room
    )
    limiter.try_acquire("a")
    with pytest.raises(BucketFullException), limiter.ratelimit("a", delay=True, max_delay=12):
        pass
    assert clock.seconds == 10.0


@pytest.mark.parametrize("kind", FILES)
def test_a_limit_holds_after_a_flush(kind, tmp_path):
    kwargs = {"path": tmp_path / "calls.db"}
    limiter = Limiter(RequestRate(2, 60), bucket_class=kind, bucket_kwargs=kwargs)
    for _ in range(2):
        limiter.try_acquire("a")
        limiter.try_acquire("a")
        with pytest.raises(BucketFullException):
            limiter.try_acquire("a")
        limiter.flush_all()


@pytest.mark.parametrize("kind", FILES)
def test_two_limiters_on_one_file_share_the_limit(kind, tmp_path):
    kwargs = {"path": tmp_path / "calls.db"}
    limiters = [
        Limiter(RequestRate(3, 60), bucket_class=kind, bucket_kwargs=kwargs) for _ in range(2)
    ]
    assert admitted(limiters * 5) == 3


def test_two_limiters_in_memory_do_not():
    kwargs = {"path": ":memory:"}
    limiters = [
        Limiter(RequestRate(3, 60), bucket_class=SQLiteBucket, bucket_kwargs=kwargs)
        for _ in range(2)
    ]
    assert admitted(limiters * 5) == 6


def test_several_identities_on_one_file_are_admitted_together(tmp_path):
    kwargs = {"path": tmp_path / "calls.db"}
    limiter = Limiter(RequestRate(2, 60), bucket_class=SQLiteBucket, bucket_kwargs=kwargs)
    limiter.try_acquire("a", "b")
    limiter.try_acquire("b")
    with pytest.raises(BucketFullException):
        limiter.try_acquire("a", "b")
    assert limiter.get_current_volume("a") == 1


def admitted(limiters, identity="a"):
    count = 0
    for limiter in limiters:
        try:
            limiter.try_acquire(identity)
        except BucketFullException:
            continue
        count += 1
    return count


def in_process(kind, path, results):
    rate = RequestRate(10, 3600)
    limiter = Limiter(
        rate, bucket_class=kind, bucket_kwargs={"path": path}, time_function=time.time
    )
    results.put(admitted([limiter] * 10))


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_on_one_file_admit_no_more_than_the_limit(kind, method, tmp_path):
    if kind is FileLockSQLiteBucket:
        in_process(kind, tmp_path / "other.db", multiprocessing.SimpleQueue())  # held once before
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    arguments = (kind, tmp_path / "calls.db", results)
    processes = [context.Process(target=in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    counts = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert sum(counts) == 10


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files here")
def test_a_limiter_that_is_gone_leaves_no_file_open(tmp_path):
    kwargs = {"path": tmp_path / "calls.db"}

    def is_open():
        found = []
        for one in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # another thread may have closed it
                found.append(one.samefile(kwargs["path"]))
        return any(found)

    limiter = Limiter(RequestRate(2, 5), bucket_class=SQLiteBucket, bucket_kwargs=kwargs)
    limiter.try_acquire("a")
    assert is_open()
    del limiter
    gc.collect()
    assert not is_open()


def test_a_forked_child_opens_the_file_anew(tmp_path):
    limiter = Limiter(
        RequestRate(2, 3600), bucket_class=SQLiteBucket, bucket_kwargs={"path": tmp_path / "c.db"}
    )
    limiter.try_acquire("a")
    child = os.fork()
    if child == 0:
        os._exit(admitted([limiter] * 3))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert admitted([limiter] * 3) == 0


def test_the_lock_file_is_reentrant_and_excludes_others():
    with FILE_LOCK as entered, FILE_LOCK:
        assert entered is FILE_LOCK
        assert FILE_LOCK.is_locked
        with pytest.raises(TimeoutError), filelock.FileLock(FILE_LOCK.lock_file, timeout=0):
            pass
    assert not FILE_LOCK.is_locked
    FILE_LOCK.close()
    with filelock.FileLock(FILE_LOCK.lock_file):
        assert not FILE_LOCK.acquire(timeout=0.01)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_cannot_be_opened_leaves_no_lock_behind(kind, tmp_path):
    bucket = kind(maxsize=2, identity="a", path=tmp_path / "missing" / "calls.db")
    with pytest.raises(sqlite3.OperationalError):
        bucket.lock_acquire()
    (tmp_path / "missing").mkdir()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(bucket.put(1.5)))
    thread.start()
    thread.join()
    assert taken == [1]
    assert bucket._size == 1


def test_a_users_bucket_need_not_have_a_lock():
    class Times(AbstractBucket):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.times = []

        def size(self):
            return len(self.times)

        def put(self, item):
            self.times.append(item)
            return 1

        def get(self, number):
            del self.times[:number]
            return number

        def all_items(self):
            return self.times

        def flush(self):
            self.times.clear()

    assert admitted([Limiter(RequestRate(3, 60), bucket_class=Times)] * 5) == 3


def test_an_identity_of_any_kind_names_a_table(tmp_path):
    bucket = SQLiteBucket(identity=5, path=tmp_path / "calls.db", maxsize=1)
    assert bucket.table == SQLiteBucket(identity="5", path=tmp_path / "calls.db").table
    assert bucket.put(1.5) == 1
