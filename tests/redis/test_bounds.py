"""What a caller does harms neither the server nor anybody else who uses it."""

import asyncio
import contextlib
import enum
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrate_limiter import (
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from pyrate_limiter.buckets.redis.request import Step
from pyrate_limiter.testing import ManualClock
from tests.support.callers import AtRedis
from tests.support.redis_proxy import Proxy
from tests.support.redis_servers import (
    RedisServer,
    async_client,
    fresh_key,
    shared_url,
    sync_client,
    wait_until,
)

MANY = Rate(1_000_000, 60_000)


@pytest.fixture
def client():
    with sync_client(shared_url()) as client:
        yield client


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


class Spy(redis.Redis):
    """Keeps the steps of each call of a script; fails after the call while ``error`` is set."""

    def look(self):
        self.calls, self.error = [], None

    def evalsha(self, sha, keys, key, header, *steps):
        self.calls.append([step.decode() if isinstance(step, bytes) else step for step in steps])
        reply = super().evalsha(sha, keys, key, header, *steps)
        if self.error is not None:
            raise self.error
        return reply


@pytest.fixture
def spy():
    with contextlib.closing(Spy.from_url(shared_url())) as client:
        client.look()
        yield client


def weights(steps):
    return [int(step.split(" ", 2)[1]) for step in steps]


# Bounded work


def test_what_failed_calls_have_left_is_dropped_a_few_at_a_time(spy):
    bucket = RedisBucket([MANY], spy, fresh_key())
    spy.error = redis.TimeoutError("lost")
    for _ in range(30):
        with pytest.raises(redis.TimeoutError):
            Limiter(bucket).try_acquire("a", 100)
    spy.error = None
    for _ in range(6):
        assert Limiter(bucket).try_acquire("a")
    drops = [sum(step.startswith("forget") for step in steps) for steps in spy.calls]
    assert max(drops) == 8
    assert bucket.count() == 6


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", ["refused", "wrong type", "no connection left"])
def test_a_call_that_the_server_cannot_have_done_leaves_nothing_to_drop(
    client, server, error, is_async
):
    key = fresh_key()
    client.set(key, "no sorted set")
    url = shared_url() if error != "refused" else f"redis://127.0.0.1:{server.port}"
    with contextlib.closing(AtRedis(is_async, url, most=1)) as callers:
        if error == "refused":
            server.stop()
        bucket, keyed = (
            RedisBucket([MANY], callers.client, key),
            RedisKeys(callers.client, key).for_name([MANY], ""),
        )
        connection = callers.borrow() if error == "no connection left" else None
        for each in (bucket, bucket, keyed):
            with pytest.raises(redis.RedisError):
                callers.call(lambda each=each: Limiter(each).try_acquire("a", timeout=0.2))
            assert not each._in_doubt
        if connection:
            callers.give_back(connection)


def evalsha_us(admin):
    """The microseconds that the server was at scripts since that was reset."""
    return admin.info("commandstats")["cmdstat_evalsha"]["usec"]


@pytest.mark.parametrize("left", ["failed", "cancelled"])
def test_what_calls_have_left_behind_costs_no_more_in_a_great_log(server, left):
    def cost(client, units):
        client.flushall()
        bucket = RedisBucket([MANY], client, fresh_key())
        for _ in range(units // 2000):
            assert bucket.put(RateItem("a", bucket.now(), 2000))
        made = [bucket.reserve(RateItem("a", bucket.now())) for _ in range(8)]
        assert all(made)
        client.config_resetstat()
        if left == "failed":
            bucket._in_doubt.add([Step("reserve", 1, 0, 0, f"a:{n:016x}") for n in range(8)])
            assert Limiter(bucket).try_acquire("a")
        else:
            assert all(bucket.cancel(reservation) for reservation in made)
        return evalsha_us(client)

    with redis.Redis(port=server.port) as client:
        # A busy machine holds up the server too: so the least of a few tries.
        great, small = (min(cost(client, units) for _ in range(4)) for units in (40_000, 2000))
    assert great < 5 * small < 50_000


def test_a_call_of_many_has_no_more_units_than_hold_up_the_server_shortly(spy):
    bucket = RedisBucket([MANY], spy, fresh_key())
    with ThreadPoolExecutor(40) as pool:
        limiter = Limiter(bucket)
        assert all(pool.map(lambda _: limiter.try_acquire("a", 300), range(200)))
    assert bucket.count() == 60_000
    assert max(sum(weights(steps)) for steps in spy.calls) <= 2000


def test_tasks_share_calls_of_no_more_units_than_hold_up_the_server_shortly(client):
    key, seen = fresh_key(), []

    class AsyncSpy(redis.asyncio.Redis):
        async def evalsha(self, sha, keys, key, header, *steps):
            seen.append(sum(weights(steps)))
            return await super().evalsha(sha, keys, key, header, *steps)

    async def main():
        async with AsyncSpy.from_url(shared_url()) as ours:
            limiter = Limiter(RedisBucket([MANY], ours, key))
            tasks = [limiter.try_acquire_async("a", 300) for _ in range(100)]
            assert all(await asyncio.gather(*tasks))

    asyncio.run(main())
    assert client.zcard(key) == 30_000
    assert max(seen) <= 2000


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", ["log", "keys"])
def test_a_great_weight_is_taken_whole_or_not_at_all(kind, is_async):
    with contextlib.closing(AtRedis(is_async, shared_url())) as callers:
        limiter = callers.limiter(kind, Rate(10_000, 60_000), fresh_key())
        check = limiter.check_async if is_async else limiter.check

        def stored():
            return 10_000 - callers.call(lambda: check("a")).remaining

        # In each other's way they may all be refused. What they have stored goes back.
        asked = [lambda: limiter.try_acquire("a", 3001, blocking=False)] * 6
        taken = 3001 * callers.together(asked).count(True)
        assert taken <= 10_000
        wait_until(lambda: stored() == taken)
        assert callers.call(lambda: limiter.try_acquire("a", 10_000 - taken, blocking=False))
        assert stored() == 10_000


def test_a_great_weight_is_stored_in_parts_all_or_nothing(spy):
    bucket = RedisBucket([Rate(10_000, 60_000)], spy, fresh_key())
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", 5001, blocking=False)
    assert bucket.count() == 5001
    assert not limiter.try_acquire("a", 5000, blocking=False)
    assert bucket.count() == 5001
    assert max(sum(weights(steps)) for steps in spy.calls) <= 2000
    item = RateItem("a", 0, 4999)
    reservation = bucket.reserve(item)
    assert reservation
    assert bucket.cancel(reservation)
    assert bucket.count() == 5001


def test_a_great_weight_goes_back_where_others_take_the_room(spy, monkeypatch):
    bucket = RedisBucket([Rate(10_000, 60_000)], spy, fresh_key())
    evalsha, others = Spy.evalsha, RedisBucket([Rate(10_000, 60_000)], spy, bucket.bucket_key)

    def in_between(self, *args):
        reply = evalsha(self, *args)
        if len(self.calls) == 2:
            assert others.put(RateItem("b", others.now(), 1500))
        return reply

    monkeypatch.setattr(Spy, "evalsha", in_between)
    assert not Limiter(bucket).try_acquire("a", 9000, blocking=False)
    for _ in range(3):
        assert bucket.reserve(RateItem("a", 0)).allowed  # and drops some of what was stored
    assert bucket.count() == 1503


def test_a_clock_that_steps_back_under_a_great_log_holds_the_server_up_no_longer(client):
    bucket = RedisBucket([Rate(100_000, 60_000)], client, fresh_key())
    bucket._clock = ManualClock(10**12)
    for _ in range(10):
        assert bucket.put(RateItem("a", 10**12, 2000))
    bucket._clock.set(10**12 - 3_600_000)
    client.config_resetstat()
    assert bucket.put(RateItem("a", bucket.now()))
    assert client.info("commandstats")["cmdstat_zadd"]["calls"] < 2500
    assert bucket.count() == 2001


def test_the_sweeper_does_not_ask_for_keys_that_expire(spy):
    buckets = [
        RedisBucket([MANY], spy, fresh_key()),
        RedisKeys(spy, fresh_key()).for_name([MANY], "a"),
        StateBucket([MANY], store=RedisStateStore(spy, fresh_key())),
    ]
    assert all(Limiter(bucket).try_acquire("a") for bucket in buckets)
    spy.connection_pool.disconnect()
    spy.connection_pool.connection_kwargs["port"] = 1  # where nobody is
    assert [bucket.leak() for bucket in buckets] == [0] * 3


def test_a_key_lives_as_long_as_the_longest_rate_on_it_counts(client):
    key = fresh_key()
    long, short = (RedisBucket([rate], client, key) for rate in (Rate(20, 3_600_000), Rate(5, 50)))
    assert long.reserve(RateItem("a", 0, 20)).allowed
    for _ in range(300):
        short.reserve(RateItem("a", 0))
    assert client.pttl(key) > 3_600_000
    assert not long.check(RateItem("a", 0)).allowed


def test_a_state_lives_as_long_as_the_longest_rate_on_it_owes(client):
    key = fresh_key()
    long, short = (
        StateBucket([rate], store=RedisStateStore(client, key))
        for rate in (Rate(20, 3_600_000), Rate(1000, 50))
    )
    assert long.reserve(RateItem("a", 0, 20)).allowed
    for _ in range(30):
        short.reserve(RateItem("a", 0))
    assert client.pttl(key) > 3_600_000
    assert not long.check(RateItem("a", 0)).allowed


# Names and weights


class Weight(int, enum.Enum):
    TWO = 2


class Name(str, enum.Enum):
    A = "a"


ODD = ["lone\ud800", 12345, None, b"bytes", ("t", 1), Name.A, 1.5, "x" * 100_000, "ü" * 5000]


@pytest.mark.parametrize("name", ODD, ids=lambda name: ascii(name)[:12])
def test_an_odd_name_is_a_name_and_fails_nobody(client, name):
    key = fresh_key()

    async def main():
        ours = await async_client(shared_url(), encoding="ascii")
        limiter = Limiter(RedisBucket([MANY], ours, key))
        names = [*("b" * 50), name, *("c" * 49)]
        assert all(await asyncio.gather(*(limiter.try_acquire_async(each, 2) for each in names)))
        plain = await async_client(shared_url())
        per_key = Limiter.per_key(Rate(2, 60_000), bucket=RedisKeys(plain, f"{key}:"))
        answers = [await per_key.try_acquire_async(name, blocking=False) for _ in range(3)]
        assert answers == [True, True, False]

    asyncio.run(main())
    units = Counter(member.rsplit(b":", 1)[0] for member in client.zrange(key, 0, -1))
    assert {item: number for item, number in units.items() if number != 2} == {}
    assert len(units) == 100
    assert max(len(member) for member in client.zrange(key, 0, -1)) < 2200
    assert max(len(found) for found in client.scan_iter(f"{key}*", count=1000)) < 2200


def test_long_names_that_begin_alike_have_keys_of_their_own(client):
    limiter = Limiter.per_key(Rate(1, 60_000), bucket=RedisKeys(client, f"{fresh_key()}:"))
    names = ["x" * 5000 + end for end in "ab"]
    assert [limiter.try_acquire(name, blocking=False) for name in names * 2] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("state", [False, True], ids=["log", "state"])
def test_a_weight_of_an_odd_class_of_int_is_its_number(client, state):
    rate, key = Rate(3, 60_000), fresh_key()
    bucket = RedisBucket([rate], client, key)
    if state:
        bucket = StateBucket([rate], store=RedisStateStore(client, key))
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", Weight.TWO, blocking=False)
    assert limiter.try_acquire("a", True, blocking=False)
    assert bucket.count() == 3


# Connections and time


# One that says at once that it has no connection left, and one that waits for a moment first.
@pytest.mark.parametrize(
    ("kind", "options"),
    [(redis.ConnectionPool, {}), (redis.BlockingConnectionPool, {"timeout": 0.001})],
    ids=["at once", "after a moment"],
)
@pytest.mark.parametrize("most", [1, 2])
def test_callers_wait_for_a_connection_of_a_small_pool(most, kind, options):
    pool = kind.from_url(shared_url(), max_connections=most, **options)
    limiter = Limiter(RedisBucket([MANY], redis.Redis(connection_pool=pool), fresh_key()))
    keys = RedisKeys(redis.Redis(connection_pool=pool), f"{fresh_key()}:")
    per_key = Limiter.per_key(MANY, bucket=keys)

    def work(worker):
        return [
            limiter.try_acquire("a", timeout=20) and per_key.try_acquire(f"n{worker}")
            for _ in range(10)
        ]

    with ThreadPoolExecutor(16) as threads:
        assert all(all(answers) for answers in threads.map(work, range(16)))
    pool.disconnect()


@pytest.mark.parametrize("state", [False, True], ids=["log", "state"])
@pytest.mark.parametrize("timeout", [-1, 20], ids=["for ever", "with a timeout"])
def test_threads_that_wait_share_a_few_connections(client, timeout, state):
    name = fresh_key()
    with sync_client(shared_url(), client_name=name) as ours:
        bucket = RedisBucket([Rate(20, 100)], ours, name)
        if state:
            bucket = StateBucket([Rate(20, 100)], store=RedisStateStore(ours, name))
        limiter = Limiter(bucket)
        with ThreadPoolExecutor(32) as threads:
            assert all(threads.map(lambda _: limiter.try_acquire("a", timeout=timeout), range(64)))
        named = [each for each in client.client_list() if each["name"] == name]
    assert len(named) <= 4


@pytest.mark.parametrize("most", [1, 2])
def test_tasks_wait_for_a_connection_of_a_small_pool(most):
    async def main():
        ours = await async_client(shared_url(), max_connections=most)
        bucket = await RedisBucket.init([Rate(50, 100)], ours, fresh_key())
        limiter = Limiter(bucket)
        assert all(await asyncio.gather(*(limiter.try_acquire_async("a") for _ in range(120))))

    asyncio.run(main())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_short_timeout_is_answered_by_a_server_that_takes_a_little_longer(monkeypatch, is_async):
    monkeypatch.setattr("pyrate_limiter.buckets.redis.client.LAST_MS", 20_000)
    proxy = Proxy(int(shared_url().rsplit(":", 1)[1]))
    rate, key = Rate(1, 60_000), fresh_key()

    async def main():
        if is_async:
            limiter = Limiter(RedisBucket([rate], await async_client(proxy.url), key))
            proxy.delay = 0.05
            return [await limiter.try_acquire_async("a", timeout=0.02) for _ in range(2)]
        with sync_client(proxy.url) as ours:
            limiter = Limiter(RedisBucket([rate], ours, key))
            proxy.delay = 0.05
            return [limiter.try_acquire("a", timeout=0.02) for _ in range(2)]

    with contextlib.closing(proxy):
        assert asyncio.run(main()) == [True, False]


def test_threads_with_timeouts_share_calls_and_keep_to_the_limit(client):
    rate, key = Rate(500, 60_000), fresh_key()
    bucket = RedisBucket([rate], client, key)
    limiter = Limiter(bucket)
    with ThreadPoolExecutor(32) as pool:
        answers = pool.map(lambda _: limiter.try_acquire("a", timeout=20), range(500))
        assert all(answers)
    assert bucket.count() == 500
    assert threading.active_count() < 32


def test_the_task_that_calls_is_not_made_by_a_factory_of_the_users(client):
    del client

    async def main():
        bucket = RedisBucket([MANY], await async_client(shared_url()), fresh_key())
        limiter = Limiter(bucket)

        made = []

        def note(loop, coroutine, **options):
            made.append(coroutine.__qualname__)
            return asyncio.Task(coroutine, loop=loop, **options)

        asyncio.get_running_loop().set_task_factory(note)
        assert await limiter.try_acquire_async("a")
        # An eager one would begin them before they are known: they are none of its business.
        assert not [name for name in made if name.startswith("Lane")]

    asyncio.run(main())


def test_a_caller_with_a_timeout_is_answered_while_python_ends():
    program = f"""
import atexit, redis
from pyrate_limiter import Limiter, Rate, RedisBucket
client = redis.Redis.from_url({shared_url()!r})
limiter = Limiter(RedisBucket([Rate(9, 60000)], client, {fresh_key()!r}))
atexit.register(lambda: print(limiter.try_acquire("a", timeout=5)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


# Outages


class NoOutage(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "is_outage"),
    [
        (redis.ConnectionError("Error 111 connecting"), True),
        (redis.TimeoutError("Timeout reading"), True),
        (OSError("no route"), True),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), True),
        (redis.ResponseError("BUSY Redis is busy running a script."), True),
        (redis.ResponseError("OOM command not allowed"), True),
        (redis.ReadOnlyError("You can't write against a read only replica."), True),
        (redis.ResponseError("WRONGTYPE Operation against a key"), False),
        (redis.ResponseError("NOPERM this user has no permissions"), False),
        (redis.AuthenticationError("WRONGPASS invalid username-password pair"), False),
        (
            redis.exceptions.RedisClusterException("Cannot be connected. Authentication required."),
            False,
        ),
        (redis.ConnectionError("No master found: AuthenticationError('invalid')"), False),
        (redis.ConnectionError("Too many connections"), False),
        (redis.ConnectionError("No connection available."), False),
        (redis.exceptions.MaxConnectionsError(), False),
        (redis.DataError("Invalid input of type"), False),
        (NoOutage(), False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_only_an_outage_is_an_outage(client, error, is_outage):
    bucket = RedisBucket([MANY], client, fresh_key(), on_error="allow")
    assert bucket._server.outage.covers(error) is is_outage


def test_a_fallback_answers_at_once_while_the_probe_takes_long(server):
    client = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0), socket_timeout=None)
    limiter = Limiter(
        RedisBucket([MANY], client, "k", on_error=InMemoryBucket([MANY]), call_timeout=0.2)
    )
    assert limiter.try_acquire("a", blocking=False)
    server.freeze()
    begin = time.monotonic()
    while time.monotonic() - begin < 1:
        assert limiter.try_acquire("a", blocking=False)
    assert threading.active_count() < 20
    server.thaw()
