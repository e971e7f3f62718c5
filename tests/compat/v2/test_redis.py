"""The Redis bucket of 2.x on a real server."""

import multiprocessing
import sys
import time

import pytest
import redis
import redis.cluster

from pyrate_limiter.compat.v2 import (
    BucketFullException,
    Limiter,
    RedisBucket,
    RedisClusterBucket,
    RequestRate,
)
from pyrate_limiter.errors import MissingDriver
from tests.support.redis_servers import RedisServer, fresh_key, shared_url, sync_client, wait_until


@pytest.fixture
def client():
    with sync_client(shared_url()) as client:
        yield client


@pytest.fixture
def name():
    return fresh_key()


def limiter(pool, name, *rates, **kwargs):
    kwargs = {"redis_pool": pool, "bucket_name": name, **kwargs}
    return Limiter(*rates, bucket_class=RedisBucket, bucket_kwargs=kwargs, time_function=time.time)


def admitted(limiter, *identities, tries=5):
    count = 0
    for _ in range(tries):
        try:
            limiter.try_acquire(*identities)
        except BucketFullException:
            continue
        count += 1
    return count


@pytest.mark.parametrize("decode", [True, False])
def test_a_pool_may_decode_its_answers(client, name, decode):
    pool = redis.ConnectionPool.from_url(shared_url(), decode_responses=decode)
    limited = limiter(pool, name, RequestRate(2, 3600))
    assert admitted(limited, "a") == 2
    assert [type(item) for item in limited.bucket_group["a"].all_items()] == [float, float]
    assert client.llen(f"{name}___a") == 2
    pool.disconnect()


def test_a_client_stands_for_its_pool(client, name):
    assert admitted(limiter(client, name, RequestRate(2, 3600)), "a") == 2


def test_each_rate_refuses_with_its_own_remaining_time(client, name):
    limited = limiter(client, name, RequestRate(1, 1000), RequestRate(2, 5000))
    bucket_key = f"{name}___a"
    client.rpush(bucket_key, str(time.time() - 2000))
    limited.try_acquire("a")
    with pytest.raises(BucketFullException) as caught:
        limited.try_acquire("a")
    assert caught.value.meta_info["rate"] == "1/1000"
    assert 900 < caught.value.meta_info["remaining_time"] <= 1000
    client.delete(bucket_key)
    client.rpush(bucket_key, str(time.time() - 3000), str(time.time() - 1500))
    with pytest.raises(BucketFullException) as caught:
        limited.try_acquire("a")
    assert caught.value.meta_info["rate"] == "2/5000"
    assert 1900 < caught.value.meta_info["remaining_time"] <= 2000


def test_what_no_longer_counts_is_dropped_when_room_is_needed(client, name):
    limited = limiter(client, name, RequestRate(2, 1000))
    key = f"{name}___a"
    client.rpush(key, *(str(time.time() - age) for age in (3000, 2000)))
    assert admitted(limited, "a", tries=1) == 1
    assert client.llen(key) == 1


def test_the_key_expires_also_after_part_of_a_second(client, name):
    limited = limiter(client, name, RequestRate(2, 3600), expire_time=99.5)
    limited.try_acquire("a")
    assert 90 < client.ttl(f"{name}___a") <= 100


def test_all_identities_or_none(client, name):
    limited = limiter(client, name, RequestRate(2, 3600))
    assert admitted(limited, "b", tries=2) == 2
    assert admitted(limited, "a", "b", tries=1) == 0
    assert client.llen(f"{name}___a") == 0
    assert admitted(limited, "a", "a", tries=1) == 1


@pytest.fixture
def cluster():
    node = RedisServer(config="cluster-enabled yes\n")
    try:
        with redis.Redis(port=node.port) as first:
            first.execute_command("CLUSTER ADDSLOTS", *range(16_384))
            wait_until(lambda: first.cluster("INFO")["cluster_state"] == "ok")
        with redis.cluster.RedisCluster(host="127.0.0.1", port=node.port) as client:
            yield client
    finally:
        node.close()


def test_a_cluster_is_given_as_its_client(cluster):
    kwargs = {"redis_pool": cluster, "bucket_name": "auth"}
    limited = Limiter(RequestRate(2, 60), bucket_class=RedisClusterBucket, bucket_kwargs=kwargs)
    assert admitted(limited, "a", "b") == 2  # keys of two slots
    assert admitted(limited, "b", "c") == 0
    assert limited.flush_all() == 3


def test_a_pool_of_a_cluster_needs_the_package_that_has_such_pools():
    pool = redis.ConnectionPool()
    kwargs = {"redis_pool": pool, "bucket_name": "auth"}
    limited = Limiter(RequestRate(2, 60), bucket_class=RedisClusterBucket, bucket_kwargs=kwargs)
    with pytest.raises(ModuleNotFoundError, match="rediscluster"):
        limited.try_acquire("a")


def test_without_the_driver_it_is_said_which_extra_brings_it(monkeypatch):
    bucket = RedisBucket(redis_pool=redis.ConnectionPool(), bucket_name="auth", identity="a")
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingDriver, match=r"pyrate-limiter\[redis\]"):
        bucket.size()


def in_process(name, results):
    with sync_client(shared_url()) as client:
        results.put(admitted(limiter(client, name, RequestRate(10, 3600)), "a", tries=10))


def test_processes_admit_no_more_than_the_limit(name, monkeypatch):
    monkeypatch.setenv("PYRATE_TEST_REDIS_URL", shared_url())
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=in_process, args=(name, results)) for _ in range(3)]
    for process in processes:
        process.start()
    counts = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert sum(counts) == 10
