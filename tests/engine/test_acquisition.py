"""The acquisition and its two drivers, at the points that ordinary use seldom meets."""

import asyncio
import contextlib
import multiprocessing
import os
import threading

import filelock
import pytest

from pyrate_limiter import (
    AbstractBucket,
    BucketAsyncWrapper,
    Decision,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    StateBucket,
    testing,
)
from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.driver import Sleep, run_async, run_blocking
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._engine.locks import take
from pyrate_limiter._engine.reserving import Reserving
from pyrate_limiter._engine.steps import (
    Acquire,
    Park,
    Work,
    to_end,
)
from pyrate_limiter._engine.wait_options import WaitOptions
from pyrate_limiter._engine.wait_queue import join
from pyrate_limiter._engine.waiter import Held, Waiter, tickets
from pyrate_limiter.abstracts.reservation import Reservation
from tests.support.doubles import ListBucket, ManualClock, in_async_form, one

BUCKET = ListBucket(one())


def program_of(*steps):
    """A program that yields these steps, and returns what it was sent for each."""
    got = []
    for step in steps:
        try:
            got.append((yield step))
        except OSError as error:
            got.append(str(error))
    return got


async def value(of):
    await asyncio.sleep(0)
    return of


def fail():
    raise OSError("disk")


def test_blocking_driver_answers_each_step():
    slept, lock = [], threading.Lock()
    steps = [
        5,
        Sleep(1.5),
        Work(None, BUCKET, max, 1, 2),
        Acquire(lock),
        Acquire(lock, 0),
        to_end(Work(None, BUCKET, len, "abc")),
    ]
    assert run_blocking(program_of(*steps), slept.append) == [5, None, 2, True, False, 3]
    assert slept == [1.5]


def test_async_driver_answers_each_step(world):
    lock = threading.Lock()
    steps = [
        5,
        Sleep(1.5),
        Work(None, BUCKET, max, 1, 2),
        Acquire(lock),
        Acquire(lock, 0.01),
        to_end(Work(None, BUCKET, len, "abc")),
        to_end(value(4)),
        to_end(6),
        value("x"),
    ]
    got = world.run(run_async(program_of(*steps)))
    assert got == [None, 5, None, 2, True, False, 3, 4, 6, "x"][1:]


def test_a_blocking_driver_that_meets_an_awaitable_hands_the_program_over(world):
    promise = run_blocking(program_of(1, value(2), 3), pytest.fail)
    assert world.run(promise) == [1, 2, 3]


@pytest.mark.parametrize("driver", ["blocking", "async"])
def test_an_error_of_a_step_is_raised_in_the_program(world, driver):
    program = program_of(Work(None, BUCKET, fail), 1)
    got = (
        run_blocking(program, pytest.fail)
        if driver == "blocking"
        else world.run(run_async(program))
    )
    assert got == ["disk", 1]


def test_an_abandoned_program_awaits_nothing_and_warns_of_nothing():
    discard(run_blocking(program_of(value(1)), pytest.fail))
    discard(None)
    discard(5)


def test_a_lock_that_is_let_go_in_time_is_taken_without_blocking_the_loop(world):
    lock = threading.Lock()
    lock.acquire()

    async def scenario():
        asyncio.get_running_loop().call_later(0.05, lock.release)
        return await run_async(program_of(Acquire(lock)))

    assert world.run(scenario()) == [True]


class AnswersAtOnce(ListBucket):
    is_async = answers_in_order = True

    def reserve(self, item, max_wait_ms=0, buffer_ms=None):
        return super().reserve(item)


def test_an_async_bucket_that_answers_at_once_is_not_awaited():
    limiter = Limiter(AnswersAtOnce([Rate(1, 3_600_000)]))
    calls = [limiter.try_acquire_async("a", blocking=False) for _ in "ab"]
    assert [asyncio.run(call) for call in calls] == [True, False]


class Slow(InMemoryBucket):
    """A bucket whose calls may wait for a disk."""

    blocks = True

    def __init__(self, rates):
        super().__init__(rates)
        self.entered, self.go_on = threading.Event(), threading.Event()

    def reserve(self, item, max_wait_ms=0, buffer_ms=None):
        self.entered.set()
        assert self.go_on.wait(10)
        return super().reserve(item, max_wait_ms, buffer_ms)

    def straight(self):
        return None


