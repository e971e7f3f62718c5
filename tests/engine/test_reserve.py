"""`Limiter.reserve`: the moment of a call, without sleeping until then."""

import asyncio
import contextlib
import math
import pickle
import threading
import time

import pytest

from pyrate_limiter import (
    BucketAsyncWrapper,
    BucketFactory,
    Decision,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    Reservation,
    SingleBucketFactory,
    SQLiteBucket,
    StateBucket,
)
from pyrate_limiter._engine import reserved
from pyrate_limiter._engine.wait_queue import queue_at
from pyrate_limiter.errors import (
    AsyncBucketInSyncCode,
    InvalidWeight,
    OutOfRange,
    WrongType,
)
from pyrate_limiter.testing import ManualClock
from tests.support.doubles import ListBucket
from tests.support.kinds import KINDS, ends
from tests.support.redis_servers import async_client, fresh_key, shared_url

HOUR = 3_600_000


@pytest.fixture
def make(tmp_path):
    with ends(tmp_path) as made:
        yield made.make


def limiter_on(bucket, **options):
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False), **options)


def until(is_so):
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiting(limiter, *names, weight=1):
    """Threads that wait at the limiter's bucket, in this order; and the names of those who went."""
    went, threads = [], []

    def wait(name):
        assert limiter.try_acquire(name, weight)
        went.append(name)

    bucket = limiter.bucket_factory.bucket
    for number, name in enumerate(names, 1):
        threads.append(threading.Thread(target=wait, args=(name,), daemon=True))
        threads[-1].start()
        until(lambda number=number: (queue := queue_at(bucket)) and queue.size == number)
    until(lambda: queue_at(bucket).blocked)
    return went, threads


