"""What programs for 2.x ask of the library; `old_releases` has 2.10.0 itself answer them."""

import asyncio
import copy
import inspect
import random
import sqlite3
import tempfile
from pathlib import Path

from tests.compat.old_releases import outcome

SLEEPS_IN = "pyrate_limiter.limit_context_decorator"
QUESTIONS = {}


def question(function):
    QUESTIONS[function.__name__] = function
    return function


def seconds(time):
    """A time function with the zero that programs' tests like."""
    return lambda: (time.ms - 1_000_000) / 1000


def limiter(lib, time, *rates, **kwargs):
    made = [lib.RequestRate(limit, interval) for limit, interval in rates]
    return lib.Limiter(*made, time_function=seconds(time), **kwargs)


def tried(limiter, *identities):
    return outcome(lambda: limiter.try_acquire(*identities))


@question
def durations(lib, time):
    names = ("SECOND", "MINUTE", "HOUR", "DAY", "MONTH")
    return [getattr(lib.Duration, name) for name in names]


@question
def rates(lib, time):
    rate = lib.RequestRate(3, 5)
    whole = lib.RequestRate(limit=60, interval=lib.Duration.MINUTE)
    return [
        str(rate),
        str(lib.RequestRate(1, 0.2)),
        [whole.limit, whole.interval],
        [outcome(lambda name=name: setattr(rate, name, 4)) for name in ("limit", "interval")],
        [(kind.name, kind.value) for kind in lib.ResetTypes],
    ]


@question
def lists_of_rates(lib, time):
    lists = [(), ((5, 10), (5, 20)), ((5, 10), (6, 10)), ((5, 10), (4, 20)), ((5, 10), (20, 20))]
    return [outcome(lambda rates=rates: limiter(lib, time, *rates) and None) for rates in lists]


@question
def errors(lib, time):
    full = lib.BucketFullException("a", "any", 1)
    params = lib.InvalidParams("x")
    fixed = lib.ImmutableClassProperty(lib.RequestRate(3, 5), "limit")
    return [[str(error), error.__dict__] for error in (full, params, fixed)]


@question
def fills_and_refuses(lib, time):
    answers = []
    for kind in ("MemoryQueueBucket", "MemoryListBucket"):
        limited = limiter(lib, time, (3, 5), bucket_class=getattr(lib, kind))
        for _ in range(5):
            answers.append(tried(limited, "a"))
            time.advance(750)
        answers.append(tried(limited, "b"))
    return answers


@question
def a_call_one_interval_old_no_longer_counts(lib, time):
    limited = limiter(lib, time, (1, 10))
    answers = [tried(limited, "a")]
    time.advance(9_999)
    answers.append(tried(limited, "a"))
    time.advance(1)
    answers.append(tried(limited, "a"))
    return answers


