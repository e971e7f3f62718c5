"""`as_decorator` on everything that can be called."""

import asyncio
import contextlib
import functools
from unittest import mock

import pytest

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, Rate
from pyrate_limiter.errors import AsyncBucketInSyncCode, RateLimitExceeded, WrongType
from pyrate_limiter.testing import ManualClock, sleeping_advances


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def limiter(clock):
    bucket = InMemoryBucket([Rate(1, 1000)])
    bucket._clock = clock
    return Limiter(bucket)


async def values(stop):
    for value in range(stop):
        yield value


class AsyncCall:
    async def __call__(self):
        return 5


class AsyncGeneratorCall:
    async def __call__(self):
        yield 5


def waits(clock, limiter, use):
    """What two uses gave, the second of which has to wait for room without blocking the loop."""

    async def twice():
        with sleeping_advances(clock):
            first = await use()
            assert not await limiter.check_async()
            return first, await use()

    with mock.patch("pyrate_limiter.limiter.sleep", side_effect=AssertionError("blocked")):
        answers = asyncio.run(twice())
    assert clock.ms > 1000
    return answers


def test_an_async_generator_waits_before_its_first_value(limiter, clock):
    limited = limiter.as_decorator()(values)

    async def use():
        return [value async for value in limited(3)]

    assert waits(clock, limiter, use) == ([0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize(
    "function", [AsyncCall(), functools.partial(AsyncCall()), mock.AsyncMock(return_value=5)]
)
def test_what_is_awaited_when_it_is_called_waits_in_the_loop(limiter, clock, function):
    assert waits(clock, limiter, limiter.as_decorator()(function)) == (5, 5)


def test_an_object_whose_call_is_an_async_generator_is_iterated(limiter, clock):
    limited = limiter.as_decorator()(AsyncGeneratorCall())

    async def use():
        return [value async for value in limited()]

    assert waits(clock, limiter, use) == ([5], [5])


def test_a_decorated_async_generator_takes_what_is_sent_and_thrown(limiter):
    seen = []

    @limiter.as_decorator()
    async def echo():
        try:
            while True:
                try:
                    seen.append((yield len(seen)))
                except KeyError as error:
                    seen.append(error.args[0])
        finally:
            seen.append("closed")

    async def main():
        units = echo()
        assert await units.asend(None) == 0
        assert await units.asend("sent") == 1
        assert await units.athrow(KeyError("thrown")) == 2
        await units.aclose()

    asyncio.run(main())
    assert seen == ["sent", "thrown", "closed"]


def test_an_error_in_a_decorated_async_generator_is_the_callers(limiter):
    @limiter.as_decorator()
    async def broken():
        yield 1
        raise ZeroDivisionError

    async def main():
        with pytest.raises(ZeroDivisionError):
            async for _ in broken():
                pass

    asyncio.run(main())


def test_an_async_generator_that_can_never_be_admitted_says_so():
    limited = Limiter(Rate(1, 1000)).as_decorator(weight=2)(values)

    async def main():
        with pytest.raises(RateLimitExceeded, match="can never admit weight=2"):
            await limited(1).__anext__()

    asyncio.run(main())


def test_without_parentheses_the_decorator_says_what_to_write(limiter):
    with pytest.raises(WrongType, match=r"@limiter\.as_decorator\(name='search'\)"):

        @limiter.as_decorator
        def search():
            raise NotImplementedError


def test_a_name_without_its_keyword_is_refused(limiter):
    with pytest.raises(WrongType, match=r"by name.*got 'search'"):
        limiter.as_decorator("search")


def test_above_a_classmethod_it_says_where_to_stand(limiter):
    with pytest.raises(WrongType, match="below @classmethod"):

        class Service:
            @limiter.as_decorator()
            @classmethod
            def method(cls):
                raise NotImplementedError


def test_a_sync_function_over_an_async_bucket_is_named():
    limiter = Limiter(BucketAsyncWrapper(InMemoryBucket([Rate(1, 1000)])))

    @limiter.as_decorator()
    def download():
        raise NotImplementedError

    with pytest.raises(AsyncBucketInSyncCode, match=r"make .*download an `async def`"):
        download()
    with pytest.raises(AsyncBucketInSyncCode, match=r"make .*partial.* an `async def`"):
        limiter.as_decorator()(functools.partial(print, "x"))()


def test_generators_and_context_managers_are_limited_when_called(limiter, clock, monkeypatch):
    monkeypatch.setattr("pyrate_limiter.limiter.sleep", lambda s: clock.advance(int(s * 1000) + 1))

    @limiter.as_decorator()
    @contextlib.contextmanager
    def opened():
        yield 3

    @limiter.as_decorator()
    def numbers():
        yield from range(3)

    with opened() as value:
        assert value == 3
    assert list(numbers()) == [0, 1, 2]
    assert clock.ms > 1000
