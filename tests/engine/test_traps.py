"""Mistakes that are easily made: each is answered with an error that says what to write."""

import asyncio
import gc
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis.asyncio

import pyrate_limiter
from pyrate_limiter import (
    AbstractBucket,
    BucketAsyncWrapper,
    Duration,
    InMemoryBucket,
    Limiter,
    MultiprocessBucket,
    PostgresBucket,
    Rate,
    RateItem,
    RedisBucket,
    SingleBucketFactory,
    SQLiteBucket,
    StateBucket,
)
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.compat import v3
from pyrate_limiter.errors import (
    BucketClosed,
    InvalidBucket,
    InvalidDatabase,
    InvalidLimiterArgument,
    InvalidRateList,
    MissingDriver,
    NoRates,
    WrongType,
)
from tests.support.doubles import World
from tests.support.kinds import KINDS

RATE = Rate(2, 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_takes_a_single_rate(make, kind):
    bucket = make(kind, RATE)
    assert bucket.rates == [RATE]
    bucket.rates = Rate(1, 500)
    assert bucket.rates == [Rate(1, 500)]
    now = bucket.now()
    assert bucket.put(RateItem("a", now))
    assert not bucket.put(RateItem("a", now))
    BucketAsyncWrapper(bucket).rates = RATE
    assert bucket.rates == [RATE]


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_bucket_admits_nothing_and_says_so(make, kind):
    bucket = make(kind, [RATE])
    limiter, other = Limiter(bucket), Limiter(bucket)
    item = RateItem("a", bucket.now())
    assert limiter.try_acquire()
    bucket.close()
    bucket.close()
    limiter.close()

    async def awaited(limiter):
        return await limiter.try_acquire_async("a", blocking=False)

    for closed in (limiter, other, Limiter(BucketAsyncWrapper(bucket))):
        with pytest.raises(BucketClosed, match=r"make a new one, or close it later"):
            asyncio.run(awaited(closed))
    for use in (
        limiter.try_acquire,
        lambda: other.try_acquire(blocking=False),
        lambda: other.try_acquire(weight=9),
        lambda: other.acquire(timeout=5),
        other.check,
        lambda: bucket.put(item),
        lambda: bucket.put_decision(item),
        lambda: bucket.waiting(item),
        lambda: bucket.reserve(item, 100),
        lambda: bucket.confirm(Reservation(item), item.timestamp),
        lambda: bucket.check(item),
    ):
        with pytest.raises(BucketClosed):
            use()
    assert [bucket.leak(), bucket.leak(item.timestamp)] == [0, 0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("sqlite")])
def test_what_a_closed_bucket_holds_can_be_looked_at(make, kind):
    bucket = make(kind, [RATE])
    with bucket:
        assert Limiter(bucket).try_acquire(weight=2)
    if "gcra" not in kind:
        assert bucket.count() == 2
        bucket.flush()
        assert bucket.count() == 0


@pytest.mark.parametrize("make", [InMemoryBucket, StateBucket])
@pytest.mark.parametrize("wrap", [lambda bucket: bucket, BucketAsyncWrapper])
def test_limiters_may_be_closed_one_after_the_other_over_one_bucket(make, wrap):
    bucket = wrap(make([Rate(9, 60_000)]))

    async def ask(limiter):
        return await limiter.try_acquire_async("a", blocking=False)

    for _ in range(3):
        with Limiter(bucket) as limiter:
            assert asyncio.run(ask(limiter))
    assert asyncio.run(ask(limiter))


def test_who_waits_goes_on_where_the_limiter_is_closed():
    with Limiter(Rate(1, 50)) as limiter, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(limiter.try_acquire, "a") for _ in range(3)]
        limiter.close()
        assert [call.result() for call in waiting] == [True] * 3


@pytest.mark.parametrize("bucket", [InMemoryBucket, StateBucket, MultiprocessBucket.init])
def test_a_closed_limiter_of_many_names_makes_no_new_buckets(bucket):
    with Limiter.per_key(RATE, bucket=bucket) as limiter:
        assert limiter.try_acquire("ann", blocking=False)
    for use in (limiter.try_acquire, limiter.acquire, limiter.check):
        for name in ("ann", "bob"):
            with pytest.raises(BucketClosed):
                use(name)


def test_a_closed_bucket_is_swept_without_a_word(caplog):
    bucket = InMemoryBucket(RATE)
    limiter = Limiter(bucket)
    bucket.close()
    limiter.bucket_factory._leaker.sweep()
    assert caplog.text == ""


