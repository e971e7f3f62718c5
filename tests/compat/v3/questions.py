"""What programs for 3.x ask of the library; `old_releases` has 3.9.0 itself answer them."""

import asyncio
import copy
import inspect
import pickle
import random
import tempfile
from importlib import import_module
from pathlib import Path

from tests.compat.old_releases import outcome

SLEEPS_IN = "pyrate_limiter.limiter"
QUESTIONS = {}


def question(function):
    QUESTIONS[function.__name__] = function
    return function


def clock(lib, time):
    class Clock(lib.AbstractClock):
        def now(self):
            return time.ms

    return Clock()


def limiter(lib, time, argument=None, **kwargs):
    return lib.Limiter(argument or lib.Rate(1, 300), clock(lib, time), **kwargs)


def tried(limiter, *arguments, **kwargs):
    return outcome(lambda: limiter.try_acquire(*arguments, **kwargs))


def caught_as(kind, call):
    try:
        call()
    except kind:
        return True
    return False


def without_remaining(answers):
    """This release says more in `meta_info`."""
    for answer in answers:
        if answer[0] == "raised" and answer[3]:
            answer[3].pop("remaining_time", None)
    return answers


def about(error):
    return [type(error).__name__, str(error), error.meta_info, sorted(vars(error))]


@question
def refused_without_max_delay(lib, time):
    answers = []
    for retry in (False, True):
        for raising in (True, False):
            kwargs = {"raise_when_fail": raising, "retry_until_max_delay": retry}
            limited = limiter(lib, time, **kwargs)
            answers += [tried(limited, "x"), tried(limited, "x"), tried(limited, "x", 2)]
    return [*without_remaining(answers), time.slept]


@question
def refused_where_the_delay_is_too_long(lib, time):
    answers = []
    for max_delay in (0, 340, 349):
        for raising in (True, False):
            limited = limiter(lib, time, raise_when_fail=raising, max_delay=max_delay)
            answers += [tried(limited, "x"), tried(limited, "x", 1), tried(limited, "x", 2)]
            answers.append(["returned", limited.buckets()[0].count()])
    return [*without_remaining(answers), time.slept]


@question
def admitted_after_a_delay(lib, time):
    answers = []
    for max_delay in (350, 351, 1_000, float("inf"), lib.Duration.SECOND):
        for retry in (False, True):
            kwargs = {"retry_until_max_delay": retry, "raise_when_fail": retry}
            limited = limiter(lib, time, max_delay=max_delay, **kwargs)
            before = time.ms
            answers += [limited.try_acquire("x"), limited.try_acquire("y")]
            answers.append(round(time.ms - before, -1))
    return answers


@question
def the_buffer_is_added(lib, time):
    limited = limiter(lib, time, max_delay=1_000, buffer_ms=200)
    before = time.ms
    return [limited.try_acquire("x"), limited.try_acquire("x"), round(time.ms - before, -1)]


@question
def attributes_are_read_at_each_call(lib, time):
    limited = limiter(lib, time)
    answers = [tried(limited, "x"), tried(limited, "x")]
    limited.raise_when_fail = False
    answers.append(tried(limited, "x"))
    limited.max_delay = 1_000
    limited.buffer_ms = 100
    answers.append(tried(limited, "x"))
    limited.max_delay = None
    answers.append(tried(limited, "x"))
    limited.raise_when_fail = True
    limited.max_delay = 10
    answers.append(tried(limited, "x"))
    names = ("raise_when_fail", "max_delay", "retry_until_max_delay", "buffer_ms")
    answers.append(["read", [getattr(limited, name) for name in names]])
    return without_remaining(answers)


@question
def weights(lib, time):
    limited = limiter(lib, time, lib.Rate(10, 1_000))
    answers = [tried(limited, "x", weight) for weight in (4, 7, 6, 0)]
    answers.append(limited.buckets()[0].count())
    refused = caught_as(AssertionError, lambda: limited.try_acquire("x", -1))
    return without_remaining(answers[:4]) + answers[4:] + [refused]


