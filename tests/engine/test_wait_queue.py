"""The wait queue: who is at the front, who is woken, and what becomes of reservations."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from itertools import count

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
)
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._engine import wait_queue as module
from pyrate_limiter._engine import waiter as waiter_module
from pyrate_limiter._engine.native import unwrapped
from pyrate_limiter._engine.reserving import Reserving
from pyrate_limiter._engine.wait_options import WaitOptions, monotonic
from pyrate_limiter._engine.wait_queue import join, queue_at
from pyrate_limiter._engine.waiter import Held, Waiter
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.errors import BucketRetired, InvalidReserveAhead

arrivals = count()


def waiter(weight=1, ticket=None, *, blocking=True):
    terms = WaitOptions(blocking=blocking, seconds=-1, buffer_ms=None, known=False)
    ticket = next(arrivals) if ticket is None else ticket
    return Waiter("a", weight, terms, ticket, stamped_by_bucket=True)


def queued(*waiters, bucket=None):
    bucket = bucket or InMemoryBucket([Rate(1, 1000)])
    return [join(bucket, each) for each in waiters][-1]


def in_order(queue):
    found, each = [], queue.first
    while each is not None:
        found.append(each)
        each = each.next
    return found


def reservation(weight=1, due=0.0):
    return Held(Reservation(RateItem("r", 0, weight), 1), due, 0.0, 0.0)


def until(condition):
    while not condition():
        os.sched_yield()


def asleep(each):
    return each._lock is not None or each._future is not None


def in_thread(each, left, seconds=None):
    def stand():
        while not each.is_first:
            each.sleep(seconds)
        left.append(each)
        each.queue.leave(each)

    thread = threading.Thread(target=stand)
    thread.start()
    until(lambda: asleep(each))
    return thread


async def as_task(each, left):
    while not each.is_first:
        await each.sleep_async(None)
    left.append(each)
    each.queue.leave(each)


def test_the_order_is_that_of_arrival_whoever_joins_first():
    late, first, second = waiter(ticket=9), waiter(ticket=3), waiter(ticket=7)
    queue = queued(late, first, second)
    assert in_order(queue) == [first, second, late]
    assert (queue.first, queue.last, queue.size) == (first, late, 3)


@pytest.mark.parametrize("place", range(3))
def test_whoever_leaves_leaves_nothing_behind(place):
    waiters = [waiter(1), waiter(2), waiter(4)]
    queue = queued(*waiters)
    gone = waiters.pop(place)
    queue.leave(gone)
    queue.leave(gone)
    assert in_order(queue) == waiters
    assert queue.units == sum(each.weight for each in waiters)
    assert queue.units_before(waiters[-1]) == waiters[0].weight
    assert queue.units_before(gone) == queue.units


def test_the_last_to_leave_dissolves_the_queue():
    bucket, one = InMemoryBucket([Rate(1, 1000)]), waiter()
    queue = queued(one, bucket=bucket)
    assert queue_at(bucket) is queue
    queue.leave(one)
    assert queue_at(bucket) is None
    assert not queue.join(waiter())
    assert id(bucket) not in waited_for


def test_threads_reach_the_front_in_order():
    first, left = waiter(), []
    waiters = [first, *(waiter() for _ in range(5))]
    queue = queued(*waiters)
    threads = [in_thread(each, left) for each in reversed(waiters[1:])]
    queue.leave(first)
    for thread in threads:
        thread.join()
    assert left == waiters[1:]


def test_the_word_passes_between_threads_and_tasks():
    first, second, third, fourth = waiters = [waiter() for _ in range(4)]
    left, queue = [], queued(*waiters)

    async def main():
        task = asyncio.ensure_future(as_task(third, left))
        while not asleep(third):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        threads = [in_thread(second, left), in_thread(fourth, left)]
        queue.leave(first)
        await task
        await asyncio.get_running_loop().run_in_executor(None, threads[1].join)
        threads[0].join()

    asyncio.run(main())
    assert left == [second, third, fourth]


def test_tasks_that_fit_are_woken_with_the_front_and_no_others():
    first, *others = waiters = [waiter(weight) for weight in (1, 2, 1, 3, 1)]
    queue = queued(*waiters)

    async def main():
        tasks = [asyncio.ensure_future(each.sleep_async(None)) for each in others]
        await asyncio.sleep(0)
        queue.leave(first, room=4)
        await asyncio.sleep(0)
        woken = [each for each in others if not asleep(each) or each._woken]
        for task in tasks:
            task.cancel()
        return woken

    # The last of them is the new front when the others have gone, and has to look for itself.
    assert asyncio.run(main()) == others[:3]


def test_a_wake_up_before_the_sleep_is_not_lost():
    one = waiter()
    queued(one)
    one.wake()
    assert one.sleep(60) is True
    assert one.sleep(0) is False


def test_a_wake_up_from_another_thread_reaches_a_task():
    one = waiter()
    queued(one)

    async def main():
        thread = threading.Thread(target=one.wake)
        asyncio.get_running_loop().call_soon(thread.start)
        woken = await one.sleep_async(60)
        thread.join()
        return woken

    assert asyncio.run(main()) is True


@pytest.mark.parametrize("how", ["thread", "task"])
def test_tasks_of_a_stalled_event_loop_are_overtaken_and_come_back(monkeypatch, how):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.01)
    stalled, follower, other = waiters = [waiter() for _ in range(3)]
    bucket, left = InMemoryBucket([Rate(1, 1000)]), []
    queue = queued(*waiters, bucket=bucket)
    resume, asleep_there = threading.Event(), threading.Event()

    async def stall():
        sleeps = [asyncio.ensure_future(each.sleep_async(60)) for each in (stalled, follower)]
        await asyncio.sleep(0)
        asleep_there.set()
        resume.wait()  # it blocks the loop, which is the point
        for sleep in sleeps:
            sleep.cancel()

    runner = threading.Thread(target=asyncio.run, args=(stall(),))
    runner.start()
    asleep_there.wait()
    if how == "thread":
        in_thread(other, left).join()
    else:
        asyncio.run(as_task(other, left))
    assert left == [other]
    assert stalled.queue is follower.queue is None
    queue = queued(follower, stalled, bucket=bucket)
    assert in_order(queue) == [stalled, follower]
    resume.set()
    runner.join()


def test_nobody_is_overtaken_who_has_moved_or_is_asking():
    stalled, watcher = waiter(), waiter()
    queue = queued(stalled, watcher)
    stalled.loop = asyncio.new_event_loop()
    queue.park(stalled, stalled.loop)
    queue.park(watcher, None)
    _, front, due = queue.overdue_in(watcher)
    assert front is stalled
    queue.due = due + 1
    queue.overtake(watcher, front, due)
    assert in_order(queue) == [stalled, watcher]
    queue.due, queue.asking = due, True
    queue.overtake(watcher, front, due)
    assert in_order(queue) == [stalled, watcher]
    queue.asking = False
    queue.overtake(stalled, front, due)
    assert in_order(queue) == [stalled, watcher]
    queue.overtake(watcher, front, due)
    assert in_order(queue) == [watcher]
    stalled.loop.close()


def test_waiters_of_a_closed_event_loop_are_passed_over():
    first, dead, third = waiters = [waiter() for _ in range(3)]
    bucket = InMemoryBucket([Rate(1, 1000)])
    queue = queued(*waiters, bucket=bucket)
    dead.loop = asyncio.new_event_loop()
    dead.loop.close()
    queue.leave(first)
    assert in_order(queue) == [third]
    third.loop = dead.loop
    assert queue_at(bucket) is None


def test_whoever_does_not_want_to_wait_is_told_that_others_do():
    first, hasty = waiter(), waiter(blocking=False)
    queue = queued(first, hasty)
    queue.block()
    assert hasty.sleep(60) is True
    assert first.sleep(0) is False


def test_the_front_takes_the_first_reservation_that_is_enough():
    front = waiter(2)
    queue = queued(front, waiter(1))
    held = [reservation(weight, due) for due, weight in enumerate([1, 3, 1])]
    for each in reversed(held):
        queue.add(each)
    assert queue.take(queue.last) is None
    assert queue.take(front) is None
    assert queue.trim()
    too_small, cut = queue.surplus()
    assert too_small is held[0].reservation
    assert (cut.item.weight, held[1].weight) == (1, 2)
    assert not queue.trim()
    assert queue.take(front) is held[1]
    assert queue.held == [held[2]]
    assert queue.take(front) is None


def test_reservations_of_those_who_left_are_kept_for_those_who_wait():
    waiters = [waiter() for _ in range(3)]
    queue = queued(*waiters)
    held = [reservation(due=due) for due in range(3)]
    for each in held:
        queue.add(each)
    queue.leave(waiters[0])
    assert queue.surplus() == [held[2].reservation]
    assert queue.held == held[:2]
    for each in waiters[1:]:
        queue.leave(each)
    assert queue.surplus() == [each.reservation for each in held[:2]]


def test_a_reservation_that_is_too_small_for_whoever_moves_up_is_surplus():
    waiters = [waiter(3), waiter(1), waiter(3)]
    queue = queued(*waiters)
    held = [reservation(each.weight, due) for due, each in enumerate(waiters)]
    for each in held:
        queue.add(each)
    queue.leave(waiters[0])
    # The light one moves up to a part of the heavy one's; its own is not enough for the next.
    assert [one.item.weight for one in queue.surplus()] == [2, 1]
    assert queue.held == [held[0], held[2]]
    assert [each.weight for each in queue.held] == [1, 3]


def test_where_more_may_fit_earlier_only_what_is_for_later_is_given_up():
    queue = queued(waiter(), waiter())
    granted = Held(Reservation(RateItem("r", 0, 1)), 0.0, 0.0, 0.0)
    later = reservation(due=monotonic() + 60)
    for each in (granted, later):
        queue.add(each)
    queue.look_again()
    assert queue.held == [granted]
    assert queue.surplus() == [later.reservation]


def test_reservations_are_wanted_for_those_who_have_none():
    waiters = [waiter() for _ in range(5)]
    queue = queued(*waiters)
    queue.add(reservation())
    assert queue.lacking == 4
    assert queue.front(3) == waiters[:3]
    assert queue.front(9) == waiters
    assert queue.wanting(9) == waiters[:4]
    waiters[1].held = queue.held[0]
    assert queue.wanting(3) == [waiters[0], *waiters[2:4]]


def test_reservations_that_are_due_are_confirmed_together():
    queue, now = queued(*(waiter() for _ in range(3))), monotonic()
    held = [reservation(due=now + due) for due in (-2, -1, 60)]
    for each in held:
        queue.add(each)
    assert queue.take_due(now, 1) == held[:1]
    assert queue.take_due(now, 9) == held[1:2]
    assert queue.take_due(now, 9) == []
    assert queue.held == held[2:]


def test_no_more_are_confirmed_than_there_are_waiters():
    queue = queued(waiter())
    held = [reservation(due=due) for due in range(2)]
    for each in held:
        queue.add(each)
    assert queue.take_due(9.0, 9) == held[:1]


def test_what_is_confirmed_can_be_used_at_once():
    queue = queued(waiter())
    for weight, due in [(2, 1.0), (3, 2.0)]:
        queue.add(Held(Reservation(RateItem("r", 0, weight)), due, due, due))
    queue.add(reservation(4, 3.0))
    assert queue.units_at_once() == 5


def test_a_bucket_and_its_wrapper_share_a_queue():
    bucket = InMemoryBucket([Rate(1, 1000)])
    wrapped = BucketAsyncWrapper(BucketAsyncWrapper(bucket))
    one = waiter()
    assert unwrapped(wrapped) is bucket
    assert join(unwrapped(wrapped), one) is queue_at(bucket)


def test_a_bucket_without_hash_or_weak_references_has_a_queue():
    class Bare(InMemoryBucket):
        __hash__ = None

    bucket = Bare([Rate(1, 1000)])
    one = waiter()
    assert join(bucket, one) is queue_at(bucket)


def test_a_queue_goes_with_those_who_stand_in_it():
    bucket, waiters = InMemoryBucket([Rate(1, 1000)]), [waiter(), waiter()]
    gone = weakref.ref(queued(*waiters, bucket=bucket))
    waiters.clear()
    gc.collect()
    assert gone() is None
    assert id(bucket) not in waited_for


def test_a_call_that_is_struck_down_leaves_its_place():
    limiter = Limiter(InMemoryBucket([Rate(1, 1000)]))
    bucket = limiter.bucket_factory.bucket
    terms = WaitOptions(blocking=True, seconds=-1, buffer_ms=None, known=False)
    waiting = Reserving(limiter._acquisition, bucket, RateItem("a", 0), terms, 0)
    queue = join(bucket, waiting._waiter)
    assert queue_at(bucket) is queue
    del waiting
    assert queue_at(bucket) is None


def test_a_dead_queue_that_is_still_registered_is_replaced():
    bucket, one = InMemoryBucket([Rate(1, 1000)]), waiter()
    old = queued(waiter(), bucket=bucket)
    old._closed = True
    assert join(bucket, one) is not old
    del old
    gc.collect()
    assert queue_at(bucket).first is one


def test_a_waiter_whose_loop_is_closed_while_it_sleeps_cannot_be_woken():
    one = waiter()
    queued(one)
    one.loop = asyncio.new_event_loop()
    one._future = one.loop.create_future()
    one.loop.close()
    assert one.wake() is False


def test_a_watcher_that_leaves_hands_over_to_the_next():
    front, watcher, other = waiters = [waiter() for _ in range(3)]
    queue = queued(*waiters)
    front.loop = asyncio.new_event_loop()
    queue.park(front, front.loop)
    queue.park(watcher, None)
    queue.park(other, None)
    assert queue.overdue_in(watcher) is not None
    assert queue.overdue_in(other) is None
    queue.leave(watcher)
    assert queue.overdue_in(other) is not None
    front.loop.close()


def test_who_came_to_the_front_meanwhile_is_woken_when_asking_is_over():
    asker, earlier = waiter(ticket=next(arrivals)), None
    queue = queued(asker)
    queue.asking = True
    earlier = waiter(ticket=-1)
    queue.join(earlier)
    assert not earlier.is_first
    queue.stop_asking(asker)
    assert earlier.is_first
    assert earlier.sleep(60) is True


def test_those_who_bring_a_reservation_stand_in_its_order():
    held = [reservation(due=due) for due in (2.0, 1.0)]
    late, soon, without = waiters = [waiter() for _ in range(3)]
    bucket = InMemoryBucket([Rate(1, 1000)])
    for each, brought in zip(waiters, held):
        brought.owner = each
        queue = join(bucket, each, brought)
    join(bucket, without)
    assert in_order(queue) == [soon, late, without]
    assert queue.wanting(9) == [without]


@pytest.mark.parametrize("ahead", [-1, "long", float("inf"), float("nan"), None])
def test_a_look_ahead_that_is_no_time_is_refused(ahead):
    with pytest.raises(InvalidReserveAhead, match="reserve_ahead"):
        Limiter(Rate(1, 1000), reserve_ahead=ahead)


def test_a_look_at_a_bucket_that_was_just_dropped_looks_again():
    class Dropped(InMemoryBucket):
        looks = 0

        def check(self, item):
            self.looks += 1
            if self.looks == 1:
                raise BucketRetired
            return super().check(item)

    assert Limiter(Dropped([Rate(2, 1000)])).check("a").remaining == 2


def test_a_look_finds_those_who_wait():
    limiter = Limiter(Rate(2, 60_000))
    assert limiter.try_acquire("a", 2)
    waiting = threading.Thread(target=limiter.try_acquire, args=("b", 2), kwargs={"timeout": 1})
    waiting.start()
    until(lambda: queue_at(limiter.bucket_factory.bucket) is not None)
    behind = limiter.check("c")
    assert behind.remaining == 0
    assert behind.retry_after_ms > 60_000
    assert limiter.check("c", 3).retry_after_ms is None
    refused = limiter.acquire("c", blocking=False)
    assert refused.retry_after_ms > 60_000
    assert limiter.acquire("c", timeout=30).retry_after_ms > 60_000
    waiting.join()


def test_nobody_stands_in_the_queue_in_a_forked_child():
    program = """
