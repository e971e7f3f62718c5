"""FairLock in one process: threads and tasks alike, in order of arrival."""

import asyncio
import threading

from pyrate_limiter.buckets.postgres.fair_lock import Acquire, FairLock


def waiting(lock):
    return len(lock._waiting)


def until(question):
    while not question():
        threading.Event().wait(0.001)


def test_threads_enter_in_the_order_in_which_they_came():
    lock, entered = FairLock(), []
    assert Acquire(lock, None).block()

    def work(number):
        assert Acquire(lock, 20).block()
        entered.append(number)
        lock.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda number=number: waiting(lock) == number + 1)
    lock.release()
    for thread in threads:
        thread.join()
    assert entered == [0, 1, 2, 3, 4]
    assert Acquire(lock, 0).block()


def test_one_whose_time_is_over_stands_in_nobodys_way():
    lock = FairLock()
    assert Acquire(lock, 0).block()
    assert not Acquire(lock, 0.01).block()
    assert not asyncio.run(Acquire(lock, 0.01).wait())
    assert not waiting(lock)
    lock.release()
    assert Acquire(lock, 0).block()


def test_tasks_and_threads_stand_in_one_queue():
    lock, entered = FairLock(), []
    assert Acquire(lock, None).block()

    async def task(name):
        assert await Acquire(lock, 20).wait()
        entered.append(name)
        lock.release()

    def thread():
        assert Acquire(lock, None).block()
        entered.append("thread")
        lock.release()

    async def scenario():
        first = asyncio.ensure_future(task("first"))
        await asyncio.sleep(0)
        second = threading.Thread(target=thread)
        second.start()
        until(lambda: waiting(lock) == 2)
        third = asyncio.ensure_future(task("third"))
        await asyncio.sleep(0)
        lock.release()
        await asyncio.gather(first, third)
        second.join()

    asyncio.run(scenario())
    assert entered == ["first", "thread", "third"]


def test_a_cancelled_task_passes_its_turn_on():
    lock = FairLock()

    async def scenario():
        assert await Acquire(lock, None).wait()
        before = asyncio.ensure_future(Acquire(lock, None).wait())
        after = asyncio.ensure_future(Acquire(lock, None).wait())
        await asyncio.sleep(0)
        lock.release()
        before.cancel()  # in the turn in which it would have entered
        assert await after

    asyncio.run(scenario())
    lock.release()
    assert Acquire(lock, 0).block()
