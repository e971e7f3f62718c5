"""A factory is asked by one thread at a time, and a caller's timeout counts what it takes."""

import asyncio
import gc
import os
import threading
import time
import warnings

import pytest

from pyrate_limiter import BucketFactory, InMemoryBucket, Limiter, Rate, RateItem
from pyrate_limiter.errors import WrongType

SHORT, LONG = 0.05, 30  # seconds; nobody waits for the long ones


class Slow(BucketFactory):
    """Takes its time to stamp an item, or to find its bucket."""

    def __init__(self, bucket=None, *, stamp=0.0, find=0.0):
        self.target = bucket or InMemoryBucket([Rate(1, 86_400_000)])
        self.stamp, self.find = stamp, find

    async def wrap_item(self, name, weight=1):
        await asyncio.sleep(self.stamp)
        return RateItem(name, self.target.now(), weight)

    async def get(self, item):
        await asyncio.sleep(self.find)
        return self.target


CALLS = ["try_acquire", "try_acquire_async"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("slow", [{"stamp": LONG}, {"find": LONG}])
def test_an_awaited_factory_is_given_up_at_the_timeout(slow, call):
    async def main():
        limiter = Limiter(Slow(**slow))
        began = time.monotonic()
        assert not await getattr(limiter, call)("a", timeout=SHORT)
        assert SHORT <= time.monotonic() - began < LONG
        assert limiter.bucket_factory.target.count() == 0

    asyncio.run(main())
    gc.collect()  # a coroutine that was left unawaited would warn


@pytest.mark.parametrize("call", CALLS)
def test_the_factory_is_given_up_after_a_wait_as_well(call):
    async def main():
        factory = Slow()
        factory.target.put(RateItem("a", factory.target.now()))
        limiter = Limiter(factory)

        async def slow_from_now_on(name, weight=1):
            factory.stamp = LONG
            return RateItem(name, factory.target.now(), weight)

        factory.wrap_item, later = slow_from_now_on, factory.wrap_item
        waiter = asyncio.ensure_future(getattr(limiter, call)("a", timeout=SHORT))
        await asyncio.sleep(0)
        factory.wrap_item = later
        began = time.monotonic()
        assert not await waiter
        assert time.monotonic() - began < LONG

    asyncio.run(main())


@pytest.mark.parametrize("call", CALLS)
def test_timeout_zero_takes_what_is_free_however_many_steps_the_factory_awaits(call):
    async def main():
        limiter = Limiter(Slow(stamp=0.001, find=0.001))
        assert await getattr(limiter, call)("a", timeout=0)
        assert not await getattr(limiter, call)("a", timeout=0)

    asyncio.run(main())


@pytest.mark.parametrize("call", CALLS)
def test_the_factorys_own_timeout_error_is_passed_on(call):
    class Broken(Slow):
        async def get(self, item):
            raise asyncio.TimeoutError

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await getattr(Limiter(Broken()), call)("a", timeout=LONG)

    asyncio.run(main())


def test_a_cancelled_caller_cancels_its_factory():
    async def main():
        begun, ended = asyncio.Event(), asyncio.Event()

        class Noted(Slow):
            async def get(self, item):
                begun.set()
                try:
                    await asyncio.sleep(LONG)
                finally:
                    ended.set()

        task = asyncio.ensure_future(Limiter(Noted()).try_acquire("a", timeout=LONG))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()

    asyncio.run(main())


def test_a_verdict_over_a_factory_that_is_closed_unawaited_leaves_nothing():
    Limiter(Slow()).try_acquire("a", timeout=LONG).close()
    gc.collect()


def test_a_forgotten_verdict_over_a_factory_is_warned_of_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Limiter(Slow()).try_acquire("a", timeout=LONG)
        gc.collect()
    assert [str(warning.message) for warning in caught] == [
        "coroutine 'try_acquire('a')' was never awaited"
    ]


def test_a_sync_factory_that_takes_longer_than_the_timeout_gets_no_wait_on_top():
    class Blocking(BucketFactory):
        bucket = InMemoryBucket([Rate(1, 86_400_000)])

        def wrap_item(self, name, weight=1):
            time.sleep(SHORT)
            return RateItem(name, self.bucket.now(), weight)

        def get(self, item):
            return self.bucket

    limiter = Limiter(Blocking())
    assert limiter.try_acquire("a", timeout=SHORT / 2)
    assert not limiter.try_acquire("a", timeout=SHORT / 2)


@pytest.mark.parametrize("method", ["try_acquire", "acquire", "check"])
def test_a_factory_that_stamps_no_item_is_named(method):
    class Forgetful(BucketFactory):
        def wrap_item(self, name, weight=1):
            return None

        def get(self, item):
            raise NotImplementedError

    with pytest.raises(WrongType, match="wrap_item returns must be a RateItem, got None"):
        getattr(Limiter(Forgetful()), method)("a")


class Registry(BucketFactory):
    """Finds buckets in a dict, and makes those that are missing, without a lock of its own."""

    def __init__(self):
        self.by_name, self.inside, self.most = {}, 0, 0

    def wrap_item(self, name, weight=1):
        return RateItem(name, time.monotonic_ns() // 1_000_000, weight)

    def get(self, item):
        self.inside += 1
        self.most = max(self.most, self.inside)
        bucket = self.by_name.get(item.name)
        if bucket is None:
            for _ in range(20):
                os.sched_yield()  # others may come
            self.by_name[item.name] = bucket = InMemoryBucket([Rate(1, 3_600_000)])
        self.inside -= 1
        return bucket


def ask(limiter, name):
    return limiter.try_acquire(name, blocking=False)


def ask_in_loop(limiter, name):
    return asyncio.run(limiter.try_acquire_async(name, blocking=False))


def ask_for_all(limiter, name):
    return bool(limiter.acquire(name, blocking=False))


@pytest.mark.parametrize("how", [ask, ask_in_loop, ask_for_all])
def test_a_factory_is_asked_by_one_thread_at_a_time(how):
    factory, got = Registry(), []
    limiter, start = Limiter(factory), threading.Barrier(6)

    def work():
        for name in range(20):
            start.wait()
            got.append(how(limiter, str(name)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert factory.most == 1
    assert sum(got) == 20


@pytest.mark.parametrize("is_async", [False, True])
def test_who_waits_for_another_thread_in_the_factory_is_refused_in_time(is_async):
    entered, go_on = threading.Event(), threading.Event()

    class Stuck(Registry):
        def get(self, item):
            if item.name == "stuck":
                entered.set()
                assert go_on.wait(30)
            return super().get(item)

    limiter = Limiter(Stuck())
    first = threading.Thread(target=limiter.try_acquire, args=("stuck",))
    first.start()
    assert entered.wait(30)
    if is_async:
        assert asyncio.run(limiter.try_acquire_async("other", timeout=0.05)) is False
    else:
        assert limiter.try_acquire("other", timeout=0.05) is False
    assert limiter.acquire("other", timeout=0.05).failing_rate is not None
    answers = []
    at_once = threading.Thread(
        target=lambda: answers.append(limiter.try_acquire("other", timeout=0))
    )
    at_once.start()
    go_on.set()
    first.join()
    at_once.join()
    assert answers == [True]  # it has waited for its turn, as it takes what is free


def test_a_factory_may_use_its_own_limiter():
    class Counting(Registry):
        def get(self, item):
            if item.name != "all":
                assert limiter.try_acquire("all", blocking=False)
            return super().get(item)

    limiter = Limiter(Counting())
    assert limiter.try_acquire("one", blocking=False) is True


def test_a_factory_that_waits_at_its_own_limiter_holds_nobody_up_there():
    class Own(InMemoryBucket):
        def put(self, item):
            return super().put(item)

    class Gated(Registry):
        def get(self, item):
            if item.name not in self.by_name:
                if item.name != "new":
                    assert limiter.try_acquire("new")  # no more than so many new names
                self.by_name[item.name] = Own([Rate(2, 100)])
            return self.by_name[item.name]

    limiter = Limiter(Gated())
    names = ["new" if number % 2 else f"user {number}" for number in range(8)]
    callers = [threading.Thread(target=limiter.try_acquire, args=(name,)) for name in names]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


def test_a_task_has_its_turn_at_a_factory_that_threads_are_busy_with():
    class Slow(Registry):
        def get(self, item):
            time.sleep(0.002)
            return self.by_name.setdefault(item.name, InMemoryBucket([Rate(10**6, 1000)]))

    limiter, over = Limiter(Slow()), threading.Event()

    def work():
        while not over.is_set():
            limiter.try_acquire("a")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert asyncio.run(limiter.try_acquire_async("b")) is True
    finally:
        over.set()
        for thread in threads:
            thread.join()