@question
def several_rates_are_sorted(lib, time):
    limited = limiter(lib, time, [lib.Rate(3, 10_000), lib.Rate(2, 1_000)])
    answers = []
    for step in (0, 0, 0, 1_001, 0, 9_000, 0):
        time.advance(step)
        answers.append(tried(limited, "x"))
    return without_remaining(answers)


@question
def random_calls(lib, time):
    dice = random.Random(5)
    answers = []
    for _ in range(12):
        number = dice.randint(1, 3)
        limits = sorted(dice.sample(range(1, 12), number))
        intervals = sorted(dice.sample([100, 200, 300, 500, 1_300], number))
        rates = [lib.Rate(*pair) for pair in zip(limits, intervals)]
        limited = limiter(lib, time, rates, raise_when_fail=dice.random() < 0.5)
        for _ in range(40):
            time.advance(dice.choice([0, 0, 0, 7, 50, 100, 300]))
            answer = tried(limited, "x", dice.choice([1, 1, 1, 2, 3]))
            answers.append(answer[1] if answer[0] == "returned" else answer[2])
    return answers


@question
def any_list_of_rates(lib, time):
    answers = []
    for pairs in ([(5, 1_000), (5, 5_000)], [(5, 10), (6, 11)]):
        limited = limiter(lib, time, [lib.Rate(*pair) for pair in pairs], raise_when_fail=False)
        for step in (0, 0, 0, 0, 0, 0, 10, 1, 980, 9, 3, 4_000, 4_000):
            time.advance(step)
            answers.append(limited.try_acquire("x"))
    return answers


@question
def the_edge_of_a_window_still_counts(lib, time):
    limited = limiter(lib, time, raise_when_fail=False)
    answers = [limited.try_acquire("x")]
    for step in (299, 1, 1):
        time.advance(step)
        answers.append(limited.try_acquire("x"))
    return answers


@question
def refused_arguments(lib, time):
    arguments = ([], 5, None, "10/second")
    answers = [caught_as(AssertionError, lambda one=one: lib.Limiter(one)) for one in arguments]
    answers.append(caught_as(AssertionError, lambda: limiter(lib, time, max_delay=-1)))
    limited = limiter(lib, time)
    answers.append(caught_as(TypeError, limited.try_acquire))
    answers.append(caught_as(TypeError, lambda: limited.try_acquire("x", blocking=False)))
    return answers


@question
def arguments_by_position(lib, time):
    limited = lib.Limiter(lib.Rate(1, 300), clock(lib, time), False, 1_000, True, 70)
    names = ("raise_when_fail", "max_delay", "retry_until_max_delay", "buffer_ms")
    return [getattr(limited, name) for name in names]


@question
def exceptions(lib, time):
    item = lib.RateItem("x", None, 3)
    errors = import_module(f"{lib.__name__}.exceptions")
    full = errors.BucketFullException(item, lib.Rate(5, 3_600))
    late = errors.LimiterDelayException(item, lib.Rate(1, 200), 350, 100)
    answers = []
    for error in (full, late):
        for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
            answers.append(about(same))
            answers.append([same.item.name, same.item.weight, str(same.rate)])
    return [*answers, late.actual_delay, late.max_delay]


@question
def what_an_exception_carries(lib, time):
    limited = limiter(lib, time, max_delay=100)
    limited.try_acquire("x")
    try:
        limited.try_acquire("y")
    except lib.LimiterDelayException as error:
        return [error.item.name, str(error.rate), error.actual_delay, error.max_delay]


@question
def decorators(lib, time):
    limited = limiter(lib, time, lib.Rate(3, 300))
    decorator = limited.as_decorator()

    @decorator(lambda left, right=1: ("add", right))
    def add(left, right=1):
        """Add."""
        return left + right

    class Client:
        @decorator(lambda *_: ("get", 1))
        def get(self):
            return self

    @decorator(lambda: ("fetch", 1))
    async def fetch():
        return "page"

    client = Client()
    answers = [add(1), client.get() is client, asyncio.run(fetch())]
    refused = [outcome(lambda: add(1)), outcome(client.get)]
    answers += [add.__name__, add.__doc__, add.__wrapped__(1, 9)]
    answers += [inspect.iscoroutinefunction(fetch), inspect.iscoroutinefunction(add)]
    bad = decorator(lambda: "name")(lambda: 1)
    return answers + without_remaining(refused) + [outcome(bad)[:2]]