@pytest.mark.parametrize("limit", [1, 0])
def test_what_a_cancelled_worker_thread_has_stored_is_given_back(limit):
    bucket = Slow([Rate(2, 3_600_000)])
    limiter = Limiter(bucket)

    async def scenario():
        task = asyncio.ensure_future(limiter.try_acquire_async(weight=2 if limit else 3))
        while not bucket.entered.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0)
        bucket.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return bucket.count()

    assert asyncio.run(scenario()) == 0
    limiter.close()


class Shared(ListBucket):
    """A user's bucket with a cross-process lock."""

    def __init__(self, rates, shared=None):
        super().__init__(rates)
        self.shared = shared or threading.Lock()

    def limiter_lock(self):
        return self.shared


@pytest.fixture(params=["threading", "multiprocessing", "filelock"])
def locks(request, tmp_path):
    """One lock twice: as its holder has it, and as the others have it."""
    if request.param == "filelock":  # an object of it is reentrant
        return [filelock.FileLock(tmp_path / "lock", thread_local=False) for _ in "12"]
    return [threading.Lock() if request.param == "threading" else multiprocessing.Lock()] * 2


@pytest.mark.parametrize("how", ["sync", "async", "not blocking"])
def test_a_lock_that_others_hold_is_waited_for_whatever_its_kind(locks, how):
    held, shared = locks
    limiter = Limiter(Shared(one(), shared))
    got = []

    def work():
        if how == "async":
            got.append(asyncio.run(limiter.try_acquire_async(timeout=20)))
        else:
            got.append(limiter.try_acquire(blocking=how == "sync"))

    thread = threading.Thread(target=work)
    assert take(held, None)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    held.release()
    thread.join(20)
    assert got == [True]
    limiter.close()


def test_a_lock_of_any_kind_is_taken_within_the_time_given(locks):
    held, shared = locks
    assert take(held, 1)
    assert not take(shared, 0)
    assert not take(shared, 0.02)
    held.release()
    assert take(shared, 0)
    shared.release()


@pytest.mark.parametrize("held", ["shared", "limiter"])
def test_a_lock_that_is_not_free_within_the_timeout_is_false(held):
    bucket = Shared(one())
    limiter = Limiter(bucket)
    lock = bucket.shared if held == "shared" else limiter.lock
    got = []
    with lock:
        thread = threading.Thread(target=lambda: got.append(limiter.try_acquire(timeout=0.02)))
        thread.start()
        thread.join(10)
    assert got == [False]
    assert limiter.try_acquire() is True
    limiter.close()


def test_a_closed_program_leaves_no_forgotten_awaitable(world):
    bucket = in_async_form(ListBucket, "put")(one(), ManualClock(world))
    limiter = Limiter(bucket)
    discard(limiter.try_acquire())
    assert world.run(limiter.try_acquire_async()) is True


def test_a_wrapped_bucket_that_blocks_is_not_called_on_the_loop(world):
    class Disk(ListBucket):
        blocks = True

        def put(self, item):
            threads.append(threading.current_thread())
            return super().put(item)

    threads = []
    limiter = Limiter(BucketAsyncWrapper(world.on(Disk(one()))))
    assert world.run(limiter.try_acquire_async()) is True
    assert threads[0] is not threading.main_thread()


def test_an_unpadded_wait_of_zero_is_still_a_step_forward(world):
    class Odd(ListBucket):
        def waiting(self, item):
            return 0

    limiter = Limiter(world.on(Odd(one(1, 20))), buffer_ms=0)
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(2))
    assert world.ms - start == 21


def test_a_bucket_that_names_no_failing_rate_gets_its_first(world):
    class Mute(ListBucket):
        def put(self, item):
            admitted = super().put(item)
            self.failing_rate = None
            return admitted

        def waiting(self, item):
            return 100

    limiter = Limiter(world.on(Mute(one())))
    limiter.try_acquire()
    assert limiter.acquire(blocking=False).failing_rate == Rate(1, 1000)


