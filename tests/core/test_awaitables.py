"""What has to be awaited before it can be used."""

import asyncio
import inspect

import pytest

from pyrate_limiter._core.awaitables import Pending, discard, then


async def value(number):
    await asyncio.sleep(0)
    return number


def double(number):
    return 2 * number


def test_a_value_is_used_at_once():
    assert then(4, double) == 8


@pytest.mark.parametrize("use", [double, lambda number: value(2 * number)], ids=["now", "later"])
def test_an_awaitable_is_used_once_it_is_there(use):
    async def main():
        assert await then(then(value(4), use), use) == 16
        assert await asyncio.gather(then(value(4), use), then(value(5), use)) == [8, 10]
        assert await asyncio.create_task(then(value(6), use)) == 12
        return then(value(7), use)

    assert asyncio.run(asyncio.run(main())) == 14


def test_what_is_dropped_closes_what_it_would_have_awaited():
    first = value(4)
    whole = then(then(first, double), double)
    discard(whole)
    assert inspect.getcoroutinestate(first) == inspect.CORO_CLOSED
    discard(whole)
    with pytest.raises(RuntimeError, match="already awaited"):
        whole.send(None)


def test_what_has_begun_ends_where_it_is_closed():
    ended = []

    async def first():
        try:
            await asyncio.sleep(20)
        finally:
            ended.append("here")

    async def main():
        whole = then(first(), double)
        whole.send(None)
        whole.close()
        assert ended == ["here"]

    asyncio.run(main())


def test_an_error_is_raised_where_it_waits():
    async def main():
        whole = then(value(4), double)
        whole.send(None)
        with pytest.raises(KeyError):
            whole.throw(KeyError("a"))

    asyncio.run(main())


@pytest.mark.parametrize("other", [None, 5, "text"])
def test_what_is_no_awaitable_is_left_alone(other):
    discard(other)
    discard(Pending(value(4), other))