import os
from pyrate_limiter import InMemoryBucket, Rate
from pyrate_limiter._engine.wait_options import WaitOptions
from pyrate_limiter._engine.wait_queue import join, queue_at
from pyrate_limiter._engine.waiter import Waiter
bucket = InMemoryBucket([Rate(1, 1000)])
terms = WaitOptions(blocking=True, seconds=-1, buffer_ms=None, known=False)
waiter = Waiter("a", 1, terms, 0, stamped_by_bucket=True)
queue = join(bucket, waiter)
child = os.fork()
if child == 0:
    os._exit(queue_at(bucket) is not None)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or queue_at(bucket) is None)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_who_stands_in_no_queue_sleeps_until_woken():
    alone = waiter()
    alone.wake()
    assert alone.sleep(60) is True
    assert alone.sleep(0) is False


def test_who_has_left_is_not_noted_as_asleep():
    first, gone = waiter(), waiter()
    queue = queued(first, gone)
    queue.leave(gone)
    queue.park(gone, None)
    assert not gone.parked
    assert queue._loops == {}


def test_a_task_whose_loop_is_closed_is_passed_over_when_its_turn_comes():
    first, lost, last = waiter(), waiter(), waiter()
    queue = queued(first, lost, last)
    lost.loop = asyncio.new_event_loop()
    lost.loop.close()
    queue.leave(first)
    assert in_order(queue) == [last]
    assert last._woken