def test_an_abstract_buckets_own_reserve_is_put_decision(world):
    bucket = world.on(ListBucket(one()))
    item = limiter_item(world)
    assert bucket.reserve(item).allowed
    refused = bucket.reserve(item, 60_000)
    assert (refused.failing_rate, refused.retry_after_ms) == (Rate(1, 1000), 1001)
    stored = Reservation(item, 1500)
    assert bucket.confirm(stored, world.ms).wait_ms == 0
    assert bucket.cancel(stored) is False
    assert bucket.pause(stored) == 1.5
    assert isinstance(bucket, AbstractBucket)


def limiter_item(world):
    return Limiter(world.on(InMemoryBucket(one()))).bucket_factory.wrap_item("x")


def test_a_waiter_at_a_bucket_that_blocks_wakes_and_confirms(world):
    class Disk(InMemoryBucket):
        blocks = True

        def straight(self):
            return None

    limiter = Limiter(world.on(Disk(one())))
    assert [limiter.try_acquire() for _ in range(3)] == [True] * 3
    assert [world.run(limiter.try_acquire_async()) for _ in range(2)] == [True] * 2


def test_a_users_bucket_whose_clock_steps_back_is_stamped_with_the_new_time(world):
    class Impatient(ListBucket):
        def put(self, item):
            stamps.append(item.timestamp)
            self.failing_rate = self.rates[0]
            return len(stamps) > 1

        def waiting(self, item):
            world.us -= 3_600_000_000
            return 10

    stamps = []
    world.us += 7_200_000_000
    limiter = Limiter(world.on(Impatient(one())), buffer_ms=0)
    assert limiter.try_acquire() is True
    assert stamps[1] < stamps[0]


# Where a cancellation may strike ------------------------------------------------------------------


class OnDisk(InMemoryBucket):
    """A bucket that is called in worker threads."""

    blocks = True

    def __init__(self, limit=1):
        super().__init__([Rate(limit, 3_600_000)])
        self._clock = testing.ManualClock(1000)
        self.entered, self.go_on = threading.Event(), threading.Event()

    def confirm(self, reservation, now, max_wait_ms=0):
        self.entered.set()
        assert self.go_on.wait(10)
        return super().confirm(reservation, now, max_wait_ms)


def terms_of(**terms):
    return WaitOptions(**{"blocking": True, "seconds": -1, "buffer_ms": 0, "known": False, **terms})


def at_work(program):
    """The first step of a program that a worker thread does."""
    step = next(program)
    while not isinstance(step, Work):
        step = program.send(step)
    return step


def cancel(program):
    """Cancel a program at its step, and do what it has to do before it ends."""
    try:
        step = program.throw(asyncio.CancelledError())
        while True:
            step = program.send(step.block())
    except asyncio.CancelledError:
        return


def test_what_a_first_try_has_stored_as_the_cancellation_came_is_given_back():
    bucket = OnDisk()
    acquisition = Limiter(bucket)._acquisition
    program = acquisition.first(bucket, RateItem("a", 1000), terms_of())
    assert at_work(program).block().allowed
    assert bucket.count() == 1
    cancel(program)
    assert bucket.count() == 0


def test_what_a_waiter_was_given_as_the_cancellation_came_is_given_back():
    bucket = OnDisk()
    acquisition = Limiter(bucket, reserve_ahead=False)._acquisition
    item = RateItem("a", 1000)
    waiting = Reserving(acquisition, bucket, item, terms_of(), next(tickets)).run(None)
    assert at_work(waiting).block().allowed
    assert bucket.count() == 1
    cancel(waiting)
    assert bucket.count() == 0
    assert id(bucket) not in waited_for


def asleep_until_a_reservation(bucket):
    """A program that sleeps until what it has reserved at a full bucket is due."""
    assert bucket.put(RateItem("before", 1000))
    acquisition, item = Limiter(bucket, reserve_ahead=7200)._acquisition, RateItem("a", 1000)
    program = Reserving(acquisition, bucket, item, terms_of(), next(tickets)).run(None)
    assert isinstance(program.send(at_work(program).block()), Park)
    assert bucket.count() == 2
    return program


def test_a_program_that_is_closed_while_it_waits_gives_its_units_back():
    bucket = OnDisk()
    asleep_until_a_reservation(bucket).close()
    assert bucket.count() == 1
    assert id(bucket) not in waited_for


