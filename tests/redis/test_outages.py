"""Callers, waiters and stores while a real server is killed, frozen, empty, or out of memory."""

import asyncio
import time

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
from tests.support.redis_servers import DEFAULT, KINDS, RedisServer, async_client, wait_until

ERRORS = (redis.ConnectionError, redis.TimeoutError)


@pytest.fixture(params=[DEFAULT])
def server(request):
    server = RedisServer(kind=request.param)
    yield server
    server.close()


@pytest.fixture
def client(server):
    client = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0), socket_timeout=20)
    yield client
    client.close()


def url(server):
    return f"redis://127.0.0.1:{server.port}"


def make(client, rate=None, **options):
    return RedisBucket([rate or Rate(3, 60_000)], client, "key", **options)


def test_a_killed_server_raises_at_once_and_is_used_again_when_it_is_back(server, client):
    limiter = Limiter(make(client))
    assert limiter.try_acquire("a", blocking=False)
    server.stop()
    start = time.monotonic()
    with pytest.raises(ERRORS):
        limiter.try_acquire("a", blocking=False)
    assert time.monotonic() - start < 10
    server.start()  # empty, and without the script
    assert [limiter.try_acquire("a", blocking=False) for _ in range(4)] == [True, True, True, False]


def test_a_flushed_script_is_loaded_again(client):
    bucket = make(client)
    assert bucket.put(RateItem("a", bucket.now()))
    client.script_flush()
    assert bucket.put(RateItem("a", bucket.now()))
    store = StateBucket([Rate(3, 60_000)], store=RedisStateStore(client, "state"))
    assert store.put(RateItem("a", store.now()))
    client.script_flush()
    assert store.put(RateItem("a", store.now()))


@pytest.mark.parametrize("timeout", [0.3, 1])
def test_a_frozen_server_holds_nobody_longer_than_the_timeout(server, client, timeout):
    limiter = Limiter(make(client))
    assert limiter.try_acquire("a", blocking=False)
    server.freeze()
    start = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        limiter.try_acquire("a", timeout=timeout)
    assert timeout - 0.05 < time.monotonic() - start < timeout + 10
    server.thaw()
    # What the frozen server had in its ears when the caller gave up is undone.
    wait_until(lambda: limiter.bucket_factory.bucket.count() == 1)
    assert [limiter.try_acquire("a", blocking=False) for _ in range(3)] == [True, True, False]


def test_call_timeout_bounds_calls_that_do_not_wait(server, client):
    bucket = make(client, call_timeout=15)
    limiter = Limiter(bucket)
    assert limiter.try_acquire("a", blocking=False)
    server.freeze()
    bucket._server.call_timeout = 0.2
    start = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        limiter.try_acquire("a", blocking=False)
    assert time.monotonic() - start < 10
    server.thaw()
    bucket._server.call_timeout = 15
    assert limiter.try_acquire("a", blocking=False)


def test_a_frozen_server_holds_no_task_longer_than_the_timeout(server):
    async def main():
        client = await async_client(url(server))
        bucket = await RedisBucket.init([Rate(3, 60_000)], client, "key")
        limiter = Limiter(bucket)
        assert await limiter.try_acquire_async("a")
        server.freeze()
        start = time.monotonic()
        results = await asyncio.gather(
            *(limiter.try_acquire_async("a", timeout=0.3) for _ in range(5)),
            return_exceptions=True,
        )
        assert all(isinstance(result, redis.TimeoutError) for result in results)
        assert time.monotonic() - start < 10
        server.thaw()
        await asyncio.sleep(0.2)
        assert await bucket.count() == 1

    asyncio.run(main())


def test_a_denied_waiter_goes_on_when_the_server_is_back(server, client):
    limiter = Limiter(make(client, on_error="deny"))
    server.stop()
    assert not limiter.try_acquire("a", timeout=0.3)
    server.start()
    assert limiter.try_acquire("a", timeout=10)


