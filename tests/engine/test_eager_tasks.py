"""Under a loop whose tasks begin before whoever makes them goes on."""

import asyncio

import pytest

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, MonotonicAsyncClock, Rate
from tests.support.backends import ALL, bucket_of
from tests.support.eager import _task_factory, eager_task_factory

FACTORIES = {"own": _task_factory, "Python's": eager_task_factory}
SECONDS = 60  # far more than any of it takes


async def all_admitted(limiter, callers=7):
    asyncio.get_running_loop().set_task_factory(eager_task_factory)
    tasks = [asyncio.create_task(limiter.try_acquire_async("k")) for _ in range(callers)]
    return await asyncio.wait_for(asyncio.gather(*tasks), SECONDS) == [True] * callers


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_eager_task_has_begun_when_it_is_made(factory):
    async def main():
        asyncio.get_running_loop().set_task_factory(FACTORIES[factory])
        seen, creator = [], asyncio.current_task()

        async def work(pause):
            me = asyncio.current_task()
            seen.append("begun")
            await asyncio.sleep(pause)
            assert asyncio.current_task() is me is not creator
            return "answer"

        async def fail():
            raise KeyError("k")

        task, other = asyncio.create_task(work(0.001)), asyncio.create_task(work(60))
        failed = asyncio.create_task(fail())
        assert seen == ["begun"] * 2
        assert asyncio.current_task() is creator
        other.cancel()
        answers = await asyncio.gather(task, other, failed, return_exceptions=True)
        assert answers[0] == "answer"
        assert [type(answer) for answer in answers[1:]] == [asyncio.CancelledError, KeyError]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ALL)
def test_tasks_that_begin_at_once_are_admitted_in_their_turn(kind, tmp_path):
    async def main():
        async with bucket_of(kind, [Rate(3, 200)], tmp_path) as bucket:
            return await all_admitted(Limiter(bucket))

    assert asyncio.run(main())


def test_tasks_that_begin_at_once_find_their_way_through_a_wrapper():
    async def main():
        return await all_admitted(Limiter(BucketAsyncWrapper(InMemoryBucket([Rate(3, 200)]))))

    assert asyncio.run(main())


def test_tasks_that_begin_at_once_may_await_the_clock():
    async def main():
        bucket = InMemoryBucket([Rate(3, 200)])
        bucket._clock = MonotonicAsyncClock()
        return await all_admitted(Limiter(bucket))

    assert asyncio.run(main())


@pytest.mark.parametrize("kind", ALL)
def test_tasks_that_begin_at_once_may_give_up(kind, tmp_path):
    async def main():
        async with bucket_of(kind, [Rate(1, 60_000)], tmp_path) as bucket:
            limiter = Limiter(bucket)
            assert await all_admitted(limiter, 1)
            tasks = [
                asyncio.create_task(limiter.try_acquire_async("k", timeout=0.05)) for _ in range(5)
            ]
            gone = asyncio.create_task(limiter.try_acquire_async("k"))
            gone.cancel()
            answers = await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)
            with pytest.raises(asyncio.CancelledError):
                await gone
            return answers

    assert asyncio.run(main()) == [False] * 5
