"""Turns in one process: threads and tasks alike, in order of arrival."""

import asyncio
import threading

from pyrate_limiter.buckets.postgres.fair_lock import Enter, Turns


def waiting(turns):
    return len(turns._waiting)


def until(question):
    while not question():
        threading.Event().wait(0.001)


def test_threads_enter_in_the_order_in_which_they_came():
    turns, entered = Turns(), []
    assert Enter(turns, None).block()

    def work(number):
        assert Enter(turns, 20).block()
        entered.append(number)
        turns.leave()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda number=number: waiting(turns) == number + 1)
    turns.leave()
    for thread in threads:
        thread.join()
    assert entered == [0, 1, 2, 3, 4]
    assert Enter(turns, 0).block()


def test_one_whose_time_is_over_stands_in_nobodys_way():
    turns = Turns()
    assert Enter(turns, 0).block()
    assert not Enter(turns, 0.01).block()
    assert not asyncio.run(Enter(turns, 0.01).wait())
    assert not waiting(turns)
    turns.leave()
    assert Enter(turns, 0).block()


def test_tasks_and_threads_stand_in_one_queue():
    turns, entered = Turns(), []
    assert Enter(turns, None).block()

    async def task(name):
        assert await Enter(turns, 20).wait()
        entered.append(name)
        turns.leave()

    def thread():
        assert Enter(turns, None).block()
        entered.append("thread")
        turns.leave()

    async def scenario():
        first = asyncio.ensure_future(task("first"))
        await asyncio.sleep(0)
        second = threading.Thread(target=thread)
        second.start()
        until(lambda: waiting(turns) == 2)
        third = asyncio.ensure_future(task("third"))
        await asyncio.sleep(0)
        turns.leave()
        await asyncio.gather(first, third)
        second.join()

    asyncio.run(scenario())
    assert entered == ["first", "thread", "third"]


def test_a_cancelled_task_passes_its_turn_on():
    turns = Turns()

    async def scenario():
        assert await Enter(turns, None).wait()
        before = asyncio.ensure_future(Enter(turns, None).wait())
        after = asyncio.ensure_future(Enter(turns, None).wait())
        await asyncio.sleep(0)
        turns.leave()
        before.cancel()  # in the turn in which it would have entered
        assert await after

    asyncio.run(scenario())
    turns.leave()
    assert Enter(turns, 0).block()
