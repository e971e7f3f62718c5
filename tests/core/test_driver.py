"""Programs: generators that yield effects, awaitables and plain values."""

import asyncio

import pytest

from pyrate_limiter._core.driver import (
    BlockingEffect,
    Effect,
    Sleep,
    run_async,
    run_blocking,
)


class Both(BlockingEffect):
    def block(self):
        return "blocked"

    async def wait(self):
        await asyncio.sleep(0)
        return "awaited"


class OnlyAwaited(Effect):
    async def wait(self):
        return "in the loop"


class Awaits(Effect):
    def __init__(self, awaitable):
        self.awaitable = awaitable


async def value(of):
    await asyncio.sleep(0)
    return of


def program(*steps):
    got = []
    for step in steps:
        got += [(yield step)]
    return got


def test_in_a_thread_each_effect_blocks_and_plain_values_come_back():
    slept = []
    steps = program(Both(), 5, None, Sleep(2.5))
    assert run_blocking(steps, slept.append) == ["blocked", 5, None, None]
    assert slept == [2.5]


def test_in_an_event_loop_each_effect_is_awaited():
    steps = program(Both(), OnlyAwaited(), value(3), 5, None, Sleep(0))
    assert asyncio.run(run_async(steps)) == ["awaited", "in the loop", 3, 5, None, None]


@pytest.mark.parametrize("first", [OnlyAwaited(), value(3)], ids=["effect", "awaitable"])
def test_what_can_only_be_awaited_leaves_the_rest_to_the_event_loop(first):
    rest = run_blocking(program(Both(), first, Both()), pytest.fail)
    blocked, _, awaited = asyncio.run(rest)
    assert (blocked, awaited) == ("blocked", "awaited")


class Fails(Both):
    def block(self):
        raise OSError

    async def wait(self):
        raise OSError


def gives_back(given_back, step):
    try:
        yield step
    except OSError:
        given_back.append("all")
        raise KeyError from None


@pytest.mark.parametrize("run", [run_blocking, lambda steps: asyncio.run(run_async(steps))])
def test_an_error_of_an_effect_is_raised_in_the_program(run):
    given_back = []
    with pytest.raises(KeyError):
        run(gives_back(given_back, Fails()))
    assert given_back == ["all"]


def test_a_cancellation_reaches_the_program_that_has_something_to_give_back():
    given_back = []

    def holds():
        try:
            yield Sleep(60)
        finally:
            given_back.append("all")

    async def main():
        task = asyncio.ensure_future(run_async(holds()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert given_back == ["all"]


def test_the_rest_of_a_program_that_is_closed_closes_what_it_was_about_to_await():
    for first in (Awaits(value(1)), value(1)):  # each would warn if it were forgotten
        run_blocking(program(first)).close()
