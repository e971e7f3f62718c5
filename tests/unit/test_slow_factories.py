"""A caller's timeout counts the time that its factory takes."""

import asyncio
import gc
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