def test_who_waits_for_a_bucket_that_is_closed_is_told_so(monkeypatch):
    world = World(monkeypatch)
    limiter = Limiter(world.on(InMemoryBucket(Rate(1, 50))))

    async def main():
        await limiter.try_acquire_async("a")
        waiting = [asyncio.create_task(limiter.try_acquire_async("a")) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.bucket_factory.bucket.close()
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in world.run(main())] == [BucketClosed] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_rates_may_be_assigned_without_a_constructor(make, kind):
    cls = type(make(kind, [RATE]))
    stub = cls.__new__(cls)
    stub.rates = [RATE]
    stub.failing_rate = None
    assert stub.rates == [RATE]
    assert stub.failing_rate is None


@pytest.mark.parametrize("kind", KINDS)
def test_rates_may_be_assigned_before_the_constructor_runs(make, kind):
    bucket = make(kind, [RATE])
    cls = type(bucket)
    again = cls.__new__(cls)
    again.rates = [Rate(7, 1000)]
    again.failing_rate = None
    cls.__init__(again, **arguments(bucket))
    assert again.rates == [RATE]
    now = again.now()
    assert [again.put(RateItem("a", now)) for _ in range(3)] == [True, True, False]
    assert again.failing_rate == RATE


def arguments(bucket):
    """What a bucket like this one is made of."""
    if isinstance(bucket, MultiprocessBucket):
        return {"rates": [RATE], "items": bucket.items, "mp_lock": bucket.mp_lock}
    if isinstance(bucket, RedisBucket):
        return {"rates": [RATE], "redis": bucket.redis, "bucket_key": bucket.bucket_key}
    if isinstance(bucket, SQLiteBucket):
        return {"rates": [RATE], "conn": bucket.conn, "table": "other"}
    if isinstance(bucket, PostgresBucket):
        return {"pool": bucket.pool, "table": bucket.table, "rates": [RATE]}
    if isinstance(bucket, StateBucket):
        return {"rates": [RATE], "store": bucket.store}
    return {"rates": [RATE]}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (
            [Rate(10, 1000), Rate(5, 60_000)],
            r"limit=10/1\.0s never refuses .* limit=10/1\.0s",
        ),
        (
            [Rate(1, 1000), Rate(90, 60_000)],
            r"limit=90/1\.0m never refuses .* limit=90/1\.0m",
        ),
        ([Rate(1, 1000), Rate(2, 1000)], r"same interval: drop limit=2/1\.0s, keep limit=1/1\.0s"),
        ([Rate(2, 1000), Rate(1, 1000)], r"same interval: drop limit=2/1\.0s, keep limit=1/1\.0s"),
        ([], "it has no rates: give at least one"),
    ],
)
def test_a_list_of_rates_that_makes_no_sense_names_the_pair_and_what_to_drop(rates, message):
    with pytest.raises(InvalidRateList, match=message):
        InMemoryBucket(rates)


def test_a_list_that_is_out_of_order_says_so():
    with pytest.raises(InvalidRateList, match="sort by interval"):
        pyrate_limiter.abstracts.bucket.enforce_rate_list([Rate(5, 60_000), Rate(1, 1000)])


@pytest.mark.parametrize("rates", [5, "2/second", [RATE, 5], None])
def test_what_is_no_rate_is_named(rates):
    with pytest.raises(WrongType, match="rates must be a Rate or a list of Rate, got"):
        InMemoryBucket(rates)


def test_rates_may_come_from_a_generator():
    assert InMemoryBucket(rate for rate in [RATE]).rates == [RATE]


class Bare(AbstractBucket):
    """A user's bucket whose author forgot the rates."""

    def put(self, item):
        return False

    def leak(self, current_timestamp=None):
        return 0

    def flush(self):
        raise NotImplementedError

    def count(self):
        return 0

    def peek(self, index):
        raise NotImplementedError


def test_a_bucket_without_rates_says_where_to_assign_them():
    with pytest.raises(NoRates, match=r"Bare has no rates: assign self\.rates"):
        Limiter(Bare()).try_acquire(blocking=False)
    assert not hasattr(Bare(), "rates")


def test_rates_assigned_to_a_limiter_are_refused():
    with pytest.raises(NoRates, match=r"assign to bucket\.rates"):
        Limiter(RATE).rates = [RATE]


