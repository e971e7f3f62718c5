"""The known weaknesses of 4.5.1, one test or more for each that this library can have by now."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    StateBucket,
)
from tests.support.doubles import ListBucket, ManualClock, in_async_form, one

CLAIMING = [InMemoryBucket, StateBucket]


class SlowPut(ListBucket):
    """Its `put` waits until it is told to go on."""

    def __init__(self, rates):
        super().__init__(rates)
        self.entered, self.go_on = threading.Event(), threading.Event()

    def put(self, item):
        if item.name == "slow":
            self.entered.set()
            self.go_on.wait(10)
        return super().put(item)


def test_1_blocking_false_is_not_refused_because_another_thread_holds_a_lock():
    bucket = SlowPut(one(5))
    limiter = Limiter(bucket)
    got = []
    slow = threading.Thread(target=lambda: got.append(limiter.try_acquire("slow")))
    slow.start()
    assert bucket.entered.wait(10)
    quick = threading.Thread(target=lambda: got.append(limiter.try_acquire(blocking=False)))
    quick.start()
    bucket.go_on.set()
    slow.join(10)
    quick.join(10)
    assert got == [True, True]
    limiter.close()


def test_1_blocking_false_is_admitted_while_others_wait_on_the_limiters_lock():
    limiter = Limiter(Rate(5, 60_000))
    with limiter.lock:
        got = []
        thread = threading.Thread(target=lambda: got.append(limiter.try_acquire(blocking=False)))
        thread.start()
        thread.join(10)
    assert got == [True]
    limiter.close()


@pytest.mark.parametrize("kind", [*CLAIMING, ListBucket])
@pytest.mark.parametrize("wrap", [False, True])
def test_2_a_task_that_waits_on_a_full_key_delays_no_other(world, kind, wrap):
    def bucket():
        made = world.on(kind(one(1, 60_000)))
        return BucketAsyncWrapper(made) if wrap else made

    limiter = Limiter.per_key(one(1, 60_000), bucket=lambda rates: bucket())

    async def scenario():
        await limiter.try_acquire_async("full")
        waiter = asyncio.ensure_future(limiter.try_acquire_async("full"))
        await asyncio.sleep(1)
        start = world.ms
        other = await limiter.try_acquire_async("other")
        refused = await limiter.try_acquire_async("full", blocking=False)
        elapsed = world.ms - start
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        return other, refused, elapsed

    assert world.run(scenario()) == (True, False, 0)


@pytest.mark.parametrize("kind", CLAIMING)
def test_3_waiters_are_served_in_order_and_woken_once(world, kind):
    limiter = Limiter(world.on(kind(one(1, 1000))))
    order = []

    async def wait(number):
        assert await limiter.try_acquire_async("x")
        order.append(number)

    async def scenario():
        await limiter.try_acquire_async("x")
        tasks = []
        for number in range(20):
            tasks.append(asyncio.ensure_future(wait(number)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)

    world.run(scenario())
    assert order == list(range(20))


@pytest.mark.parametrize("kind", CLAIMING)
def test_3_a_heavy_waiter_does_not_starve_behind_light_ones(world, kind):
    limiter = Limiter(world.on(kind(one(10, 1000))))
    done = {}

    async def wait(name, weight):
        await limiter.try_acquire_async(name, weight)
        done[name] = world.ms

    async def scenario():
        await limiter.try_acquire_async("first", 10)
        heavy = asyncio.ensure_future(wait("heavy", 10))
        await asyncio.sleep(0.01)
        light = []
        for number in range(50):
            light.append(asyncio.ensure_future(wait(number, 1)))
            await asyncio.sleep(0.01)
        await asyncio.gather(heavy, *light)

    world.run(scenario())
    assert done["heavy"] <= min(done[number] for number in range(50))


@pytest.mark.parametrize("kind", CLAIMING)
def test_3_a_light_call_does_not_go_before_those_who_have_reserved(world, kind):
    limiter = Limiter(world.on(kind(one(10, 1000))))

    async def scenario():
        await limiter.try_acquire_async("first", 5)
        heavy = asyncio.ensure_future(limiter.try_acquire_async("heavy", 10))
        await asyncio.sleep(0.06)  # with less, the heavy one would not miss what it takes
        light = await limiter.acquire_async("light", blocking=False)
        await heavy
        return light

    light = world.run(scenario())
    assert not light
    assert light.retry_after_ms > 0


def test_4_a_waiter_that_wakes_late_is_recorded_at_the_true_time(world, monkeypatch):
    bucket = world.on(InMemoryBucket(one(1, 1000)))
    limiter = Limiter(bucket)
    limiter.try_acquire()
    monkeypatch.setattr("pyrate_limiter.limiter.sleep", lambda seconds: world.sleep(seconds + 0.7))
    limiter.try_acquire()
    woken = world.ms
    assert bucket.peek(0).timestamp == woken
    world.advance(1000)
    assert limiter.try_acquire(blocking=False) is False
    world.advance(1)
    assert limiter.try_acquire(blocking=False) is True


def test_5_the_default_pad_is_five_percent_of_a_short_interval(world):
    limiter = Limiter(world.on(InMemoryBucket(one(1, 100))))
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(101))
    assert world.ms - start == 100 * 106


def test_5_the_default_pad_is_fifty_ms_at_most(world):
    limiter = Limiter(world.on(InMemoryBucket(one(1, 60_000))))
    limiter.try_acquire()
    start = world.ms
    limiter.try_acquire()
    assert world.ms - start == 60_001 + 50


def test_5_the_default_pad_of_a_state_policy_is_of_the_time_one_unit_takes(world):
    limiter = Limiter(world.on(StateBucket([Rate(100, 1000, burst=1)])))
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(101))
    assert world.ms - start == 1000


def test_5_a_users_own_bucket_gets_the_same_pad(world):
    limiter = Limiter(world.on(ListBucket(one(1, 100))))
    start = world.ms
    assert all(limiter.try_acquire() for _ in range(11))
    assert world.ms - start == 10 * 106


def test_6_limiters_share_one_thread(world):
    limiters = [Limiter(Rate(1, 1000)) for _ in range(20)]
    ours = [thread for thread in threading.enumerate() if "PyrateLimiter" in thread.name]
    assert len(ours) == 1
    for limiter in limiters:
        limiter.close()


def test_6_a_dropped_limiter_is_gone(world):
    limiter = Limiter(Rate(1, 1000))
    gone = weakref.ref(limiter.bucket_factory.bucket)
    limiter.try_acquire()
    del limiter
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", [*CLAIMING, ListBucket])
@pytest.mark.parametrize("wrap", [False, True])
def test_7_a_cancelled_waiter_leaves_nothing_behind(world, kind, wrap):
    inner = world.on(kind(one(1, 1000)))
    limiter = Limiter(BucketAsyncWrapper(inner) if wrap else inner)

    async def scenario():
        await limiter.try_acquire_async()
        waiter = asyncio.ensure_future(limiter.try_acquire_async())
        await asyncio.sleep(0.5)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await asyncio.sleep(0.502)
        return await limiter.try_acquire_async(blocking=False)

    assert world.run(scenario()) is True


@pytest.mark.parametrize("kind", [*CLAIMING, ListBucket])
def test_7_a_waiter_under_wait_for_leaves_nothing_behind(world, kind):
    limiter = Limiter(world.on(kind(one(1, 1000))))

    async def scenario():
        await limiter.try_acquire_async()
        for _ in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(limiter.try_acquire_async(), 0.1)
        await asyncio.sleep(0.502)
        return await limiter.try_acquire_async(blocking=False)

    assert world.run(scenario()) is True


@pytest.mark.parametrize("kind", CLAIMING)
def test_7_those_behind_a_cancelled_waiter_are_still_admitted(world, kind):
    limiter = Limiter(world.on(kind(one(1, 1000))))

    async def scenario():
        await limiter.try_acquire_async()
        tasks = []
        for _ in range(5):
            tasks.append(asyncio.ensure_future(limiter.try_acquire_async()))
            await asyncio.sleep(0.001)
        tasks[1].cancel()
        tasks[3].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    got = world.run(scenario())
    assert [got[k] for k in (0, 2, 4)] == [True] * 3
    assert all(isinstance(got[k], asyncio.CancelledError) for k in (1, 3))


def test_7_a_cancelled_waiter_at_an_async_bucket_frees_its_turn(world):
    class Slow(ListBucket):
        async def put(self, item):
            await asyncio.sleep(5)
            return super().put(item)

    limiter = Limiter(Slow(one(5), ManualClock(world)))

    async def scenario():
        first = asyncio.ensure_future(limiter.try_acquire_async())
        second = asyncio.ensure_future(limiter.try_acquire_async())
        await asyncio.sleep(1)
        second.cancel()
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        return await limiter.try_acquire_async()

    assert world.run(scenario()) is True


@pytest.mark.parametrize("kind", [*CLAIMING, ListBucket])
def test_reserve_ahead_false_tries_again_after_each_wait(world, kind):
    bucket = world.on(kind(one(1, 1000)))
    limiter = Limiter(bucket, reserve_ahead=False)

    async def scenario():
        await limiter.try_acquire_async()
        waiter = asyncio.ensure_future(limiter.try_acquire_async())
        await asyncio.sleep(0.5)
        stored = bucket.count()
        return stored, await waiter

    stored, got = world.run(scenario())
    assert got is True
    assert stored == 1


def test_tasks_of_several_loops_and_threads_share_an_async_bucket():
    limiter = Limiter(in_async_form(ListBucket, "put")(one(20, 3_600_000)))
    got = []

    async def scenario():
        got.extend(
            await asyncio.gather(*[limiter.try_acquire_async(blocking=False) for _ in range(10)])
        )

    threads = [threading.Thread(target=lambda: asyncio.run(scenario())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 20
    limiter.close()


def test_an_event_loop_never_waits_for_a_bucket_that_blocks():
    class Disk(ListBucket):
        blocks = True

        def reserve(self, item, max_wait_ms=0, buffer_ms=None):
            threads.append(threading.current_thread())
            time.sleep(0.001)
            return super().reserve(item)

    async def scenario():
        return await limiter.try_acquire_async()

    threads = []
    limiter = Limiter(Disk(one()))
    assert asyncio.run(scenario()) is True
    assert threads
    assert threads[0] is not threading.main_thread()
    limiter.close()


def test_an_item_is_stamped_with_the_time_of_its_own_attempt(world):
    bucket = world.on(InMemoryBucket(one(1, 1000)))
    limiter = Limiter(bucket)
    for _ in range(3):
        limiter.try_acquire()
        assert bucket.peek(0).timestamp <= world.ms
    assert isinstance(bucket.peek(0), RateItem)
