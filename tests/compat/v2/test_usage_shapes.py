"""Programs for 2.x as people wrote them, unchanged: every import is from the top of the package."""

import asyncio
import math
from datetime import datetime, timezone
from threading import Thread
from time import time as epoch
from typing import Any

import pytest

import pyrate_limiter
import pyrate_limiter.bucket
import pyrate_limiter.limit_context_decorator
from pyrate_limiter import (
    BucketFullException,
    Duration,
    FileLockSQLiteBucket,
    LimitContextDecorator,
    Limiter,
    MemoryListBucket,
    MemoryQueueBucket,
    RequestRate,
    SQLiteBucket,
)


class Clock:
    def __init__(self, monkeypatch):
        self.seconds = 0.0
        self.slept = []
        monkeypatch.setattr("pyrate_limiter.limit_context_decorator.sleep", self.sleep)

    def __call__(self):
        return self.seconds

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds


def no_more_than(limit, interval, times):
    times = sorted(times)
    return all(round(late - early, 3) >= interval for early, late in zip(times, times[limit:]))


pytestmark = pytest.mark.usefixtures("temporary_folder")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (RequestRate(2, Duration.SECOND * 5), "2/5"),
        (RequestRate(60, Duration.MINUTE), "60/60"),
        (RequestRate(1, 2 * Duration.HOUR), "1/7200"),
        (RequestRate(1, Duration.DAY + Duration.HOUR), "1/90000"),
        (RequestRate(1000, Duration.MONTH), "1000/2592000"),
        (RequestRate(1, Duration.SECOND * 0.5), "1/0.5"),
        (RequestRate(15, 15 * Duration.MINUTE + 10), "15/910"),
        (RequestRate(15, 10 + Duration.MINUTE), "15/70"),
        (RequestRate(1, 2 * (2 * Duration.MINUTE - 5 * Duration.SECOND + 1)), "1/232"),
        (RequestRate(1, 2), "1/2"),
        (RequestRate(limit=60, interval=60), "60/60"),
        (RequestRate(300_000 / 7, 5000), f"{300_000 / 7}/5000"),
    ],
)
def test_a_bare_number_is_in_seconds_and_a_duration_is_what_it_says(rate, text):
    assert str(rate) == text


def test_a_duration_of_ones_own_is_in_seconds(monkeypatch):
    monkeypatch.setattr(Duration, "CUSTOM", 15, raising=False)
    assert RequestRate(6, Duration.CUSTOM).interval == 15


def test_durations_are_in_seconds_also_as_a_max_delay(clock):
    limiter = Limiter(RequestRate(1, 5), time_function=clock)
    guard = limiter.ratelimit("a", delay=True, max_delay=Duration.SECOND * 4)
    assert guard.max_delay == 4
    assert limiter.ratelimit("a", max_delay=Duration.MINUTE).max_delay == 60


def test_a_limiter_of_2x_is_a_limiter_and_shows_the_names_of_2x_alone():
    limiter = Limiter(RequestRate(1, 5))
    assert isinstance(limiter, Limiter)
    assert hasattr(limiter, "bucket_group")
    assert getattr(limiter, "try_acquire_async", None) is None
    assert not hasattr(Limiter(pyrate_limiter.Rate(1, 5)), "bucket_group")


def test_no_method_of_this_release_is_seen_on_a_limiter_of_2x():
    own = {"bucket_group", "flush_all", "get_current_volume", "ratelimit", "time_function"}
    limiter = Limiter(RequestRate(1, 5))
    public = {name for name in dir(limiter) if not name.startswith("_")}
    assert {name for name in public if hasattr(limiter, name)} == {*own, "try_acquire"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limiter(RequestRate(1, 5)),
        lambda: Limiter(RequestRate(1, 5), bucket_class=MemoryQueueBucket),
        lambda: Limiter(RequestRate(1, 5), RequestRate(10, 60)),
        lambda: Limiter(*[RequestRate(1, 5)], bucket_class=MemoryListBucket, bucket_kwargs={}),
        lambda: Limiter(RequestRate(1, 5), time_function=epoch),
        lambda: Limiter(
            RequestRate(1, 5), time_function=lambda: datetime.now(timezone.utc).timestamp()
        ),
    ],
)
def test_a_guard_that_catches_the_exception_lets_one_call_through(make):
    limiter = make()

    def is_spam(user):
        try:
            limiter.try_acquire(user)
        except BucketFullException:
            return True
        return False

    assert [is_spam("a"), is_spam("a"), is_spam("b")] == [False, True, False]