@question
def asynchronous_buckets_give_awaitables(lib, time):
    async def use():
        limited = limiter(lib, time, lib.BucketAsyncWrapper(lib.InMemoryBucket([lib.Rate(1, 300)])))
        answers = [inspect.isawaitable(limited.try_acquire("x", 0))]
        first = limited.try_acquire("x")
        answers += [inspect.isawaitable(first), await first]
        second = limited.try_acquire("x")
        try:
            await second
        except lib.BucketFullException as error:
            answers.append(type(error).__name__)
        limited.raise_when_fail = False
        answers += [await limited.try_acquire("x"), await limited.try_acquire_async("x")]

        @limited.as_decorator()(lambda: ("x", 0))
        def sync():
            return "done"

        answers.append(sync())
        return answers

    return asyncio.run(use())


@question
def asynchronous_clocks_and_factories_give_awaitables(lib, time):
    class Clock(lib.AbstractClock):
        async def now(self):
            return time.ms

    class Factory(lib.BucketFactory):
        def __init__(self, bucket):
            self.bucket = bucket

        async def wrap_item(self, name, weight=1):
            return lib.RateItem(name, time.ms, weight)

        def get(self, item):
            return self.bucket

    async def use():
        answers = []
        for limited in (
            lib.Limiter(lib.Rate(1, 300), Clock(), False),
            lib.Limiter(Factory(lib.InMemoryBucket([lib.Rate(1, 300)])), raise_when_fail=False),
        ):
            first = limited.try_acquire("x")
            answers += [inspect.isawaitable(first), await first, await limited.try_acquire("x")]
            answers.append(await limited.try_acquire_async("x"))
        return answers

    return asyncio.run(use())


@question
def factories(lib, time):
    class PerUser(lib.BucketFactory):
        def __init__(self, rates):
            self.clock = clock(lib, time)
            self.rates = rates
            self.known = {}

        def wrap_item(self, name, weight=1):
            return lib.RateItem(name, self.clock.now(), weight)

        def get(self, item):
            if item.name not in self.known:
                self.known[item.name] = self.create(self.clock, lib.InMemoryBucket, self.rates)
            return self.known[item.name]

    factory = PerUser([lib.Rate(1, 300)])
    answers = [factory._leaker is None, factory.get_buckets(), factory.leak_interval]
    limited = lib.Limiter(factory, raise_when_fail=False, max_delay=100)
    answers += [limited.try_acquire(name) for name in ("a", "b", "a", "b", "c")]
    answers += [len(limited.buckets()), limited.dispose(factory.known["a"])]
    answers += [limited.dispose(id(factory.known["b"])), limited.dispose(5)]
    return [*answers, len(factory.get_buckets())]


@question
def factories_over_ready_buckets(lib, time):
    scheduled = []

    class Ready(lib.BucketFactory):
        leak_interval = 300

        def __init__(self, clock, first, second):
            self.clock, self.first, self.second = clock, first, second
            self.schedule_leak(first, clock)
            self.schedule_leak(second, clock)

        def schedule_leak(self, *args):
            scheduled.append(len(args))
            super().schedule_leak(*args)

        def wrap_item(self, name, weight=1):
            return lib.RateItem(name, self.clock.now(), weight)

        def get(self, item):
            return self.first if item.name == "first" else self.second

    buckets = [lib.InMemoryBucket([lib.Rate(1, 300)]) for _ in range(2)]
    factory = Ready(clock(lib, time), *buckets)
    limited = lib.Limiter(factory, raise_when_fail=False, max_delay=400)
    before = time.ms
    answers = [limited.try_acquire(name) for name in ("first", "other", "first", "other")]
    return [*answers, round(time.ms - before, -2), scheduled, factory.leak_interval]


