"""What answers in a server's place: all that `on_error` can say, for sync and async callers."""

import asyncio

import pytest

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Rate, RateItem
from pyrate_limiter._core.driver import run_async, run_blocking
from pyrate_limiter.buckets.remote import fallback as module
from pyrate_limiter.buckets.remote.fallback import Fallback, check_on_error
from pyrate_limiter.errors import WrongType
from pyrate_limiter.testing import ManualClock

RATES = [Rate(2, 1000)]


def in_memory(rates=RATES):
    bucket = InMemoryBucket(rates)
    bucket._clock = ManualClock(5000)
    return bucket


def in_a_thread(program):
    return run_blocking(program)


def in_a_loop(program):
    return asyncio.run(run_async(program))


def awaited(rates=RATES):
    return BucketAsyncWrapper(in_memory(rates))


WORLDS = [(in_a_thread, in_memory), (in_a_loop, in_memory), (in_a_loop, awaited)]


def item(weight=1):
    return RateItem("a", 77, weight)


@pytest.mark.parametrize("on_error", ["raise", "allow", "deny", in_memory, in_memory()])
@pytest.mark.parametrize("is_async", [False, True])
def test_each_of_them_is_taken(on_error, is_async):
    assert check_on_error(on_error, is_async=is_async) is on_error


@pytest.mark.parametrize("on_error", ["permit", "", None, 5, RATES])
def test_anything_else_is_refused_by_name(on_error):
    with pytest.raises(WrongType, match="on_error") as caught:
        check_on_error(on_error, is_async=True)
    assert repr(on_error) in str(caught.value)


def test_an_async_bucket_takes_no_sync_servers_place():
    async def main():
        bucket = awaited()
        assert check_on_error(bucket, is_async=True) is bucket
        with pytest.raises(WrongType, match="a sync bucket"):
            check_on_error(bucket, is_async=False)

    asyncio.run(main())


@pytest.mark.parametrize("on_error", [in_memory, in_memory()])
def test_where_no_bucket_can_take_the_place_that_is_said(on_error):
    with pytest.raises(WrongType, match="'raise', 'allow' or 'deny'"):
        check_on_error(on_error, is_async=False, buckets=False)


def test_words_decide_without_a_bucket():
    decision, units = run_blocking(Fallback("allow").decide(RATES, item(), 0, None, 250))
    assert decision.allowed
    assert units is None
    decision, units = run_blocking(Fallback("deny").decide(RATES, item(), 0, None, 250))
    assert (decision.failing_rate, decision.retry_after_ms) == (RATES[0], 250)
    assert units is None


@pytest.mark.parametrize(("run", "make"), WORLDS)
def test_a_bucket_decides_by_its_own_clock_and_holds_the_units(run, make):
    fallback, asked = Fallback(make), item(2)
    decision, units = run(fallback.decide(RATES, asked, 0, None, 250))
    assert decision.allowed
    assert units.reservation.item.timestamp == 5000
    assert asked.timestamp == 77
    decision, nothing = run(fallback.decide(RATES, item(), 0, None, 250))
    assert (decision.retry_after_ms, nothing) == (1001, None)
    assert run(units.cancel())
    assert run(fallback.decide(RATES, item(2), 0, None, 250))[0].allowed


@pytest.mark.parametrize(("run", "make"), WORLDS)
def test_a_look_stores_nothing(run, make):
    fallback = Fallback(make)
    for _ in range(3):
        decision, units = run(fallback.decide(RATES, item(2), -1, None, 250))
        assert decision.allowed
        assert units is None


@pytest.mark.parametrize(("run", "make"), WORLDS)
def test_units_of_a_later_moment_are_confirmed_there(run, make):
    fallback = Fallback(make)
    assert run(fallback.decide(RATES, item(2), 0, None, 250))[0].allowed
    decision, units = run(fallback.decide(RATES, item(), 60_000, 0, 250))
    assert decision.wait_ms == 1001
    assert units.pause() == pytest.approx(1.001)
    clock = fallback.bucket(RATES)
    clock = getattr(clock, "bucket", clock)._clock
    clock.advance(1001)
    assert run(units.confirm(0)).allowed


@pytest.mark.parametrize(("run", "make"), WORLDS)
def test_units_whose_room_others_have_taken_are_refused_there(run, make):
    fallback = Fallback(make)
    assert run(fallback.decide(RATES, item(2), 0, None, 250))[0].allowed
    _, units = run(fallback.decide(RATES, item(), 60_000, 0, 250))
    bucket = fallback.bucket(RATES)
    bucket = getattr(bucket, "bucket", bucket)
    bucket.flush()
    bucket._clock.advance(1001)
    assert bucket.put(RateItem("b", bucket.now(), 2))
    refused = run(units.confirm(0))
    assert (refused.allowed, refused.retry_after_ms) == (False, 1001)
    assert not run(units.cancel())


def test_each_key_has_a_bucket_of_its_own_made_when_it_is_first_asked_for():
    made = []
    fallback = Fallback(lambda rates: made.append(rates) or in_memory(rates))
    for key in ("a", "b", "a"):
        run_blocking(fallback.decide(RATES, item(), 0, None, 1, key))
    assert made == [RATES, RATES]
    assert fallback.bucket(RATES, "a").count() == 2


def test_a_bucket_that_is_given_serves_all_keys():
    given = in_memory()
    fallback = Fallback(given)
    assert fallback.bucket(RATES, "a") is fallback.bucket(RATES, "b") is given
    assert fallback.retire()  # nothing was made here
    assert not given.retired


def test_no_more_than_so_many_buckets_are_kept(monkeypatch):
    monkeypatch.setattr(module, "_MOST_MADE", 3)
    fallback = Fallback(in_memory)
    first = fallback.bucket(RATES, "0")
    for key in "123":
        fallback.bucket(RATES, key)
    assert len(fallback._made) == 1
    assert fallback.bucket(RATES, "0") is not first


def test_what_a_bucket_holds_by_its_own_clock_keeps_the_fallback_from_being_dropped():
    fallback = Fallback(in_memory)
    assert fallback.retire()
    run_blocking(fallback.decide(RATES, item(), 0, None, 1))
    assert not fallback.retire()
    fallback.bucket(RATES)._clock.advance(1001)
    assert fallback.retire()


class ByAnAsyncClock(InMemoryBucket):
    async def now(self):
        return 5000


def test_a_bucket_that_cannot_say_at_once_whether_it_is_idle_is_kept():
    async def main():
        for make in (awaited, ByAnAsyncClock):
            fallback = Fallback(make)
            await run_async(fallback.decide(RATES, item(), 0, None, 1))
            assert not fallback.retire()

    asyncio.run(main())