def test_a_queue_that_only_the_lost_stand_in_is_dissolved():
    first, lost = waiter(), waiter()
    bucket = InMemoryBucket([Rate(1, 1000)])
    queue = queued(first, lost, bucket=bucket)
    lost.loop = asyncio.new_event_loop()
    lost.loop.close()
    queue.leave(first)
    assert id(bucket) not in waited_for
    assert not queue.join(waiter())


def test_a_queue_that_is_dissolved_late_leaves_its_successor_alone():
    bucket, old = InMemoryBucket([Rate(1, 1000)]), waiter()
    queue = queued(old, bucket=bucket)
    del waited_for[id(bucket)]  # as a call does that was struck down in the middle of leaving
    successor = queued(waiter(), bucket=bucket)
    queue.leave(old)
    assert queue_at(bucket) is successor


def test_a_queue_that_is_lost_late_leaves_its_successor_alone():
    bucket, old = InMemoryBucket([Rate(1, 1000)]), waiter()
    queued(old, bucket=bucket)
    reference = waited_for.pop(id(bucket))
    successor = queued(waiter(), bucket=bucket)
    del old
    gc.collect()
    assert reference() is None
    assert queue_at(bucket) is successor


def test_a_call_that_is_struck_down_before_it_waits_leaves_the_queue():
    bucket = InMemoryBucket([Rate(1, 1000)])
    limiter = Limiter(bucket)
    terms = WaitOptions(blocking=True, seconds=-1, buffer_ms=None, known=False)
    item = RateItem("a", bucket.now())
    call = Reserving(limiter._acquisition, bucket, item, terms, next(arrivals))
    queue = queued(call._waiter, bucket=bucket)
    other = waiter()
    queue.join(other)
    del call
    gc.collect()
    assert in_order(queue) == [other]