@question
def a_single_bucket_factory(lib, time):
    bucket = lib.InMemoryBucket([lib.Rate(1, 300)])
    time_given = clock(lib, time)
    module = import_module(f"{lib.__name__}.limiter")
    factory = module.SingleBucketFactory(bucket, time_given)
    item = factory.wrap_item("x", 3)
    return [
        factory.bucket is bucket,
        factory.clock is time_given,
        [item.name, item.weight, item.timestamp],
        factory.get(item) is bucket,
        len(factory.get_buckets()),
    ]


@question
def a_factory_that_returns_no_bucket(lib, time):
    class Broken(lib.BucketFactory):
        def wrap_item(self, name, weight=1):
            return lib.RateItem(name, time.ms, weight)

        def get(self, item):
            return None

    refused = tried(lib.Limiter(Broken(), raise_when_fail=False), "nobody")
    return [refused[0], "Invalid bucket: item: nobody" in refused[2]]


@question
def a_users_bucket(lib, time):
    class Own(lib.AbstractBucket):
        def __init__(self, rates):
            self.rates = rates
            self.stamps = []

        def put(self, item):
            rate = self.rates[0]
            live = [stamp for stamp in self.stamps if stamp >= item.timestamp - rate.interval]
            if len(live) + item.weight > rate.limit:
                self.failing_rate = rate
                return False
            self.failing_rate = None
            self.stamps += [item.timestamp] * item.weight
            return True

        def leak(self, current_timestamp=None):
            return 0

        def flush(self):
            self.stamps = []

        def count(self):
            return len(self.stamps)

        def peek(self, index):
            if index >= len(self.stamps):
                return None
            return lib.RateItem("x", self.stamps[-1 - index])

    own = Own([lib.Rate(2, 300)])
    limited = limiter(lib, time, own, raise_when_fail=False)
    answers = [limited.try_acquire("x") for _ in range(3)]
    limited.max_delay = 1_000
    before = time.ms
    answers += [limited.try_acquire("x"), round(time.ms - before, -1)]
    return [*answers, [stamp - 1_000_000 for stamp in own.stamps[:2]], own.count()]


@question
def methods_that_tests_replace(lib, time):
    limited = limiter(lib, time, max_delay=1_000)
    limited.try_acquire("x")
    item = lib.RateItem("x", time.ms)
    answers = [limited.handle_bucket_put(limited.buckets()[0], item)]
    item = lib.RateItem("x", time.ms)
    limited.buckets()[0].put(item)
    return [*answers, limited.delay_or_raise(limited.buckets()[0], item)]


@question
def classes_derived_from_the_limiter(lib, time):
    class Own(lib.Limiter):
        def __init__(self, *arguments, **kwargs):
            self.seen = []
            super().__init__(*arguments, **kwargs)

        def try_acquire(self, name, weight=1):
            self.seen.append(name)
            return super().try_acquire(name, weight)

        def delay_or_raise(self, *arguments):
            self.seen.append("full")
            return super().delay_or_raise(*arguments)

    class Fixed(Own):
        def __init__(self, rate):
            super().__init__(rate, clock(lib, time), max_delay=100)

    rate = lib.Rate(1, 300)
    answers = []
    for limited in (
        Own(rate, clock(lib, time), False, 1_000),
        Own(rate, clock=clock(lib, time), raise_when_fail=False),
        Own(argument=rate, clock=clock(lib, time)),
        Fixed(rate),
    ):
        answers += [tried(limited, "a"), tried(limited, "b"), tried(limited, "b", 2)]
        answers.append(["read", limited.seen, limited.max_delay, limited.buffer_ms])
        names = [type(limited).__name__, isinstance(limited, Own), isinstance(limited, lib.Limiter)]
        answers.append(["is", *names])
    return without_remaining(answers)


@question
def items_carry_the_clocks_time(lib, time):
    limited = limiter(lib, time)
    limited.try_acquire("x")
    bucket = limited.bucket_factory.bucket
    return [bucket.peek(0).timestamp, bucket.rates[0].interval, bucket.count()]