def test_a_limiter_of_ones_own_may_keep_rates():
    class Own(Limiter):
        def __init__(self, rates):
            self.rates = rates
            super().__init__(rates)

    assert Own([RATE]).rates == [RATE]


async def forgotten():
    raise NotImplementedError


@pytest.mark.filterwarnings("ignore:coroutine 'forgotten' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("use", [Limiter, SingleBucketFactory, BucketAsyncWrapper])
def test_a_bucket_that_was_not_awaited_says_so(use):
    with pytest.raises((InvalidLimiterArgument, InvalidBucket), match="await it first"):
        use(forgotten())
    gc.collect()


@pytest.mark.filterwarnings("ignore:coroutine 'RedisBucket.init.*' was never awaited")
def test_a_redis_bucket_that_was_not_awaited_is_called_as_it_was_written():
    made = RedisBucket.init([RATE], redis.asyncio.Redis(), "key")
    assert "RedisBucket.init(...)" in repr(made)
    with pytest.raises(InvalidLimiterArgument, match=r"bucket = await RedisBucket\.init"):
        Limiter(made)


@pytest.mark.parametrize("use", [Limiter, SingleBucketFactory, BucketAsyncWrapper])
def test_the_class_of_a_bucket_in_its_place_says_so(use):
    error = (InvalidLimiterArgument, InvalidBucket)
    with pytest.raises(error, match=r"make one of it first: InMemoryBucket\(\.\.\.\)"):
        use(InMemoryBucket)


@pytest.mark.parametrize(
    ("bucket", "fix"),
    [
        (RedisBucket, r"RedisKeys\(client, prefix\)"),
        (PostgresBucket, r"PostgresKeys\(pool, table\)"),
        (SQLiteBucket, r"SQLiteBucket\.per_key\(path\)"),
        (MultiprocessBucket, r"MultiprocessBucket\.init"),
        (type("Own", (RedisBucket,), {}), r"RedisKeys\(client, prefix\)"),
        (InMemoryBucket(RATE), "a bucket class such as InMemoryBucket"),
        (type("Own", (Bare,), {"__init__": lambda self: None}), "a function that makes a bucket"),
        ("memory", "a bucket class such as InMemoryBucket"),
    ],
)
def test_per_key_names_what_it_takes_in_place_of_a_bucket(bucket, fix):
    with pytest.raises(WrongType, match=fix):
        Limiter.per_key(RATE, bucket=bucket)


def test_per_key_takes_a_class_of_ones_own_that_is_made_from_rates():
    class Own(InMemoryBucket):
        def __init__(self, rates, title="mine"):
            super().__init__(rates)

    assert Limiter.per_key(RATE, bucket=Own).try_acquire("a", blocking=False)
    assert Limiter.per_key(RATE, bucket=MultiprocessBucket.init).try_acquire("a", blocking=False)


def test_a_state_bucket_over_something_that_is_no_store_names_one():
    with pytest.raises(WrongType, match=r"such as RedisStateStore\(client, key\)"):
        StateBucket([RATE], store=object())


@pytest.mark.parametrize("path", ["limits.db", "limits.sqlite3", "data/limits"])
def test_a_path_in_the_place_of_a_table_says_where_it_belongs(path, tmp_path):
    with pytest.raises(InvalidDatabase, match=f"db_path='{path}'"):
        SQLiteBucket.init_from_file([RATE], path)
    with pytest.raises(InvalidDatabase, match="db_path="):
        SQLiteBucket.init_from_file([RATE], tmp_path / "limits.db")


def test_a_table_may_be_named_like_a_file_where_a_file_is_given(tmp_path):
    path = str(tmp_path / "real.db")
    with SQLiteBucket.init_from_file([RATE], "limits.db", path) as bucket:
        assert bucket.put(RateItem("a", bucket.now()))


def test_psycopg_without_its_library_names_the_package_that_brings_it():
    program = """if True:
        import sys, types
        class Broken:
            def find_spec(self, name, path, target=None):
                if name == "psycopg":
                    raise ImportError("no pq wrapper available")
        sys.meta_path.insert(0, Broken())
        from pyrate_limiter.errors import MissingDriver
        from pyrate_limiter.buckets.postgres.session import driver
        try:
            driver()
        except MissingDriver as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "psycopg[binary]" in done.stdout
    assert "no libpq (no pq wrapper available)" in done.stdout
    assert issubclass(MissingDriver, ImportError)


class AsyncPut(InMemoryBucket):
    async def put(self, item):
        return super().put(item)


@pytest.fixture(params=[lambda: BucketAsyncWrapper(InMemoryBucket([RATE])), lambda: AsyncPut(RATE)])
def asynchronous(request):
    return Limiter(request.param())


def test_an_awaitable_verdict_is_neither_true_nor_false(asynchronous):
    with pytest.raises(RuntimeError, match=r"try_acquire\('x'\) is neither True nor False"):
        not asynchronous.try_acquire("x")  # as an `if` would ask
    with pytest.raises(RuntimeError, match="write `await` before it"):
        bool(asynchronous.handle_bucket_put(AsyncPut(RATE), RateItem("a", 0), blocking=False))
    with warnings.catch_warnings(record=True) as caught:
        gc.collect()
    assert caught == []  # the error has said it


def test_a_forgotten_verdict_is_warned_of_by_the_name_that_was_written(asynchronous):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asynchronous.try_acquire("forgotten")
        gc.collect()
    assert [str(warning.message) for warning in caught] == [
        "coroutine 'try_acquire('forgotten')' was never awaited"
    ]


def test_an_awaitable_verdict_is_taken_wherever_a_coroutine_is(asynchronous):
    async def main():
        import inspect

        verdict = asynchronous.try_acquire("x", blocking=False)
        assert asyncio.iscoroutine(verdict)
        assert inspect.isawaitable(verdict)
        assert await verdict
        assert await asyncio.create_task(asynchronous.try_acquire("x", blocking=False))
        gathered = asyncio.gather(*(asynchronous.try_acquire(blocking=False) for _ in range(2)))
        assert await gathered == [False, False]
        assert not await asyncio.wait_for(asynchronous.try_acquire(blocking=False), 50)
        return "done"

    assert asyncio.run(main()) == "done"
    assert asyncio.run(asynchronous.try_acquire("x", blocking=False)) in {True, False}


def test_a_task_of_a_verdict_can_be_shown_at_any_time(asynchronous):
    async def main():
        assert await asynchronous.try_acquire("x", 2)
        task = asyncio.create_task(asynchronous.try_acquire("shown", 2))
        assert "try_acquire('shown')" in repr(task)
        await asyncio.sleep(0)
        assert "try_acquire('shown')" in repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "cancelled" in repr(task)

    asyncio.run(main())


def test_a_verdict_that_is_under_way_is_a_coroutine_like_any_other(asynchronous):
    async def main():
        assert await asynchronous.try_acquire("x", 2)
        verdict = asynchronous.try_acquire("x", 2)
        task = asyncio.create_task(verdict)
        await asyncio.sleep(0)
        assert verdict  # as a task asks, when it is to be shown
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        verdict.close()

    asyncio.run(main())


def test_an_awaitable_verdict_can_be_closed_and_cancelled(asynchronous):
    async def main():
        asynchronous.try_acquire("x").close()
        assert await asynchronous.try_acquire("x", 2)
        task = asyncio.create_task(asynchronous.try_acquire("x", 2))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("name", ["max_delay", "raise_when_fail", "retry_until_max_delay"])
def test_an_attribute_that_only_limiters_of_3x_have_points_to_them(name):
    limiter = Limiter(RATE)
    with pytest.raises(WrongType, match=rf"{name}=\.\.\.\), .*Programs for 3.x.*, got 500"):
        setattr(limiter, name, 500)

    class Own(Limiter):
        pass

    own = Own(RATE)
    setattr(own, name, 500)  # a class may have attributes of its own
    assert vars(own)[name] == 500


def test_a_duration_in_place_of_a_limit_is_a_mistake_that_is_explained():
    with pytest.raises(WrongType, match=r"the interval comes second, got <Duration\.SECOND: 1000>"):
        Rate(Duration.SECOND, 5)


@pytest.mark.parametrize(
    "use",
    [
        lambda clock: StateBucket(RATE, clock=clock),
        lambda clock: SingleBucketFactory(InMemoryBucket(RATE), clock),
        lambda clock: v3.Limiter(RATE, clock),
        lambda clock: Limiter(RATE, clock=clock),
    ],
)
@pytest.mark.parametrize("wrong", [v3.TimeClock, 5])
def test_what_tells_no_time_is_refused_as_a_clock(use, wrong):
    with pytest.raises(WrongType, match="clock must be a clock with now") as caught:
        use(wrong)
    assert caught.value.value is wrong