def test_nobody_watches_where_all_live_in_the_fronts_event_loop():
    front, follower, gone = waiter(), waiter(), waiter()
    queue = queued(front, follower, gone)
    loop = asyncio.new_event_loop()
    for each in (front, follower):
        queue.park(each, loop)
    queue._loops["of a call that was struck down as it left"] = 1
    queue.leave(gone)
    queue.park(front, loop)
    loop.close()
    assert queue._watcher is None
    assert not follower._woken


def test_tasks_that_are_dropped_with_their_event_loop_leave_in_peace():
    bucket = InMemoryBucket([Rate(1, 3_600_000)])
    limiter, loop = Limiter(bucket), asyncio.new_event_loop()
    assert limiter.try_acquire("first")
    tasks = [loop.create_task(limiter.try_acquire_async("a")) for _ in range(5)]
    loop.run_until_complete(asyncio.sleep(0))
    assert queue_at(bucket).size == 5
    loop.close()
    coroutines = [task.get_coro() for task in tasks]
    for task in tasks:
        task._log_destroy_pending = False
    del tasks, task
    for coroutine in coroutines:
        coroutine.close()  # an error would be raised here
    assert queue_at(bucket) is None


def test_a_front_without_a_reservation_takes_the_first_and_its_owner_asks_under_the_other_name():
    front, owner = waiter(), waiter()
    owner.name = "owner"
    queue = queued(front, owner)
    held = reservation()
    held.owner, owner.held = owner, held
    queue.add(held)
    assert queue.take(front) is held
    assert owner.held is None
    assert (front.name, owner.name) == ("owner", "a")


def test_a_call_that_is_held_up_while_it_learns_its_moment_passes_nobody(monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(waiter_module, "monotonic", lambda: seconds[0])

    class HeldUp(InMemoryBucket):
        def pause(self, reservation):
            seconds[0] += 0.5  # before it looks at its clock
            return 100.0 + reservation.wait - seconds[0]

    bucket = HeldUp([Rate(1, 1000)])
    reservation = Reservation(RateItem("a", 1000), 1000)
    assert Held.of(bucket, reservation.item, reservation, 100.0, None).due == 101.0
