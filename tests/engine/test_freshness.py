"""Units that the bucket has stored to be used at once are not used by others, or later."""

import asyncio

import pytest

from pyrate_limiter import Limiter, Rate, RateItem
from pyrate_limiter._engine.reserving import Reserving
from pyrate_limiter._engine.wait_options import WaitOptions
from pyrate_limiter._engine.wait_queue import join
from pyrate_limiter._engine.waiter import Held, tickets
from pyrate_limiter.abstracts.reservation import Reservation
from tests.support.doubles import Remote, World

INTERVAL = 100


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def remote(world, limit=1, **options):
    return world.on(Remote([Rate(limit, INTERVAL)], **options))


def at_the_front(bucket, world):
    """A call that has come at this moment, and the queue that it is at the front of."""
    terms = WaitOptions(blocking=True, seconds=-1, buffer_ms=0, known=False)
    item, acquisition = RateItem("a", world.ms), Limiter(bucket)._acquisition
    call = Reserving(acquisition, bucket, item, terms, next(tickets))
    call._queue = join(bucket, call._waiter, call._brought(None))
    return call, call._queue


# When the question was sent and when its answer was here, in ms from the caller's coming; and how
# much later the caller may use it.
@pytest.mark.parametrize(
    ("asked", "made", "used", "allowed"),
    [
        (0, 50, 50, True),  # a slow link: the caller has waited for it
        (10, 710, 710, True),
        (10, 710, 716, False),  # it was woken late
        (-700, 1, 1, False),  # the answer was held up; it was somebody else's, who has left
        (-700, -1, 0, False),
        (-4, -2, 1, True),
        (-6, -2, 0, False),
        (-1, 1, 5, False),
    ],
)
def test_units_are_as_old_as_the_question_but_for_those_who_waited_for_the_answer(
    world, asked, made, used, allowed
):
    call, _ = at_the_front(remote(world), world)
    came = world.monotonic()
    times = came + asked / 1000, came + made / 1000
    held = Held(Reservation(RateItem("r", 0)), 0.0, *times)
    assert call._may_use(held, came + used / 1000) is allowed
    call._leave()


def test_a_newcomer_asks_anew_where_an_answer_was_held_up_until_its_waiter_had_left(world):
    """As after a SIGSTOP between the server's answer and its reading."""

    class Stopped(Remote):
        others = ()

        async def confirm_several(self, reservations, now, max_wait_ms=0):
            decisions = [self.inner.confirm(it, now, max_wait_ms) for it in reservations]
            if len(reservations) > 1 and not self.others:
                world.advance(700)
                self.others = [asyncio.ensure_future(arrive())]
                leaver.cancel()
            return decisions

    async def arrive():
        came = world.ms
        assert await limiter.try_acquire_async("new")
        return came

    async def main():
        nonlocal leaver
        assert await limiter.try_acquire_async("before", 2)
        first, leaver = (
            asyncio.ensure_future(limiter.try_acquire_async(name)) for name in ("first", "leaver")
        )
        # The loop is held up, so that both are due when the first one looks.
        asyncio.get_running_loop().call_later(0.09, world.advance, 50)
        assert await first
        with pytest.raises(asyncio.CancelledError):
            await leaver
        (newcomer,) = bucket.others
        came = await newcomer
        assert bucket.peek(0).timestamp >= came  # whoever's name it goes by
        assert bucket.count() == 4  # nothing of the leaver's is left

    leaver = None
    bucket = world.on(Stopped([Rate(2, INTERVAL)]))
    limiter = Limiter(bucket, buffer_ms=0)
    world.run(main())


@pytest.mark.parametrize("trip_ms", [2, 50, 300])
def test_on_a_slow_link_all_get_through_in_time_whoever_comes_and_goes(world, trip_ms):
    """Newcomers all the time; every fourth waiter leaves while its answer is on its way."""

    async def call(number):
        await asyncio.sleep(number * 0.02)
        asking = limiter.try_acquire_async(str(number))
        if number % 4:
            return await asking
        try:
            return await asyncio.wait_for(asking, trip_ms * 1.5 / 1000)
        except asyncio.TimeoutError:
            return False

    async def main():
        began = world.ms
        admitted = await asyncio.gather(*map(call, range(40)))
        return sum(admitted), world.ms - began

    bucket = remote(world, 4, trip_ms=trip_ms)
    limiter = Limiter(bucket, buffer_ms=0)
    admitted, took = world.run(main())
    assert admitted >= 30
    # The first four go at once, and four in each interval after that.
    assert took <= admitted / 4 * (INTERVAL + 1) + 6 * trip_ms + 20 * 40
    assert bucket.calls <= 6 * 40