@pytest.mark.parametrize(
    "pause",
    [int, round, float, math.ceil, lambda left: left + 1, lambda left: max(left, 1)],
)
def test_the_remaining_time_can_be_slept(clock, pause):
    limiter = Limiter(RequestRate(1, 5), time_function=clock)
    limiter.try_acquire("a")
    clock.seconds = 1.0
    with pytest.raises(BucketFullException) as caught:
        limiter.try_acquire("a")
    assert caught.value.meta_info["remaining_time"] == 4.0
    clock.sleep(pause(caught.value.meta_info["remaining_time"]))
    limiter.try_acquire("a")


class AntiSpam:
    """Copied very widely."""

    def __init__(self, clock):
        rates = [
            RequestRate(6, Duration.CUSTOM),
            RequestRate(20, Duration.MINUTE),
            RequestRate(100, Duration.HOUR),
            RequestRate(1000, Duration.DAY),
        ]
        self.limiter = Limiter(*rates, bucket_class=MemoryListBucket, time_function=clock)

    def check_user(self, user):
        try:
            self.limiter.try_acquire(user)
        except BucketFullException:
            return True
        return False


def test_the_antispam_class(clock, monkeypatch):
    monkeypatch.setattr(Duration, "CUSTOM", 15, raising=False)
    spam = AntiSpam(clock)
    verdicts = []
    for _ in range(30):
        verdicts.append(spam.check_user(7))
        clock.seconds += 1
    assert verdicts == [False] * 6 + [True] * 9 + [False] * 6 + [True] * 9


def test_methods_share_a_limiter_of_the_class(clock):
    class Client:
        _limiter = Limiter(RequestRate(1, 4), time_function=clock)

        @_limiter.ratelimit("comments", delay=True)
        def comments(self):
            return "comments"

    assert [Client().comments() for _ in range(3)] == ["comments"] * 3
    assert clock.slept == [4.0, 4.0]


def test_a_block_in_a_method_waits(clock):
    class Session:
        def __init__(self):
            self.limiter = Limiter(RequestRate(1, 4), time_function=clock)
            self.max_delay = 5

        def send(self, *ids):
            with self.limiter.ratelimit(*ids, delay=True, max_delay=self.max_delay):
                return "sent"

    session = Session()
    assert [session.send("host", "path"), session.send("host", "path")] == ["sent", "sent"]
    assert clock.slept == [4.0]


def test_coroutines_wait_in_the_event_loop():
    limiter = Limiter(RequestRate(2, 0.1))

    @limiter.ratelimit("api", delay=True, max_delay=120)
    async def call():
        return limiter.bucket_group["api"].all_items()[-1]

    async def main():
        async with limiter.ratelimit("other", delay=True):
            pass
        return await asyncio.gather(*(call() for _ in range(5)))

    assert no_more_than(2, 0.1, asyncio.run(main()))


@pytest.mark.parametrize("kind", [SQLiteBucket, FileLockSQLiteBucket])
def test_a_file_of_ones_own_outlives_the_limiter(kind, clock, tmp_path):
    kwargs = {
        "path": str(tmp_path / "calls.db"),
        "isolation_level": "EXCLUSIVE",
        "check_same_thread": False,
    }
    rate = RequestRate(1, Duration.MINUTE)
    for expected in (False, True):
        limiter = Limiter(rate, bucket_class=kind, bucket_kwargs=kwargs, time_function=clock)
        refused = False
        try:
            limiter.try_acquire("a")
        except BucketFullException:
            refused = True
        assert refused is expected
        limiter.bucket_group["a"].close()


def test_what_programs_read_of_a_limiter(clock):
    limiter = Limiter(RequestRate(3, 5), time_function=clock)
    with limiter.ratelimit("host"):
        pass
    bucket = limiter.bucket_group["host"]
    assert (limiter._rates[0].limit, limiter._rates[0].interval) == (3, 5)
    assert limiter.get_current_volume("host") == 1
    # as requests-ratelimiter fills a bucket after a 429
    now = limiter.time_function()
    for rate in limiter._rates:
        used, _ = bucket.inspect_expired_items(now - rate.interval)
        for _ in range(rate.limit - used):
            bucket.put(now)
    with pytest.raises(BucketFullException):
        limiter.try_acquire("host")
    assert limiter.flush_all() == 1
    limiter.try_acquire("host")


