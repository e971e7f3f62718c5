"""Threads for calls that an event loop must not wait for."""

import asyncio
import concurrent.futures
import contextvars
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading

import pytest

from pyrate_limiter import InMemoryBucket, Limiter, Rate, SQLiteBucket
from pyrate_limiter._core import worker_threads
from pyrate_limiter._core.worker_call import OutOfTime, WorkerCall
from pyrate_limiter._core.worker_threads import MOST_THREADS, submit


@pytest.fixture
def store(monkeypatch):
    """A store of its own, whose threads end at once when they have nothing to do."""
    monkeypatch.setattr(worker_threads, "IDLE_SECONDS", 0.01)
    return object()


def test_calls_of_one_bucket_are_made_one_after_the_other_in_order(store):
    made, ended = [], threading.Event()
    for number in range(50):
        submit(store, 1, lambda number=number: made.append(number))
    submit(store, 1, ended.set)
    assert ended.wait(20)
    assert made == list(range(50))


def test_calls_of_several_buckets_share_few_threads(store):
    together, threads = threading.Barrier(MOST_THREADS), set()
    done = [threading.Event() for _ in range(3 * MOST_THREADS)]

    def call(number):
        threads.add(threading.get_ident())
        if number < MOST_THREADS:
            together.wait(20)  # so many are at it at a time
        done[number].set()

    for number in range(len(done)):
        submit(store, number, lambda number=number: call(number))
    assert all(event.wait(20) for event in done)
    assert len(threads) <= MOST_THREADS


def test_a_store_that_hangs_holds_up_no_other(store):
    go_on, other = threading.Event(), threading.Event()
    for lane in range(2 * MOST_THREADS):
        submit(store, lane, lambda: go_on.wait(20))
    submit("another store", 1, other.set)
    assert other.wait(20)
    go_on.set()


def test_threads_end_when_they_are_idle(store):
    ended = threading.Event()
    submit(store, 1, ended.set)
    assert ended.wait(20)
    for thread in threading.enumerate():
        if thread.name == "pyrate-limiter worker":
            thread.join(20)
    assert store not in worker_threads._stores


def test_where_no_thread_can_be_had_a_call_is_made_in_place(store, monkeypatch):
    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(worker_threads, "_idle", [])
    made = []
    submit(store, 1, lambda: made.append(threading.get_ident()))
    submit(store, 1, lambda: made.append(threading.get_ident()))
    assert made == [threading.get_ident()] * 2
    assert store not in worker_threads._stores


def test_context_variables_are_carried_along():
    variable, seen = contextvars.ContextVar("request", default="lost"), []

    class Traced(InMemoryBucket):
        blocks = True

        def straight(self):
            return None

        def reserve(self, *args):
            seen.append(variable.get())
            return super().reserve(*args)

    async def main():
        variable.set("request-7")
        assert await Limiter(Traced([Rate(5, 1000)])).try_acquire_async("a")

    asyncio.run(main())
    assert set(seen) == {"request-7"}


def test_the_applications_own_executor_is_not_used(tmp_path):
    bucket = SQLiteBucket.init_from_file([Rate(5, 60_000)], db_path=str(tmp_path / "limits.db"))
    go_on = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        jobs = [asyncio.ensure_future(asyncio.to_thread(go_on.wait, 60)) for _ in range(3)]
        answers = [await limiter.try_acquire_async("a") for _ in range(5)]
        waited = not any(job.done() for job in jobs)
        go_on.set()
        await asyncio.gather(*jobs)
        return answers, waited

    with Limiter(bucket) as limiter:
        assert asyncio.run(main()) == ([True] * 5, True)


def test_jobs_of_the_applications_executor_may_ask_through_the_loop(tmp_path):
    bucket = SQLiteBucket.init_from_file([Rate(4, 60_000)], db_path=str(tmp_path / "limits.db"))

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(2))

        def job():
            call = limiter.try_acquire_async("a", blocking=False)
            return asyncio.run_coroutine_threadsafe(call, loop).result(60)

        return await asyncio.gather(*(asyncio.to_thread(job) for _ in range(4)))

    with Limiter(bucket) as limiter:
        assert asyncio.run(main()) == [True] * 4


def test_a_locked_file_does_not_hold_up_another(tmp_path):
    locked, free = (str(tmp_path / name) for name in ("locked.db", "free.db"))
    buckets = [SQLiteBucket.init_from_file([Rate(99, 60_000)], db_path=p) for p in (locked, free)]

    async def main():
        stuck, other = (Limiter(bucket) for bucket in buckets)
        with sqlite3.connect(locked, isolation_level=None) as holder:
            holder.execute("BEGIN IMMEDIATE")
            calls = [asyncio.ensure_future(stuck.try_acquire_async("a")) for _ in range(60)]
            await asyncio.sleep(0.01)
            assert await other.try_acquire_async("b")
            waited = not any(call.done() for call in calls)
            holder.execute("ROLLBACK")
        assert await asyncio.gather(*calls) == [True] * 60
        holder.close()
        return waited

    assert asyncio.run(main())
    for bucket in buckets:
        bucket.close()


def worker_call(call):
    return WorkerCall(InMemoryBucket([Rate(1, 1000)]), call)


def test_an_errors_traceback_is_that_of_the_call():
    async def main():
        with pytest.raises(ZeroDivisionError):
            await worker_call(lambda: 1 / 0).in_thread()

    asyncio.run(main())


def test_a_call_that_has_not_begun_within_the_time_is_not_made():
    bucket, go_on, made = InMemoryBucket([Rate(1, 1000)]), threading.Event(), []

    async def main():
        first = asyncio.ensure_future(WorkerCall(bucket, go_on.wait, 20).in_thread())
        await asyncio.sleep(0)
        with pytest.raises(OutOfTime):
            await WorkerCall(bucket, made.append, "late").in_thread(seconds=0.01)
        go_on.set()
        await first

    asyncio.run(main())
    assert made == []


def test_a_thread_that_outlives_the_main_thread_may_use_a_limiter(tmp_path):
    program = """
        import asyncio, sys, threading
        from pyrate_limiter import Limiter, Rate, SQLiteBucket

        limiter = Limiter(SQLiteBucket.init_from_file([Rate(1, 50)], db_path=sys.argv[1]))

        async def calls():
            for _ in range(3):
                await limiter.try_acquire_async("a")
            print("done")

        def late():
            threading.main_thread().join()
            asyncio.run(calls())

        threading.Thread(target=late).start()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "limits.db")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert ended.stdout == "done\n"


@pytest.mark.parametrize("must_run", [True, False])
def test_a_call_is_made_though_its_caller_went_before_it_began_where_it_must_be(must_run):
    bucket = InMemoryBucket([Rate(1, 1000)])
    begun, let_go, made = threading.Event(), threading.Event(), threading.Event()

    def busy():
        begun.set()
        assert let_go.wait(20)

    async def cancelled_behind_another():
        other = asyncio.ensure_future(WorkerCall(bucket, busy).in_thread())
        while not begun.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        call = WorkerCall(bucket, made.set)
        call.must_run = must_run
        caller = asyncio.ensure_future(call.in_thread())
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        let_go.set()
        await other
        await WorkerCall(bucket, lambda: None).in_thread()  # behind it

    asyncio.run(cancelled_behind_another())
    assert made.is_set() is must_run