@question
def remaining_time_is_of_the_clocks_type(lib, time):
    limited = lib.Limiter(lib.RequestRate(1, 5), time_function=lambda: time.ms // 1000)
    return [tried(limited, "a"), tried(limited, "a")]


@question
def several_rates(lib, time):
    limited = limiter(lib, time, (2, 1), (3, 10))
    answers = []
    for step in (0, 0, 0, 1_000, 0, 8_999, 1, 0, 0):
        time.advance(step)
        answers.append(tried(limited, "a"))
    return answers


@question
def a_later_rate_may_allow_more_per_time(lib, time):
    limited = limiter(lib, time, (5, 10), (6, 11))
    answers = [tried(limited, "a") for _ in range(5)]
    time.advance(10_000)
    return [*answers, tried(limited, "a"), tried(limited, "a")]


@question
def random_calls(lib, time):
    dice = random.Random(5)
    answers = []
    for _ in range(12):
        number = dice.randint(1, 3)
        limits = sorted(dice.sample(range(1, 12), number))
        intervals = sorted(dice.sample([0.25, 1, 2, 3, 5, 8, 13], number))
        kind = dice.choice(["MemoryListBucket", "MemoryQueueBucket", "SQLiteBucket"])
        kwargs = {"path": ":memory:"} if kind == "SQLiteBucket" else {}
        limited = limiter(
            lib,
            time,
            *zip(limits, intervals),
            bucket_class=getattr(lib, kind),
            bucket_kwargs=kwargs,
        )
        for _ in range(40):
            time.advance(dice.choice([0, 0, 0, 250, 500, 1_000, 1_000, 2_000, 5_000]))
            who = dice.choice([("a",), ("b",), ("a", "b"), ("b", "a", "c")])
            refusal = tried(limited, *who)[-1]
            answers.append(refusal and list(refusal.values())[1:])
        answers.append({name: one.all_items() for name, one in limited.bucket_group.items()})
    return answers


@question
def several_identities(lib, time):
    limited = limiter(lib, time, (2, 5))
    answers = [tried(limited, "a"), tried(limited, "a"), tried(limited, "b", "a")]
    answers.append(limited.get_current_volume("b"))
    tried(limited, "b")
    tried(limited, "b")
    return [*answers, tried(limited, "b", "a"), tried(limited, "a", "b"), tried(limited)]


@question
def identities_of_any_kind(lib, time):
    limited = limiter(lib, time, (1, 5))
    answers = [tried(limited, one) for one in (None, 5, None, 5)]
    return [*answers, tried(limited, ("a", 1)), tried(limited, "a", 1)[:2]]


@question
def odd_limits(lib, time):
    answers = []
    for rate in ((0, 5), (1.5, 5), (3, 0), (3, -5)):
        limited = limiter(lib, time, rate)
        answers.append([tried(limited, "a") for _ in range(5)])
    return answers


@question
def volumes(lib, time):
    limited = limiter(lib, time, (3, 1))
    answers = []
    for _ in range(3):
        limited.try_acquire("a")
        answers.append(limited.get_current_volume("a"))
    time.advance(100_000)
    answers.append(limited.get_current_volume("a"))
    limited.try_acquire("a")
    answers.append(limited.get_current_volume("a"))
    limited.try_acquire("b")
    answers += [limited.flush_all(), limited.get_current_volume("a"), sorted(limited.bucket_group)]
    return [*answers, outcome(lambda: limited.get_current_volume("nobody"))]


@question
def how_often_the_clock_is_read(lib, time):
    calls = []

    def clock():
        calls.append(1)
        return 5.12345

    limited = lib.Limiter(lib.RequestRate(3, 5), lib.RequestRate(5, 50), time_function=clock)
    counts = [len(calls)]
    limited.try_acquire("a", "b")
    return [*counts, len(calls), limited.bucket_group["a"].all_items()]


@question
def classes_derived_from_the_limiter(lib, time):
    class Own(lib.Limiter):
        def __init__(self, *rates, **kwargs):
            self.seen = []
            super().__init__(*rates, **kwargs)

        def try_acquire(self, *identities):
            self.seen.append(identities)
            return super().try_acquire(*identities)

    class Fixed(Own):
        def __init__(self, limit):
            super().__init__(lib.RequestRate(limit, 5), time_function=seconds(time))

    timed = Own(lib.RequestRate(1, 5), time_function=seconds(time))
    answers = []
    for limited in (timed, Fixed(limit=1), Own(lib.RequestRate(1, 3600))):
        answers += [tried(limited, "a"), tried(limited, "a")[:3], limited.seen]
        answers += [limited.ratelimit("b")(lambda: "done")(), limited.get_current_volume("b")]
        answers += [type(limited).__name__, isinstance(limited, Own), limited.flush_all()]
    return answers


@question
def a_copy_shares_the_buckets(lib, time):
    limited = limiter(lib, time, (1, 5))
    same = copy.copy(limited)
    return [tried(limited, "a"), tried(same, "a"), tried(same, "b"), tried(limited, "b")]


@question
def what_programs_read(lib, time):
    limited = limiter(lib, time, (3, 5), (4, 50))
    limited.try_acquire("a")
    bucket = limited.bucket_group["a"]
    return [
        [str(rate) for rate in limited._rates],
        limited._bkclass.__name__,
        limited._bucket_args,
        bucket._q.maxsize,
        bucket.inspect_expired_items(-1),
        type(limited._rates).__name__,
    ]


@question
def what_is_not_there(lib, time):
    limited = limiter(lib, time, (3, 5))
    names = ("try_acquire_async", "close", "lock", "as_decorator", "bucket_factory", "buckets")
    return [hasattr(limited, name) for name in names]


@question
def the_decorator_object(lib, time):
    limited = limiter(lib, time, (3, 5))
    plain, waiting = limited.ratelimit("a"), limited.ratelimit("a", delay=True, max_delay=3)
    error = lib.BucketFullException("a", lib.RequestRate(1, 1), 2.5)
    late = lib.BucketFullException("a", lib.RequestRate(1, 1), 3.1)
    return [
        type(plain).__name__,
        [plain.delay, plain.max_delay, waiting.delay, waiting.max_delay],
        outcome(lambda: waiting.delay_or_reraise(error)),
        outcome(lambda: waiting.delay_or_reraise(late)),
        outcome(lambda: plain.delay_or_reraise(error)),
        outcome(lambda: limited.ratelimit("a", max_delay=9).delay_or_reraise(error)),
        sorted(limited.bucket_group),
    ]


@question
def decorated_functions_wait(lib, time):
    limited = limiter(lib, time, (2, 5))

    @limited.ratelimit("a", delay=True)
    def add(left, right=1):
        """Add."""
        return left + right

    class Client:
        @limited.ratelimit("a", delay=True)
        def get(self):
            return self

    client = Client()
    return [
        [add(1), add(1, right=5), add(2)],
        client.get() is client,
        [round(pause, 3) for pause in time.slept],
        [add.__name__, add.__doc__, add.__wrapped__(2, 2)],
    ]


@question
def decorated_functions_raise(lib, time):
    limited = limiter(lib, time, (1, 5))
    called = []

    @limited.ratelimit("a", delay=True, max_delay=4)
    def call():
        called.append(1)

    answers = [outcome(call), outcome(call)]
    time.advance(1_000)
    return [*answers, outcome(call), len(called), time.slept]


@question
def blocks(lib, time):
    limited = limiter(lib, time, (2, 5))
    guard = limited.ratelimit("a", "b", delay=True)

    def fail():
        with guard:
            raise LookupError("body")

    with guard as entered:
        pass
    answers = [entered, outcome(fail), limited.get_current_volume("b")]
    with guard:
        answers.append(time.slept)
    return answers


@question
def generators_acquire_when_called(lib, time):
    limited = limiter(lib, time, (1, 5))

    @limited.ratelimit("a")
    def numbers():
        yield 1

    return [list(numbers()), outcome(numbers)]


@question
def coroutines(lib, time):
    limited = lib.Limiter(lib.RequestRate(1, 0.05))
    order = []

    @limited.ratelimit("a", delay=True)
    async def call(number):
        order.append(number)
        return number

    async def together():
        answers = await asyncio.gather(*(call(number) for number in range(4)))
        async with limited.ratelimit("b") as entered:
            pass
        return [answers, order[0], sorted(order), entered]

    return [inspect.iscoroutinefunction(call), asyncio.run(together())]


@question
def a_list_bucket(lib, time):
    bucket = lib.MemoryListBucket(maxsize=3)
    answers = [bucket.put(item) for item in (1, 2, 3, 4)]
    answers += [bucket.size(), bucket.maxsize(), bucket.all_items(), list(bucket._q)]
    answers += [bucket.inspect_expired_items(edge) for edge in (1.5, 2.0, 9)]
    answers += [bucket.get(1), bucket.all_items(), outcome(lambda: bucket.get(5))[:2]]
    return [*answers, bucket.flush(), bucket.size()]


@question
def a_queue_bucket(lib, time):
    bucket = lib.MemoryQueueBucket(maxsize=3, other="ignored")
    for item in (1, 2, 3):
        bucket.put(item)
    answers = [bucket.size(), bucket.all_items(), bucket.get(2), bucket.all_items()]
    return [*answers, bucket.flush(), bucket.size(), bucket.inspect_expired_items(0)]


@question
def a_users_bucket(lib, time):
    log = []

    class Own(lib.AbstractBucket):
        def __init__(self, maxsize=0, identity=None, colour=None, **kwargs):
            super().__init__(maxsize)
            self.times = []
            log.append(["made", maxsize, identity, colour])

        def size(self):
            return len(self.times)

        def put(self, item):
            self.times.append(item)
            return 1

        def get(self, number):
            log.append(["get", number])
            del self.times[:number]
            return number

        def all_items(self):
            return list(self.times)

        def flush(self):
            self.times.clear()

        def lock_acquire(self):
            log.append("lock")

        def lock_release(self):
            log.append("unlock")

    limited = limiter(lib, time, (2, 5), bucket_class=Own, bucket_kwargs={"colour": "red"})
    answers = []
    for step in (0, 1_000, 1_000, 3_000, 2_000):
        time.advance(step)
        answers.append(tried(limited, "a"))
    return [answers, log]


@question
def a_sqlite_bucket(lib, time):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calls.db"
        bucket = lib.SQLiteBucket(maxsize=3, identity="me", path=path)
        answers = [bucket.put(item) for item in (1.5, 2, 3, 4)]
        answers += [bucket.size(), bucket.all_items(), bucket.table, bucket.connection_kwargs]
        with sqlite3.connect(path) as other:
            answers += other.execute("SELECT name, sql FROM sqlite_master").fetchall()
            answers += other.execute(f"SELECT * FROM {bucket.table}").fetchall()
            answers += other.execute("PRAGMA journal_mode").fetchall()
        other.close()
        answers += [bucket.get(), bucket.get(2), bucket.get(5), bucket.flush(), bucket.put(7)]
        bucket.close()
        bucket.close()
        answers.append(bucket.all_items())
        bucket.close()
        return [*answers, outcome(lambda: lib.SQLiteBucket(path=path))]


@question
def a_limiter_on_a_file(lib, time):
    with tempfile.TemporaryDirectory() as folder:
        kwargs = {"path": f"{folder}/calls.db", "isolation_level": "EXCLUSIVE"}
        answers = []
        for kind in ("SQLiteBucket", "FileLockSQLiteBucket"):
            cls = getattr(lib, kind)
            for _ in range(2):
                limited = limiter(lib, time, (2, 5), bucket_class=cls, bucket_kwargs=kwargs)
                answers += [tried(limited, "a"), tried(limited, "a")]
                time.advance(2_500)
                answers.append(limited.bucket_group["a"].all_items())
                limited.bucket_group["a"].close()
        return answers


@question
def a_lock_file_of_ones_own(lib, time):
    from filelock import FileLock

    class Own(lib.FileLockSQLiteBucket):
        def __init__(self, lock_path=None, **kwargs):
            super().__init__(**kwargs)
            self._lock = FileLock(lock_path)

    with tempfile.TemporaryDirectory() as folder:
        kwargs = {"path": f"{folder}/calls.db", "lock_path": f"{folder}/calls.lock"}
        limited = limiter(lib, time, (1, 5), bucket_class=Own, bucket_kwargs=kwargs)
        answers = [tried(limited, "a"), tried(limited, "a")]
        bucket = limited.bucket_group["a"]
        answers += [Path(bucket._lock.lock_file).name, bucket._lock.is_locked]
        bucket.close()
        return answers


@question
def a_redis_bucket(lib, time):
    from fakeredis import FakeRedis

    client = FakeRedis()
    kwargs = {"redis_pool": client.connection_pool, "bucket_name": "auth", "expire_time": 60}
    limited = limiter(lib, time, (2, 5), bucket_class=lib.RedisBucket, bucket_kwargs=kwargs)
    answers = []
    for step in (0, 1_000, 1_000, 3_000, 2_000):
        time.advance(step)
        answers.append(tried(limited, "a"))
        answers.append([item.decode() for item in client.lrange("auth___a", 0, -1)])
    answers += [client.ttl("auth___a"), limited.get_current_volume("a")]
    bucket = limited.bucket_group["a"]
    answers += [bucket.all_items(), bucket.size(), bucket.maxsize(), bucket.get(1)]
    answers += [bucket.put(9), bucket.put(10), bucket.all_items()]
    return [*answers, limited.flush_all(), client.exists("auth___a")]


@question
def refused_redis_buckets(lib, time):
    kinds = ({}, {"redis_pool": 1}, {"redis_pool": 1, "bucket_name": 5})
    return [outcome(lambda kwargs=kwargs: lib.RedisBucket(**kwargs)) for kwargs in kinds]


@question
def chunks(lib, time):
    return [list(lib.chunkify([1, 2, 3, 4, 5], 2)), lib.SQLITE_MAX_VARIABLE_NUMBER]