def test_submodules_are_where_they_were():
    from pyrate_limiter.bucket import AbstractBucket
    from pyrate_limiter.bucket import MemoryQueueBucket as Queue
    from pyrate_limiter.constants import Duration as OldDuration
    from pyrate_limiter.exceptions import BucketFullException as Full
    from pyrate_limiter.limiter import BucketFullException as FullAgain
    from pyrate_limiter.request_rate import RequestRate as Rate

    assert pyrate_limiter.bucket.MemoryQueueBucket is Queue is MemoryQueueBucket
    assert issubclass(Queue, AbstractBucket)
    assert OldDuration.MINUTE == 60
    assert Full is FullAgain is BucketFullException
    assert Rate is RequestRate


def test_a_star_import_brings_the_names_of_2x():
    names: dict[str, Any] = {}
    exec("from pyrate_limiter import *", names)
    assert names["RequestRate"] is RequestRate
    assert names["MemoryQueueBucket"] is MemoryQueueBucket
    assert names["BucketFullException"] is BucketFullException
    assert names["Limiter"] is Limiter


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pyrate_limiter.abstracts.rate", "RequestRate"),
        ("pyrate_limiter.buckets.in_memory_bucket", "MemoryListBucket"),
    ],
)
def test_what_no_release_had_there_is_still_an_import_error(module, name):
    with pytest.raises(ImportError):
        exec(f"from {module} import {name}")


def test_a_guard_may_be_derived_from(clock):
    class Answer429(LimitContextDecorator):
        def delayed_acquire(self):
            try:
                self.try_acquire()
            except BucketFullException as error:
                raise ConnectionError(429) from error

    limiter = Limiter(RequestRate(1, 5), time_function=clock)
    guards = [Answer429(limiter, "a"), limiter.ratelimit("b")]
    assert all(isinstance(guard, LimitContextDecorator) for guard in guards)
    with guards[0]:
        pass
    with pytest.raises(ConnectionError, match="429"), guards[0]:
        pass


def test_a_wait_is_logged(clock, caplog):
    caplog.set_level("DEBUG", "pyrate_limiter.limit_context_decorator")
    limiter = Limiter(RequestRate(1, 5), time_function=clock)
    for _ in range(2):
        with limiter.ratelimit("a", delay=True):
            pass
    assert caplog.messages == ["Rate limit reached; 5.00000 seconds remaining before next request"]


def test_tests_may_replace_what_decides_on_the_delay(clock, monkeypatch):
    limiter = Limiter(RequestRate(1, 5), time_function=clock)
    monkeypatch.setattr(
        "pyrate_limiter.limit_context_decorator.LimitContextDecorator.delay_or_reraise",
        lambda self, err: 5.5,
    )
    with limiter.ratelimit("a"):
        pass
    with limiter.ratelimit("a"):
        assert clock.slept == [5.5]


def test_a_redis_bucket_may_bring_its_own_client(clock):
    from fakeredis import FakeRedis

    client = FakeRedis()

    class Django(pyrate_limiter.RedisBucket):
        def get_connection(self):
            return client

    kwargs = {"redis_pool": "none", "bucket_name": "auth"}
    rate = RequestRate(1, 5)
    limiter = Limiter(rate, bucket_class=Django, bucket_kwargs=kwargs, time_function=clock)
    limiter.try_acquire("a")
    with pytest.raises(BucketFullException):
        limiter.try_acquire("a")
    assert client.lrange("auth___a", 0, -1) == [b"0.0"]


def test_a_bucket_is_made_by_hand(tmp_path):
    from fakeredis import FakeRedis

    client = FakeRedis()
    made = [
        SQLiteBucket(maxsize=2, identity="a", path=tmp_path / "calls.db"),
        pyrate_limiter.RedisBucket(2, redis_pool=client, bucket_name="auth", identity="a"),
    ]
    for bucket in made:
        assert [bucket.put(1.5), bucket.put(2), bucket.put(3)] == [1, 1, 0]
        assert bucket.all_items() == [1.5, 2.0]
    assert client.lrange("auth___a", 0, -1) == [b"1.5", b"2.0"]


def test_threads_that_wait_never_exceed_the_rate():
    times = []

    class Noting(MemoryListBucket):
        def put(self, item):
            times.append(item)
            return super().put(item)

    limiter = Limiter(RequestRate(2, 0.1), bucket_class=Noting)

    @limiter.ratelimit("a", delay=True)
    def call():
        return None

    threads = [Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 8
    assert no_more_than(2, 0.1, times)
