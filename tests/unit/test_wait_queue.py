"""The line of waiters: who leaves when."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Rate
from pyrate_limiter._engine import line as line_module
from pyrate_limiter._engine.line import Line, line_of


def in_thread(place, left):
    def go():
        place.reach_front()
        left.append(place)
        place.leave()

    thread = threading.Thread(target=go)
    thread.start()
    return thread


def until(condition):
    while not condition():
        os.sched_yield()


def test_places_are_ordered_by_moment_and_then_by_ticket():
    line = Line()
    late, second, first = line.join(20, 0), line.join(10, 7), line.join(10, 3)
    assert line._places == [first, second, late]


def test_waiters_of_one_moment_wake_a_little_apart_and_others_do_not():
    line = Line()
    delays = [line.join(10, ticket).delay for ticket in range(3)]
    assert delays == sorted(set(delays))
    assert delays[0] == 0.0
    assert line.join(11, 9).delay == 0.0


def test_the_first_does_not_wait():
    line = Line()
    first = line.join(10, 0)
    first.reach_front()
    asyncio.run(first.reach_front_async())


def test_one_who_has_left_does_not_wait():
    line = Line()
    line.join(10, 0)
    gone = line.join(10, 1)
    gone.leave()
    gone.leave()
    gone.reach_front()


def test_threads_leave_in_order_whoever_wakes_first(monkeypatch):
    monkeypatch.setattr(line_module, "GRACE_SECONDS", 30)
    line, left = Line(), []
    places = [line.join(10, ticket) for ticket in range(4)]
    threads = []
    for place in reversed(places):
        threads.append(in_thread(place, left))
        if place is not places[0]:
            until(lambda place=place: place.call is not None)
    for thread in threads:
        thread.join()
    assert left == places


def test_tasks_leave_in_order_whoever_wakes_first(monkeypatch):
    monkeypatch.setattr(line_module, "GRACE_SECONDS", 30)
    line, left = Line(), []
    places = [line.join(10, ticket) for ticket in range(5)]

    async def go(place):
        await place.reach_front_async()
        left.append(place)
        place.leave()

    async def main():
        await asyncio.gather(*(go(place) for place in reversed(places)))

    asyncio.run(main())
    assert left == places


def test_a_thread_passes_the_word_to_a_task_and_a_task_to_a_thread(monkeypatch):
    monkeypatch.setattr(line_module, "GRACE_SECONDS", 30)
    line, left = Line(), []
    places = [line.join(10, ticket) for ticket in range(3)]

    async def main():
        async def go():
            await places[1].reach_front_async()
            left.append(places[1])
            places[1].leave()

        last = in_thread(places[2], left)
        task = asyncio.ensure_future(go())
        while places[1].call is None or places[2].call is None:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        first = in_thread(places[0], left)
        await task
        await asyncio.get_running_loop().run_in_executor(None, last.join)
        first.join()

    asyncio.run(main())
    assert left == places


def test_a_stalled_waiter_is_overtaken_by_threads(monkeypatch):
    monkeypatch.setattr(line_module, "GRACE_SECONDS", 0.01)
    line, left = Line(), []
    stalled, place = line.join(10, 0), line.join(10, 1)
    in_thread(place, left).join()
    assert left == [place]
    stalled.leave()


def test_a_stalled_waiter_is_overtaken_by_tasks(monkeypatch):
    monkeypatch.setattr(line_module, "GRACE_SECONDS", 0.01)
    line = Line()
    stalled, place = line.join(10, 0), line.join(10, 1)
    asyncio.run(place.reach_front_async())
    assert line._places == [place]
    stalled.leave()


def test_nobody_is_overtaken_while_the_line_moves():
    line = Line()
    line.join(10, 0).leave()
    ahead, place = line.join(10, 1), line.join(10, 2)
    line.overtake(place, 0)
    assert line._places == [ahead, place]


def test_one_who_left_overtakes_nobody():
    line = Line()
    ahead, place = line.join(10, 0), line.join(10, 1)
    place.leave()
    line.overtake(place, line._departures)
    assert line._places == [ahead]


def test_a_waiter_whose_event_loop_was_closed_is_passed_over():
    line, called = Line(), []

    def closed():
        raise RuntimeError("Event loop is closed")

    first, dead, third = (line.join(10, ticket) for ticket in range(3))
    loop = object()
    assert line.stands_behind(dead, closed, loop) is not None
    assert line.stands_behind(third, lambda: called.append(third), loop) is not None
    first.leave()
    assert called == [third]
    assert line._places == [third]


def test_tasks_of_another_loop_are_not_called_with_the_first():
    line, called = Line(), []
    first, second, third = (line.join(10, ticket) for ticket in range(3))
    line.stands_behind(second, lambda: called.append(second), "one loop")
    line.stands_behind(third, lambda: called.append(third), "another")
    first.leave()
    assert called == [second]
    assert third.call is not None


def test_a_second_call_does_not_disturb_a_waiter_that_was_called():
    line = Line()
    places = [line.join(10, ticket) for ticket in range(2)]

    async def main():
        task = asyncio.ensure_future(places[1].reach_front_async())
        await asyncio.sleep(0)
        call = places[1].call
        places[0].leave()
        call()
        await task

    asyncio.run(main())


def test_a_bucket_and_its_wrapper_share_a_line():
    bucket = InMemoryBucket([Rate(1, 1000)])
    assert line_of(BucketAsyncWrapper(bucket)) is line_of(bucket)
    assert line_of(bucket) is not line_of(InMemoryBucket([Rate(1, 1000)]))


def test_a_line_goes_with_its_bucket():
    bucket = InMemoryBucket([Rate(1, 1000)])
    reference = weakref.ref(line_of(bucket))
    del bucket
    gc.collect()
    assert reference() is None


def test_a_bucket_that_cannot_be_referred_to_weakly_has_a_line_for_each_call():
    class Unhashable(InMemoryBucket):
        __hash__ = None

    bucket = Unhashable([Rate(1, 1000)])
    assert line_of(bucket) is not line_of(bucket)


def test_nobody_stands_in_line_in_a_forked_child():
    program = """
import os
from pyrate_limiter import InMemoryBucket, Rate
from pyrate_limiter._engine.line import line_of
bucket = InMemoryBucket([Rate(1, 1000)])
line_of(bucket).join(10, 0)
child = os.fork()
if child == 0:
    os._exit(len(line_of(bucket)._places))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
