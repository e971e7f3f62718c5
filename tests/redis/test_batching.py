"""How the calls of a Redis bucket travel: shared by threads and tasks, and the short way."""

import asyncio
import contextlib
import functools
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio

from pyrate_limiter import InMemoryBucket, Limiter, Rate, RedisBucket
from pyrate_limiter.buckets.redis.request import Head, Request, Script, Step, fitting
from pyrate_limiter.buckets.remote.circuit import CircuitBreaker
from tests.support.redis_servers import async_client, shared_url, sync_client, wait_until

KEY = "calls"
RATE = Rate(1000, 60_000)


@pytest.fixture
def client():
    with sync_client(shared_url()) as client:
        client.delete(KEY)
        yield client
        client.delete(KEY)


class Held(redis.Redis):
    """A client whose calls of a script wait until they are let go."""

    def hold(self):
        self.steps = []
        self.free = threading.Event()
        self.error = None

    def execute_command(self, *args, **options):
        if args[0] == "EVALSHA":
            self.steps.append(len(args) - 5)
            number = len(self.steps)
            assert self.free.wait(20)
            if number > 2 and self.error is not None:
                raise self.error
        return super().execute_command(*args, **options)


@pytest.fixture
def held(client):
    del client  # it has a clean key
    with contextlib.closing(Held.from_url(shared_url())) as client:
        client.hold()
        yield client


def gather(bucket, pool, calls):
    """Start calls one by one, until the first two are under way and the others wait behind them."""
    limiter, futures = Limiter(bucket), []
    for number in range(calls):
        futures.append(pool.submit(limiter.try_acquire, "k", blocking=False))
        if number < 2:
            wait_until(lambda: len(bucket.redis.steps) == len(futures))
        else:
            wait_until(lambda: waiting(bucket) == len(futures) - 2)
    return futures


def waiting(bucket):
    return sum(len(callers) for callers in bucket._server.batcher._waiting.values())


def test_threads_that_wait_share_one_call_and_are_served_in_order(held):
    bucket = RedisBucket([Rate(7, 60_000)], held, KEY)
    with ThreadPoolExecutor(12) as pool:
        futures = gather(bucket, pool, 12)
        held.free.set()
        answers = [future.result(20) for future in futures]
    assert held.steps == [1, 1, 10]
    assert answers[2:] == sorted(answers[2:], reverse=True)  # the first two travel by themselves
    assert answers.count(True) == bucket.count() == 7


def test_the_error_of_a_shared_call_reaches_each_caller(held):
    bucket = RedisBucket([RATE], held, KEY)
    held.error = redis.ConnectionError("gone")
    with ThreadPoolExecutor(5) as pool:
        futures = gather(bucket, pool, 5)
        held.free.set()
        errors = [type(future.exception(20)) for future in futures]
    assert errors == [type(None)] * 2 + [redis.ConnectionError] * 3
    held.error = None
    assert Limiter(bucket).try_acquire("k")
    assert bucket.count() == 3


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread here")
def test_an_interrupted_waiter_does_not_hold_up_the_others(held):
    bucket = RedisBucket([RATE], held, KEY)
    main = threading.get_ident()

    def interrupt():
        wait_until(lambda: waiting(bucket) == 1)
        behind = [pool.submit(Limiter(bucket).try_acquire, "k") for _ in range(3)]
        wait_until(lambda: waiting(bucket) == 4)
        signal.pthread_kill(main, signal.SIGINT)
        wait_until(lambda: waiting(bucket) == 3)
        held.free.set()
        return [future.result(20) for future in behind]

    with ThreadPoolExecutor(8) as pool:
        first = gather(bucket, pool, 2)
        others = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            Limiter(bucket).try_acquire("k")
        assert others.result(20) == [True] * 3
        assert [future.result(20) for future in first] == [True] * 2
    assert bucket.count() == 5


def test_threads_of_a_forked_parent_are_not_waited_for(client):
    bucket = RedisBucket([RATE], client, KEY)
    batcher = bucket._server.batcher
    batcher._under_way[bucket._head], batcher._pid = 2, -1  # as the child of a busy parent finds it
    assert Limiter(bucket).try_acquire("k")