@question
def a_sqlite_bucket(lib, time):
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "x.sqlite")
        bucket = lib.SQLiteBucket.init_from_file(
            [lib.Rate(2, 300)], table="mine", db_path=path, create_new_table=True
        )
        clocks = [lib.SQLiteClock(bucket), lib.SQLiteClock(bucket.conn)]
        limited = lib.Limiter(bucket, clock(lib, time), False, 1_000)
        answers = [limited.try_acquire("x") for _ in range(2)]
        rows = bucket.conn.execute("SELECT name, item_timestamp FROM mine").fetchall()
        answers += [rows, bucket.count(), bucket.table, bucket.use_limiter_lock]
        before = time.ms
        answers += [limited.try_acquire("x"), round(time.ms - before, -1)]
        answers += [abs(clocks[0].now() - clocks[1].now()) < 60_000]
        return answers


@question
def ready_made_limiters(lib, time):
    factory = import_module(f"{lib.__name__}.limiter_factory")
    names = ("raise_when_fail", "max_delay", "retry_until_max_delay", "buffer_ms")
    limited = factory.create_inmemory_limiter(
        rate_per_duration=2, duration=lib.Duration.MINUTE, max_delay=lib.Duration.HOUR
    )
    answers = [[getattr(limited, name) for name in names], limited.try_acquire("x")]
    limited = factory.create_inmemory_limiter(2, 100, lib.Duration.SECOND, 20)
    answers.append([getattr(limited, name) for name in names])
    with tempfile.TemporaryDirectory() as folder:
        limited = factory.create_sqlite_limiter(
            5, 100, f"{folder}/a.sqlite", max_delay=lib.Duration.DAY
        )
        answers.append([getattr(limited, name) for name in names])
        answers += [limited.try_acquire("x"), limited.buckets()[0].count()]
    bucket = lib.InMemoryBucket([lib.Rate(1, 60_000)])
    answers.append(factory.init_global_limiter(bucket, raise_when_fail=True, max_delay=5))
    answers.append([getattr(factory.LIMITER, name) for name in names])
    answers.append(factory.LIMITER.try_acquire("x"))
    return [*answers, tried(factory.LIMITER, "x")[:2]]


@question
def helpers(lib, time):
    items = [lib.RateItem("x", stamp) for stamp in (1, 3, 3, 5)]
    found = [lib.binary_search(items, value) for value in (0, 1, 2, 3, 4, 5, 6)]
    name = lib.id_generator()
    return [
        [*found, lib.binary_search([], 3)],
        [len(name), name.isalnum(), len(lib.id_generator(size=3)), lib.id_generator(4, "a")],
    ]


@question
def locks(lib, time):
    import threading

    first, second = threading.Lock(), threading.Lock()
    with lib.combined_lock([first, second]):
        answers = [first.locked(), second.locked()]
    second.acquire()

    def late():
        with lib.combined_lock([first, second], timeout_sec=0.01):
            pass

    return [*answers, outcome(late), first.locked()]


@question
def a_connection_for_clocks(lib, time):
    with lib.dedicated_sqlite_clock_connection() as connection:
        return [row[2].rsplit("/", 1)[-1] for row in connection.execute("PRAGMA database_list")]


@question
def durations_and_rates(lib, time):
    duration = lib.Duration
    return [
        [one.value for one in duration],
        [duration.SECOND * 30, 2 * duration.DAY, duration.SECOND + 5, int(duration.HOUR)],
        [str(lib.Rate(5, 3_600)), repr(lib.Rate(5, duration.MINUTE)), lib.Rate(1, 60.0).interval],
        [duration.readable(300), duration.readable(90_000)],
        lib.validate_rate_list([lib.Rate(5, 1_000), lib.Rate(10, 5_000)]),
        lib.validate_rate_list([]),
        caught_as(AssertionError, lambda: lib.Rate(0, 5)),
        str(lib.RateItem("x", 1, 2)),
    ]