# What it answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_has_the_next_moment_however_far_ahead(make, kind):
    bucket = make(kind, [Rate(2, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    moments = [limiter.reserve("a") for _ in range(6)]
    assert all(moments)
    assert [moment.wait for moment in moments[:2]] == [0, 0]
    stamps = [moment.item.timestamp for moment in moments]
    assert stamps == sorted(stamps)
    assert moments[2].wait > 0
    assert HOUR < stamps[5] - stamps[0] + HOUR / 2 < 3 * HOUR
    assert not limiter.try_acquire("b", blocking=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_says_why_and_stores_nothing(make, kind):
    bucket = make(kind, [Rate(2, HOUR)])
    limiter = limiter_on(bucket)
    assert limiter.reserve("a", 2)
    before = bucket.count()
    refused = limiter.reserve("a", max_wait=0.001)
    assert not refused
    assert isinstance(refused, Decision)
    assert refused.failing_rate == bucket.rates[0]
    assert 1 < refused.retry_after_ms <= HOUR + 1
    assert refused.wait == 0
    assert refused.cancel() is False
    assert not limiter.reserve("a", max_wait=0)
    never = limiter.reserve("a", 3)
    assert (bool(never), never.retry_after_ms) == (False, None)
    assert bucket.count() == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cancelled_is_there_for_others(make, kind):
    bucket = make(kind, [Rate(2, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.reserve("a", 2)
    first, second = limiter.reserve("a", 2), limiter.reserve("a", 2)
    assert 0 < first.wait < second.wait
    assert second.cancel() is True
    assert second.cancel() is False
    again = limiter.reserve("a", 2)
    assert first.item.timestamp < again.item.timestamp <= second.item.timestamp + HOUR / 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "gcra" not in kind])
def test_what_may_run_now_can_be_given_back_too(make, kind):
    limiter = limiter_on(make(kind, [Rate(1, HOUR)]))
    moment = limiter.reserve("a")
    assert moment.wait == 0
    assert moment.cancel() is True
    assert limiter.try_acquire("a", blocking=False)


def test_weight_zero_may_run_now_and_stores_nothing():
    bucket = InMemoryBucket([Rate(1, HOUR)])
    moment = limiter_on(bucket).reserve("a", 0)
    assert (bool(moment), moment.wait, moment.cancel(), bucket.count()) == (True, 0, False, 0)


@pytest.mark.parametrize("make_bucket", [InMemoryBucket, StateBucket])
def test_units_whose_holder_is_gone_count_at_their_moment_and_expire_with_their_window(make_bucket):
    bucket = make_bucket([Rate(1, HOUR)])
    clock = bucket._clock = ManualClock(10**9)
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.try_acquire("a")
    moment = limiter.reserve("a")
    clock.advance(moment.wait_ms + 120_000)
    assert not limiter.try_acquire("b", blocking=False)
    clock.advance(HOUR - 120_001)
    assert not limiter.try_acquire("b", blocking=False)
    clock.advance(2)
    assert limiter.try_acquire("b", blocking=False)


def test_a_bucket_with_put_alone_admits_now_or_refuses():
    limiter = limiter_on(ListBucket([Rate(1, HOUR)]))
    moment = limiter.reserve("a")
    assert (bool(moment), moment.wait, moment.cancel()) == (True, 0, False)
    refused = limiter.reserve("a", max_wait=1e9)
    assert not refused
    assert refused.failing_rate == Rate(1, HOUR)


def test_each_key_has_moments_of_its_own():
    limiter = Limiter.per_key(Rate(1, HOUR))
    assert [limiter.reserve(name).wait for name in "ab"] == [0, 0]
    later = limiter.reserve("a")
    assert later.wait > 3500
    assert limiter.reserve("b").wait > 3500
    assert later.cancel()
    limiter.close()


def test_keys_in_a_file_have_moments_of_their_own(tmp_path):
    with Limiter.per_key(Rate(1, HOUR), bucket=SQLiteBucket.per_key(tmp_path / "a.db")) as limiter:
        assert [limiter.reserve(name).wait for name in "ab"] == [0, 0]
        later = limiter.reserve("a")
        assert later.wait > 3500
        assert later.cancel()


# Who stands before --------------------------------------------------------------------------------


SOME = [kind for kind in KINDS if kind != "fixed window"]


@contextlib.contextmanager
def in_line(limiter, *weights, seconds=20):
    """Threads that wait for an hour's units, as long as the block lasts, in this order."""
    bucket, ends = limiter.bucket_factory.bucket, threading.Event()
    threads = []

    def wait(name, weight):
        async def until_the_end():
            waits = asyncio.ensure_future(limiter.try_acquire_async(name, weight))
            while not ends.is_set() and not waits.done():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.005)
            waits.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waits

        asyncio.run(until_the_end())

    for number, weight in enumerate(weights, 1):
        threads.append(threading.Thread(target=wait, args=(f"waits {number}", weight)))
        threads[-1].start()
        until(lambda number=number: (queue := queue_at(bucket)) and queue.size == number)
    until(lambda: queue_at(bucket).blocked)
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join(seconds)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("ahead", [True, False])
def test_it_stands_behind_those_who_wait(make, kind, ahead):
    bucket = make(kind, [Rate(1, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0, reserve_ahead=ahead)
    assert limiter.try_acquire("first")
    with in_line(limiter, 1, 1, 1):
        moment, after_it = limiter.reserve("task"), limiter.reserve("task")
        assert 3 * HOUR < moment.wait_ms + 600_000 < 4.5 * HOUR
        assert moment.item.timestamp < after_it.item.timestamp
        assert not limiter.reserve("task", max_wait=3 * HOUR / 1000)
    assert moment.cancel()
    assert after_it.cancel()
    if "gcra" not in kind:  # a state counts what is free in front of others
        until(lambda: bucket.count() == 1)


def test_those_who_wait_go_in_their_order_when_somebody_has_reserved_behind_them():
    limiter = limiter_on(InMemoryBucket([Rate(2, 100)]))
    assert limiter.try_acquire("first", 2)
    names = [str(number) for number in range(9)]
    went, threads = waiting(limiter, *names)
    assert all(limiter.reserve("task") for _ in range(3))
    for thread in threads:
        thread.join(30)
    assert went == names


def test_a_heavy_waiter_is_not_passed_by_a_light_task():
    bucket = InMemoryBucket([Rate(3, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.try_acquire("first", 3)
    with in_line(limiter, 2, 2, 2):
        moment = limiter.reserve("task")
        units = [(unit.name, unit.timestamp) for unit in bucket.items]
        assert [name for name, _ in units].count("waits 3") == 2
        assert max(at for _, at in units) == moment.item.timestamp
        assert moment.wait_ms + 600_000 > 3 * HOUR


def test_a_long_line_is_reserved_for_in_several_calls(monkeypatch):
    monkeypatch.setattr(reserved, "MOST_ITEMS", 2)
    bucket = InMemoryBucket([Rate(1, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.try_acquire("first")
    with in_line(limiter, 1, 1, 1):
        assert limiter.reserve("task").wait_ms - HOUR / 2 > 3 * HOUR
        assert bucket.count() == 5


def test_where_those_before_it_need_longer_than_was_known_nothing_is_left_for_it():
    bucket = InMemoryBucket([Rate(5, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.try_acquire("first", 5)
    with in_line(limiter, 3, 3):
        refused = limiter.reserve("task", 3, max_wait=2.9 * HOUR / 1000)
        assert not refused
        assert refused.retry_after_ms > HOUR
        assert "task" not in {unit.name for unit in bucket.items}
    until(lambda: bucket.count() == 5)


def test_where_one_before_it_would_have_to_wait_longer_than_it_would_it_is_refused():
    bucket = InMemoryBucket([Rate(5, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.try_acquire("first", 5)
    with in_line(limiter, 3, 3, 3, 3):
        assert not limiter.reserve("task", 3, max_wait=3.5 * HOUR / 1000)
        assert "task" not in {unit.name for unit in bucket.items}
    until(lambda: bucket.count() == 5)


def test_behind_those_who_are_stamped_by_a_factory_it_goes_where_they_fit_at_the_earliest():
    class Stamping(SingleBucketFactory):
        def wrap_item(self, name, weight=1):
            return RateItem(name, self.bucket.now(), weight)

    bucket = InMemoryBucket([Rate(1, HOUR)])
    limiter = Limiter(Stamping(bucket, schedule_leak=False), buffer_ms=0)
    assert limiter.try_acquire("first")
    with in_line(limiter, 1, 1):
        assert 3 * HOUR <= limiter.reserve("task").wait_ms + 600_000 < 3.5 * HOUR
        assert bucket.count() == 2


def test_what_was_reserved_for_one_who_left_meanwhile_is_given_back():
    class Leaving(InMemoryBucket):
        def reserve_several(self, items, *terms):
            answers = super().reserve_several(items, *terms)
            queue = queue_at(self)
            if len(answers) > 1 and queue.size > 1:
                queue.leave(queue.last)
            return answers

    bucket = Leaving([Rate(1, HOUR)])
    limiter = limiter_on(bucket, buffer_ms=0)
    assert limiter.try_acquire("first")
    with in_line(limiter, 1, 1):
        assert limiter.reserve("task")
        assert sorted(unit.name for unit in bucket.items) == ["first", "task", "waits 1"]


def test_it_is_refused_at_once_where_those_before_it_need_longer():
    bucket = InMemoryBucket([Rate(1, HOUR)])
    limiter = limiter_on(bucket)
    assert limiter.try_acquire("first")
    stop = threading.Thread(target=limiter.try_acquire, args=("a",), kwargs={"timeout": 30})
    stop.daemon = True
    stop.start()
    until(lambda: (queue := queue_at(bucket)) and queue.blocked)
    refused = limiter.reserve("task", max_wait=HOUR / 1000 + 60)
    assert not refused
    assert refused.retry_after_ms > HOUR + 60_000
    assert bucket.count() == 1
    clock = bucket._clock = ManualClock(bucket.now() + 2 * HOUR)
    assert clock
    bucket.flush()
    queue_at(bucket).look_again()
    stop.join(30)
    assert not stop.is_alive()


@pytest.mark.parametrize("kind", SOME)
def test_those_who_wait_go_on_when_a_moment_before_them_is_cancelled(make, kind):
    limiter = limiter_on(make(kind, [Rate(1, 2000)]))
    began = time.monotonic()
    assert limiter.try_acquire("first")
    moments = [limiter.reserve("task") for _ in range(20)]  # for the next forty seconds
    went, threads = waiting(limiter, "a")
    for moment in reversed(moments):
        moment.cancel()
    threads[0].join(50)
    assert went == ["a"]
    assert 1.99 <= time.monotonic() - began < 38


def test_tasks_of_this_very_loop_may_stand_before_a_call_that_does_not_await():
    async def main():
        limiter = Limiter(Rate(1, 100))
        assert await limiter.try_acquire_async("first")
        went = []

        async def wait(name):
            assert await limiter.try_acquire_async(name)
            went.append((name, bucket.now()))

        bucket = limiter.bucket_factory.bucket
        tasks = [asyncio.ensure_future(wait(name)) for name in "abc"]
        await asyncio.sleep(0.01)
        moment = limiter.reserve("task")
        await asyncio.gather(*tasks)
        assert [name for name, _ in went] == ["a", "b", "c"]
        assert all(unit.timestamp <= moment.item.timestamp for unit in bucket.items)
        limiter.close()

    asyncio.run(main())


def test_waiters_that_give_up_leave_nothing_that_was_reserved_for_them():
    async def main():
        bucket = InMemoryBucket([Rate(1, HOUR)])
        limiter = limiter_on(bucket)
        assert await limiter.try_acquire_async("first")
        tasks = [asyncio.ensure_future(limiter.try_acquire_async(name)) for name in "abc"]
        await asyncio.sleep(0.01)
        moment = await limiter.reserve_async("task")
        assert moment.wait > 3 * HOUR / 1000
        assert bucket.count() == 5
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert [unit.name for unit in bucket.items] == ["first", "task"]
        assert await moment.cancel_async()
        assert bucket.count() == 1

    asyncio.run(main())


# Under asyncio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_under_asyncio(make, kind):
    bucket = make(kind, [Rate(1, HOUR)])

    async def main():
        limiter = limiter_on(bucket)
        assert (await limiter.reserve_async("a")).wait == 0
        later = await limiter.reserve_async("a")
        assert later.wait > 0
        assert not await limiter.reserve_async("a", max_wait=0.001)
        assert await later.cancel_async() is True
        assert await later.cancel_async() is False

    asyncio.run(main())


def test_an_async_bucket_has_to_be_awaited():
    bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, HOUR)]))
    limiter = limiter_on(bucket)
    with pytest.raises(AsyncBucketInSyncCode, match="reserve_async"):
        limiter.reserve("a")

    async def main():
        assert await (await limiter.reserve_async("a")).cancel_async()
        client = await async_client(shared_url())
        moment = await limiter_on(RedisBucket([Rate(1, HOUR)], client, fresh_key())).reserve_async()
        with pytest.raises(AsyncBucketInSyncCode, match="cancel_async"):
            moment.cancel()
        assert await moment.cancel_async()
        await client.aclose()

    asyncio.run(main())


# What does not work -------------------------------------------------------------------------------


@pytest.mark.parametrize("max_wait", [-1, -0.001, -math.inf, math.nan])
def test_a_time_that_makes_no_sense_is_refused(max_wait):
    with pytest.raises(OutOfRange, match="max_wait"):
        Limiter(Rate(1, 1000)).reserve("a", max_wait=max_wait)


@pytest.mark.parametrize("max_wait", ["1", [], object()])
def test_a_time_that_is_no_number_is_refused(max_wait):
    with pytest.raises(WrongType, match="max_wait"):
        Limiter(Rate(1, 1000)).reserve("a", max_wait=max_wait)


def test_weights_that_make_no_sense_are_refused():
    with pytest.raises(InvalidWeight):
        Limiter(Rate(1, 1000)).reserve("a", -1)
    with pytest.raises(WrongType):
        Limiter(Rate(1, 1000)).reserve("a", 1.5)


def test_for_ever_is_a_time_as_well():
    limiter = Limiter(Rate(1, HOUR))
    assert [bool(limiter.reserve("a", max_wait=wait)) for wait in (math.inf, 1e300, None)] == [
        True,
        True,
        True,
    ]


# What comes in between ----------------------------------------------------------------------------


def test_a_bucket_that_its_factory_has_dropped_is_asked_for_again():
    class Dropping(BucketFactory):
        def __init__(self):
            self.buckets = [InMemoryBucket([Rate(1, HOUR)]) for _ in range(2)]
            assert self.buckets[0].retire(self.buckets[0].now())

        def wrap_item(self, name, weight=1):
            return RateItem(name, self.buckets[-1].now(), weight)

        def get(self, item):
            return self.buckets.pop(0)

    assert Limiter(Dropping()).reserve("a")


def test_a_factory_that_takes_longer_than_the_caller_waits_has_reserved_nothing():
    class Slow(SingleBucketFactory):
        async def get(self, item):
            await asyncio.sleep(60)

    limiter = Limiter(Slow(InMemoryBucket([Rate(1, HOUR)]), schedule_leak=False))
    refused = asyncio.run(limiter.reserve_async("a", max_wait=0.01))
    assert not refused
    assert refused.cancel() is False


def test_two_who_cancel_at_once_give_back_once():
    bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, HOUR)]))
    bucket.bucket.is_async = None
    moment = asyncio.run(limiter_on(bucket).reserve_async("a"))
    bucket.bucket.is_async = True
    one, two = moment._give_back(), moment._give_back()
    next(one), next(two)
    assert moment._stored.pop()
    with pytest.raises(StopIteration) as ended:
        one.send(None)
    assert ended.value.value is False
    two.close()


def test_what_could_not_be_cancelled_can_be_cancelled_later():
    class Failing(InMemoryBucket):
        fails = True

        def cancel(self, reservation):
            if self.fails:
                raise OSError
            return super().cancel(reservation)

    bucket = Failing([Rate(1, HOUR)])
    moment = limiter_on(bucket).reserve("a")
    with pytest.raises(OSError):  # noqa: PT011 - any one
        moment.cancel()
    bucket.fails = False
    assert moment.cancel() is True


def test_a_moment_of_which_the_bucket_cannot_be_told_that_nobody_comes_back_is_cancelled():
    class Failing(StateBucket):
        def detach(self, reservation):
            raise OSError("lost")

    bucket = Failing([Rate(1, HOUR)])
    limiter = limiter_on(bucket)
    assert limiter.reserve("a")
    with pytest.raises(OSError, match="lost"):
        limiter.reserve("b")
    assert bucket.count() == 1


def test_a_task_that_is_cancelled_while_the_bucket_is_told_leaves_nothing_behind():
    begun = asyncio.Event()

    class Slow(StateBucket):
        async def detach(self, reservation):
            begun.set()
            await asyncio.sleep(20)

    async def main():
        bucket = Slow([Rate(1, HOUR)])
        limiter = limiter_on(bucket)
        assert await limiter.reserve_async("a")
        task = asyncio.ensure_future(limiter.reserve_async("b"))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return bucket.count()

    assert asyncio.run(main()) == 1


def test_a_task_that_is_cancelled_while_it_reserves_leaves_nothing_behind():
    class Slow(InMemoryBucket):
        blocks = True

        def __init__(self, rates):
            super().__init__(rates)
            self.entered, self.go_on = threading.Event(), threading.Event()

        def reserve(self, item, max_wait_ms=0, buffer_ms=None):
            self.entered.set()
            assert self.go_on.wait(20)
            return super().reserve(item, max_wait_ms, buffer_ms)

    async def main():
        task = asyncio.ensure_future(limiter_on(bucket).reserve_async("a"))
        await asyncio.get_running_loop().run_in_executor(None, bucket.entered.wait, 20)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    bucket = Slow([Rate(1, HOUR)])
    asyncio.run(main())
    bucket.go_on.set()
    until(lambda: bucket.entered.is_set() and bucket.count() == 0)


# The values ---------------------------------------------------------------------------------------


def test_what_comes_out_of_a_pickle_says_the_same():
    limiter = Limiter(Rate(1, HOUR))
    limiter.reserve("a")
    later, refused = limiter.reserve("a"), limiter.reserve("a", max_wait=1)
    copy = pickle.loads(pickle.dumps(later))
    assert isinstance(copy, Reservation)
    assert (copy.wait, copy.item.timestamp) == (later.wait, later.item.timestamp)
    said = pickle.loads(pickle.dumps(refused))
    assert (said.failing_rate, said.retry_after_ms) == (Rate(1, HOUR), refused.retry_after_ms)
    assert not said


def test_it_shows_what_it_is():
    limiter = Limiter(Rate(1, HOUR))
    assert repr(limiter.reserve("a")).endswith("wait=0.0)")
    assert "failing_rate=limit=1/" in repr(limiter.reserve("a", max_wait=0))


def test_acquire_returns_the_reservation_by_which_its_caller_went():
    bucket = InMemoryBucket([Rate(1, 50)])
    limiter = limiter_on(bucket)
    assert isinstance(limiter.acquire("a"), Reservation)
    waited = limiter.acquire("a")
    assert isinstance(waited, Reservation)
    assert waited.item.name == "a"
    assert bucket.cancel(waited) is True
    assert not isinstance(limiter_on(ListBucket([Rate(1, 50)])).acquire("a"), Reservation)