def test_a_fallback_bucket_limits_meanwhile(server, client):
    fallback = InMemoryBucket([Rate(2, 60_000)])
    limiter = Limiter(make(client, on_error=fallback))
    server.stop()
    assert [limiter.try_acquire("a", blocking=False) for _ in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert fallback.count() == 2
    fallback.rates = [Rate(2, 200)]
    assert limiter.try_acquire("a")  # a reservation on the fallback
    server.start()
    wait_until(lambda: limiter.try_acquire("a", timeout=1) and client.zcard("key"))


def test_each_name_has_a_fallback_of_its_own(server):
    async def main():
        client = await async_client(url(server), retry=Retry(NoBackoff(), 0))
        keys = RedisKeys(client, "user:", on_error=InMemoryBucket, call_timeout=1)
        limiter = Limiter.per_key(Rate(1, 60_000), bucket=keys)
        assert await limiter.try_acquire_async("a", blocking=False)
        server.stop()
        answers = [await limiter.try_acquire_async(name, blocking=False) for name in "aabbc"]
        assert answers == [True, False, True, False, True]

    asyncio.run(main())


def test_a_state_store_goes_on_without_the_server(server, client):
    store = RedisStateStore(client, "state", on_error="allow", denial_memory_ms=0)
    limiter = Limiter(StateBucket([Rate(1, 60_000)], store=store))
    assert limiter.try_acquire("a", blocking=False)
    assert not limiter.try_acquire("a", blocking=False)
    server.stop()
    assert limiter.try_acquire("a", blocking=False)
    server.start()
    wait_until(lambda: limiter.try_acquire("a", blocking=False) and client.exists("state"))
    assert not limiter.try_acquire("a", blocking=False)


def test_a_state_store_hands_over_to_a_local_bucket_meanwhile(server, client):
    store = RedisStateStore(client, "state", on_error=InMemoryBucket)
    limiter = Limiter(StateBucket([Rate(2, 200)], store=store), buffer_ms=0)
    assert limiter.try_acquire("a", 2, blocking=False)
    server.stop()
    assert limiter.try_acquire("a", 2, blocking=False)
    assert not limiter.try_acquire("a", blocking=False)
    start = time.monotonic()
    assert limiter.try_acquire("a")  # waits in the local bucket
    assert 0.05 < time.monotonic() - start < 10
    server.start()
    wait_until(lambda: limiter.try_acquire("a", timeout=0.5) and client.exists("state"))


def test_an_async_state_store_hands_over_to_a_local_bucket_meanwhile(server):
    async def main():
        store = RedisStateStore(await async_client(url(server)), "state", on_error=InMemoryBucket)
        limiter = Limiter(StateBucket([Rate(2, 60_000)], store=store))
        server.stop()
        waiter = asyncio.ensure_future(limiter.try_acquire_async("a", 3))
        answers = [await limiter.try_acquire_async("a", blocking=False) for _ in range(3)]
        assert answers == [True, True, False]
        assert await waiter is False
        heavy = asyncio.ensure_future(limiter.try_acquire_async("a"))
        await asyncio.sleep(0.05)
        heavy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await heavy
        assert store._fallback.bucket([]).count() == 2  # its units went back

    asyncio.run(main())


@pytest.mark.parametrize("server", KINDS, indirect=True)  # they word it differently
def test_out_of_memory_is_an_outage_and_leaves_the_bucket_as_it_was(client):
    limiter = Limiter(make(client))
    allowing = Limiter(make(client, on_error="allow"))
    assert limiter.try_acquire("a", blocking=False)
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="used memory > 'maxmemory'"):
        limiter.try_acquire("a", blocking=False)
    assert allowing.try_acquire("a", blocking=False)
    client.config_set("maxmemory", 0)
    assert client.zcard("key") == 1
    assert limiter.try_acquire("a", blocking=False)


def test_an_error_that_is_no_outage_comes_through_every_policy(client):
    client.set("key", "no sorted set")
    for policy in ("raise", "allow", "deny"):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            Limiter(make(client, on_error=policy)).try_acquire("a", blocking=False)


def test_cancelled_callers_leave_neither_units_nor_connections(server):
    async def main():
        client = await async_client(url(server), max_connections=2)
        bucket = await RedisBucket.init([Rate(1000, 60_000)], client, "key")
        limiter = Limiter(bucket)
        for turns in range(12):
            tasks = [asyncio.ensure_future(limiter.try_acquire_async("a")) for _ in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.05)
            assert await bucket.count() == done.count(True)
            await bucket.flush()
        assert len(await client.client_list()) <= 2

    asyncio.run(main())


def test_cancelled_waiters_give_their_units_back(server):
    async def main():
        client = await async_client(url(server))
        bucket = await RedisBucket.init([Rate(1, 60_000)], client, "key")
        limiter = Limiter(bucket)
        assert await limiter.try_acquire_async("a")
        tasks = [asyncio.ensure_future(limiter.try_acquire_async("a")) for _ in range(20)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await bucket.count() == 1

    asyncio.run(main())


def test_a_reservation_that_is_cancelled_during_an_outage_is_gone_when_it_is_over(server):
    async def main():
        client = await async_client(url(server), retry=Retry(NoBackoff(), 0))
        bucket = RedisBucket([Rate(1, 60_000)], client, "key", on_error="deny", call_timeout=0.2)
        limiter = Limiter(bucket, reserve_ahead=100)
        assert await limiter.try_acquire_async("a")
        waiter = asyncio.ensure_future(limiter.try_acquire_async("a"))
        while await bucket.count() < 2:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)
        server.freeze()
        await bucket.put(RateItem("a", bucket.now()))
        waiter.cancel()
        await asyncio.wait([waiter])
        server.thaw()
        while await bucket.count() > 1:
            await limiter.try_acquire_async("a", blocking=False)
            await asyncio.sleep(0.02)

    asyncio.run(main())