def test_a_reservation_that_is_confirmed_after_its_cancellation_is_given_back():
    bucket = OnDisk()
    program = asleep_until_a_reservation(bucket)
    step = program.send(False)  # it has slept in full
    while not isinstance(step, Work):
        step = program.send(step)

    async def confirm():
        task = asyncio.ensure_future(step.wait())
        while not bucket.entered.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(confirm())
    cancel(program)
    assert bucket.count() == 2
    bucket.go_on.set()
    until(lambda: bucket.count() == 1)


def test_a_reservation_that_somebody_took_first_is_looked_for_again():
    bucket = OnDisk()
    call, queue = reserving(bucket)
    assert queue.join(Waiter("earlier", 1, terms_of(), -1, stamped_by_bucket=True))
    queue.add(Held(Reservation(RateItem("r", 1000)), 0.0, 0.0, 0.0))
    with pytest.raises(StopIteration) as done:
        next(call._use())
    assert done.value.value is None
    assert len(queue.held) == 1


def test_a_reservation_for_nobody_that_is_refused_is_gone():
    call, queue = reserving(OnDisk())
    call._hold([RateItem("r", 1000)], [Decision(Rate(1, 1000))], [None])
    assert not queue.held


def test_what_a_waiter_was_given_as_its_program_was_dropped_is_given_back():
    bucket = OnDisk()
    acquisition = Limiter(bucket, reserve_ahead=False)._acquisition
    item = RateItem("a", 1000)
    waiting = Reserving(acquisition, bucket, item, terms_of(), next(tickets)).run(None)
    assert at_work(waiting).block().allowed
    waiting.close()
    assert bucket.count() == 0
    assert id(bucket) not in waited_for


def parked(program):
    """Run a program in memory until it sleeps in the queue; the waiter, and for how long."""
    step = next(program)
    while not isinstance(step, Park):
        step = program.send(step)
    return step.waiter, step.seconds


def waiting_at(bucket, **terms):
    acquisition, item = Limiter(bucket)._acquisition, RateItem("a", 1000)
    return Reserving(acquisition, bucket, item, terms_of(**terms), next(tickets))


def full_bucket():
    bucket = InMemoryBucket([Rate(1, 3_600_000)])
    bucket._clock = testing.ManualClock(1000)
    assert bucket.put(RateItem("before", 1000))
    return bucket


def test_a_front_that_somebody_earlier_comes_before_sleeps_on_behind_him():
    bucket = full_bucket()
    program = waiting_at(bucket).run(None)
    waiter, seconds = parked(program)
    assert seconds > 3_000
    earlier = Waiter("b", 1, terms_of(), -1, stamped_by_bucket=True)
    assert waiter.queue.join(earlier)
    step = program.send(True)  # it is woken
    assert isinstance(step, Park)
    assert (step.waiter, step.seconds) == (waiter, None)
    waiter.queue.leave(earlier)
    program.close()
    assert id(bucket) not in waited_for


def test_a_call_that_wants_to_know_waits_behind_others_where_it_may_fit_in_time():
    bucket = full_bucket()
    queue = join(bucket, earlier := Waiter("b", 1, terms_of(), -1, stamped_by_bucket=True))
    program = waiting_at(bucket, known=True, seconds=10_000).run(None)
    waiter, seconds = parked(program)
    assert waiter.queue is queue
    assert 9_000 < seconds <= 10_000
    program.close()
    queue.leave(earlier)


@pytest.mark.parametrize("kind", [InMemoryBucket, StateBucket])
def test_a_hold_that_is_released_before_its_waiter_sleeps_holds_it_up_no_longer(kind):
    bucket = kind([Rate(1, 1000)])
    bucket._clock = testing.ManualClock(1000)
    limiter = Limiter(bucket)
    limiter.hold("a", 3600)
    program = waiting_at(bucket).run(None)
    step = next(program)
    while not isinstance(step, Decision):
        step = program.send(step)
    assert not step.allowed
    assert limiter.release_hold("a")
    with contextlib.suppress(StopIteration):
        while not isinstance(step, Park):
            step = program.send(step)
    assert bucket.count() == 1


def reserving(bucket):
    """A call at the front of the queue, and that."""
    item, acquisition = RateItem("a", 1000), Limiter(bucket)._acquisition
    call = Reserving(acquisition, bucket, item, terms_of(), next(tickets))
    call._queue = join(bucket, call._waiter)
    call._used = []
    return call, call._queue


def until(condition):
    while not condition():
        os.sched_yield()
