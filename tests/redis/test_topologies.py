"""A real cluster of three nodes, and a real Sentinel trio that fails over."""

import asyncio
import itertools
import time

import pytest
import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

from pyrate_limiter import (
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from tests.support.redis_servers import RedisServer, answers, wait_until

SLOTS = 16_384
RATE = Rate(3, 60_000)
_number = itertools.count()


@pytest.fixture(scope="module")
def cluster():
    nodes = [
        RedisServer(config="cluster-enabled yes\ncluster-node-timeout 2000\n") for _ in range(3)
    ]
    clients = [redis.Redis(port=node.port) for node in nodes]
    for place, client in enumerate(clients):
        first, last = place * SLOTS // 3, (place + 1) * SLOTS // 3
        client.execute_command("CLUSTER ADDSLOTS", *range(first, last))
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", place + 1)
        client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
    for client in clients:
        wait_until(lambda client=client: b"cluster_state:ok" in raw_info(client))
        client.close()
    yield nodes
    for node in nodes:
        node.close()


def raw_info(client):
    info = client.execute_command("CLUSTER INFO")
    text = info if isinstance(info, (bytes, str)) else str(info)
    text = text.encode() if isinstance(text, str) else text
    return text.replace(b"'cluster_state': 'ok'", b"cluster_state:ok")


def key():
    return f"topology:{next(_number)}"


def takes_three(limiter):
    return [limiter.try_acquire("a", blocking=False) for _ in range(5)] == [True] * 3 + [False] * 2


def test_buckets_and_stores_work_on_a_cluster(cluster):
    client = RedisCluster(host="127.0.0.1", port=cluster[0].port)
    try:
        for _ in range(6):  # on all nodes, each of which has to load the scripts
            assert takes_three(Limiter(RedisBucket.init([RATE], client, key())))
            assert takes_three(Limiter(RedisBucket([RATE], client, key(), algorithm=FixedWindow())))
            assert takes_three(Limiter(StateBucket([RATE], store=RedisStateStore(client, key()))))
        limiter = Limiter.per_key(RATE, bucket=RedisKeys(client, "{tag}:"))
        assert [limiter.try_acquire(n, blocking=False) for n in "aaaab"] == [True] * 3 + [
            False,
            True,
        ]
        assert Limiter(RedisBucket([Rate(1, 100)], client, key())).try_acquire("a", timeout=5)
    finally:
        client.close()


def test_a_reservation_on_a_cluster_is_waited_for(cluster):
    client = RedisCluster(host="127.0.0.1", port=cluster[1].port)
    try:
        bucket = RedisBucket([Rate(2, 200)], client, key())
        limiter = Limiter(bucket)
        start = time.monotonic()
        assert all(limiter.try_acquire("a", timeout=20) for _ in range(6))
        assert time.monotonic() - start > 0.4
        assert bucket.count() == 6
    finally:
        client.close()


def test_async_clients_work_on_a_cluster(cluster):
    async def main():
        client = AsyncCluster(host="127.0.0.1", port=cluster[2].port)
        try:
            bucket = await RedisBucket.init([RATE], client, key())
            limiter = Limiter(bucket)
            answers = await asyncio.gather(
                *(limiter.try_acquire_async("a", blocking=False) for _ in range(20))
            )
            assert answers == [True] * 3 + [False] * 17
            assert (await bucket.peek(0)).name == "a"
            limiter = Limiter.per_key(RATE, bucket=RedisKeys(client, "user:"))
            answers = await asyncio.gather(
                *(limiter.try_acquire_async(str(n % 10), blocking=False) for n in range(100))
            )
            assert sum(answers) == 30
            store = RedisStateStore(client, key())
            limiter = Limiter(StateBucket([RATE], store=store))
            assert await limiter.try_acquire_async("a", 3)
            assert not await limiter.try_acquire_async("a", blocking=False)
        finally:
            await client.aclose()

    asyncio.run(main())


@pytest.fixture
def sentinels():
    master = RedisServer()
    replica = RedisServer(config=f"replicaof 127.0.0.1 {master.port}\n")
    with redis.Redis(port=replica.port) as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    config = (
        f"sentinel monitor main 127.0.0.1 {master.port} 2\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 3000\n"
    )
    watchers = [RedisServer(mode="sentinel", config=config) for _ in range(3)]
    for watcher in watchers:
        with redis.Redis(port=watcher.port) as client:
            wait_until(lambda: knows_all(client))
    yield master, replica, [("127.0.0.1", watcher.port) for watcher in watchers]
    for server in (*watchers, replica, master):
        server.close()


def knows_all(client):
    state = client.sentinel_master("main")
    return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1


async def answer(client):
    try:
        return await client.ping()
    except redis.RedisError:
        return False


@pytest.mark.timeout(100)
def test_a_failover_is_followed(sentinels):
    master, replica, addresses = sentinels
    sentinel = Sentinel(addresses, socket_timeout=1)
    client = sentinel.master_for("main", socket_timeout=1)
    bucket = RedisBucket.init([RATE], client, "key")
    limiter = Limiter(bucket)
    assert takes_three(limiter)
    with redis.Redis(port=replica.port) as other:
        wait_until(lambda: other.zcard("key") == 3)
    allowing = RedisBucket([RATE], client, "key", on_error="allow", call_timeout=0.5)

    async def main():
        sentinel = AsyncSentinel(addresses, socket_timeout=1)
        client = sentinel.master_for("main", socket_timeout=1)
        raising = Limiter(await RedisBucket.init([RATE], client, "key", call_timeout=0.5))
        local = InMemoryBucket([Rate(1, 60_000)])
        going_on = Limiter(RedisBucket([RATE], client, "key", on_error=local, call_timeout=0.5))
        assert not await going_on.try_acquire_async("a", blocking=False)
        await asyncio.sleep(1)  # as long as that refusal is remembered
        master.stop()
        assert Limiter(allowing).try_acquire("a", blocking=False)
        with pytest.raises(redis.RedisError):
            await raising.try_acquire_async("a", blocking=False)
        here = [await going_on.try_acquire_async("a", blocking=False) for _ in range(2)]
        assert here == [True, False]
        while not await answer(client):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
        # The units came along, and the script is loaded there anew.
        assert not await raising.try_acquire_async("a", blocking=False)
        limiter = Limiter(await RedisBucket.init([RATE], client, "third"))
        found = [await limiter.try_acquire_async("a", blocking=False) for _ in range(4)]
        assert found == [True, True, True, False]
        await client.aclose()
        for watcher in sentinel.sentinels:
            await watcher.aclose()

    asyncio.run(main())
    wait_until(lambda: answers(client), 60)
    assert not Limiter(RedisBucket([RATE], client, "key")).try_acquire("a", blocking=False)
    assert takes_three(Limiter(RedisBucket([RATE], client, "other")))
    client.close()
    for watcher in sentinel.sentinels:
        watcher.close()