def test_tasks_of_one_turn_are_judged_one_after_the_other(client):
    async def acquire():
        bucket = RedisBucket([Rate(10, 60_000)], await async_client(shared_url()), KEY)
        limiter = Limiter(bucket)
        weights = (4, 8, 5, 11, 1, 1)
        return await asyncio.gather(
            *(limiter.try_acquire_async("k", weight, blocking=False) for weight in weights)
        )

    assert asyncio.run(acquire()) == [True, False, True, False, True, False]
    assert client.zcard(KEY) == 10


def test_a_heavy_item_is_stored_unit_by_unit(client):
    assert Limiter(RedisBucket([RATE], client, KEY)).try_acquire("k", 777)
    assert client.zcard(KEY) == 777
    assert len({score for _, score in client.zrange(KEY, 0, -1, withscores=True)}) == 1


def test_the_short_way_loads_the_script_again(client):
    limiter = Limiter(RedisBucket([RATE], client, KEY))
    assert limiter.try_acquire("k")
    client.script_flush()
    assert limiter.try_acquire("k")


def test_the_short_way_survives_a_lost_connection(client):
    limiter = Limiter(RedisBucket([RATE], client, KEY))
    assert limiter.try_acquire("k")
    with sync_client(shared_url()) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert limiter.try_acquire("k")


@pytest.mark.parametrize("first", ["the watcher", "the bucket"])
def test_a_client_that_is_watched_is_not_passed_by(client, monkeypatch, first):
    bucket, seen = RedisBucket([RATE], client, KEY), []
    execute = redis.Redis.execute_command

    @functools.wraps(execute)
    def watched(self, *args, **options):
        seen.append(args[0])
        return execute(self, *args, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", watched)
    if first == "the watcher":
        bucket = RedisBucket([RATE], client, KEY)
    assert Limiter(bucket).try_acquire("k")
    assert "EVALSHA" in seen


def test_an_asyncio_client_that_is_watched_is_not_passed_by(client, monkeypatch):
    seen, execute = [], redis.asyncio.Redis.execute_command

    @functools.wraps(execute)
    async def watched(self, *args, **options):
        seen.append(args[0])
        return await execute(self, *args, **options)

    async def main():
        monkeypatch.setattr(redis.asyncio.Redis, "execute_command", watched)
        ours = await async_client(shared_url())
        return await Limiter(RedisBucket([RATE], ours, KEY)).try_acquire_async("k")

    assert asyncio.run(main())
    assert "EVALSHA" in seen


def test_a_burst_of_errors_at_once_is_one_failure():
    outage = CircuitBreaker("away", "back")
    for _ in range(50):
        outage.failed(ConnectionError())
    assert outage.retry_ms() <= 101


def test_a_failed_probe_doubles_the_pause():
    outage = CircuitBreaker("away", "back")
    outage.failed(ConnectionError())
    outage._next_probe = 0.0
    assert outage.may_try()
    outage.failed(ConnectionError())
    assert 101 < outage.retry_ms() <= 201


def test_a_shared_call_that_fails_falls_back_for_each_caller(held):
    bucket = RedisBucket([RATE], held, KEY, on_error=InMemoryBucket)
    held.error = redis.ConnectionError("gone")
    with ThreadPoolExecutor(5) as pool:
        futures = gather(bucket, pool, 5)
        held.free.set()
        assert all(future.result(20) for future in futures)
    assert bucket.count() == 2


FOR_EVER = 1 << 50


def requests_of(steps):
    head = Head(Script(""), "key", ())
    return [Request(head, [step], None) for step in steps]


@pytest.mark.parametrize(
    ("kinds", "most"),
    [
        ([("reserve", 1)], 250),
        ([("reserve", 100)], 20),
        ([("confirm", 1)], 100),
        ([("forget", 1)], 25),
        ([("cancel", 1)], 250),
        # Each of these searches for room in front of others.
        ([("cancel", 1), ("reserve", 1)], 14),
        ([("confirm", 1), ("reserve", 1)], 14),
        ([("reserve", weight) for weight in range(50, 0, -1)], 7),
    ],
)
def test_a_call_of_many_holds_no_more_work_than_holds_up_the_server_shortly(kinds, most):
    repeated = enumerate(kinds * (500 // len(kinds)))
    steps = [Step(kind, weight, FOR_EVER, 0, f"a:{n}") for n, (kind, weight) in repeated]
    assert 0.7 * most <= fitting(requests_of(steps)) <= most


def test_a_single_request_is_never_divided():
    assert fitting(requests_of([Step("reserve", 100_000, FOR_EVER, 0, "a:1")] * 2)) == 1
