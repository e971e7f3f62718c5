"""`Limiter.per_key` over Redis: a key for each name, and nothing beyond its acquisitions."""

import asyncio
import socket

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrate_limiter import InMemoryBucket, Limiter, Rate, RateItem, RedisKeys
from tests.support.redis_servers import async_client, fresh_key, shared_url, sync_client, wait_until

RATE = Rate(2, 60_000)
NAMES = [f"name{number}" for number in range(100)]


@pytest.fixture
def admin():
    with sync_client(shared_url(), decode_responses=True) as client:
        yield client


class Statistics:
    """What the server has been asked since the last look."""

    def __init__(self, admin):
        self._admin = admin
        self.forget()

    def forget(self):
        self._admin.config_resetstat()

    def calls(self):
        """How often each command was called, but for those of the script on its sorted set."""
        stats = self._admin.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
        ours = ("z", "time", "pexpire", "pttl", "info", "config")
        return {name: number for name, number in calls.items() if not name.startswith(ours)}

    def reads(self):
        return self._admin.info("stats")["total_reads_processed"]


@pytest.fixture
def statistics(admin):
    return Statistics(admin)


def test_a_name_costs_one_call_for_each_acquisition_and_no_other(admin, statistics):
    prefix = f"{fresh_key()}:"
    with sync_client(shared_url()) as client:
        limiter = Limiter.per_key(RATE, bucket=RedisKeys(client, prefix))
        assert limiter.try_acquire("first")
        statistics.forget()
        assert all(limiter.try_acquire(name, blocking=False) for name in NAMES * 2)
        assert statistics.calls() == {"evalsha": 2 * len(NAMES)}
    assert sorted(admin.keys(f"{prefix}name*")) == sorted(prefix + name for name in NAMES)


def test_names_of_one_turn_of_the_event_loop_share_a_round_trip(admin, statistics):
    prefix = f"{fresh_key()}:"

    async def main():
        limiter = Limiter.per_key(RATE, bucket=RedisKeys(await async_client(shared_url()), prefix))
        assert await limiter.try_acquire_async("first")
        statistics.forget()
        assert all(await asyncio.gather(*(limiter.try_acquire_async(name) for name in NAMES)))
        assert statistics.reads() < 10
        assert statistics.calls() == {"evalsha": len(NAMES)}
        # Two of one name are one call.
        statistics.forget()
        pairs = [limiter.try_acquire_async(name, blocking=False) for name in NAMES * 2]
        assert sum(await asyncio.gather(*pairs)) == len(NAMES)
        assert statistics.calls() == {"evalsha": len(NAMES)}

    asyncio.run(main())
    assert sorted(admin.keys(f"{prefix}name*")) == sorted(prefix + name for name in NAMES)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_name_is_forgotten_here_at_once_and_still_limited(admin, is_async):
    async def main():
        client = await async_client(shared_url()) if is_async else admin
        limiter = Limiter.per_key(RATE, bucket=RedisKeys(client, f"{fresh_key()}:"))
        for name in NAMES:
            assert await limiter.try_acquire_async(name, 2)
        assert len(limiter.buckets()) == len(NAMES)
        assert limiter.bucket_factory._keys.leak() == len(NAMES)  # what the sweeper does
        assert limiter.buckets() == []
        for name in NAMES:
            assert not await limiter.try_acquire_async(name, blocking=False)

    asyncio.run(main())


def test_keys_of_names_go_by_themselves_once_old(admin):
    prefix = f"{fresh_key()}:"
    limiter = Limiter.per_key(Rate(1, 50), bucket=RedisKeys(admin, prefix))
    for name in NAMES[:5]:
        assert limiter.try_acquire(name)
        assert limiter.try_acquire(name)  # a reservation
    assert len(admin.keys(f"{prefix}*")) == 5
    wait_until(lambda: not admin.keys(f"{prefix}*"))


def nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return redis.Redis(port=taken.getsockname()[1], retry=Retry(NoBackoff(), 0))


def test_what_a_name_has_used_in_an_outage_is_not_dropped_with_its_bucket():
    keys = RedisKeys(nobody_there(), on_error=InMemoryBucket)
    bucket = keys.for_name([Rate(1, 60_000)], "a")
    assert bucket.reserve(RateItem("a", 0)).allowed
    assert not bucket.retire(bucket.now())
    assert keys.for_name([Rate(1, 60_000)], "b").retire(bucket.now())


def test_a_fallback_that_was_given_goes_on_when_the_bucket_of_a_name_is_dropped():
    local = InMemoryBucket([Rate(2, 60_000)])
    keys = RedisKeys(nobody_there(), on_error=local)
    for name in "ab":
        bucket = keys.for_name([Rate(1, 60_000)], name)
        assert bucket.reserve(RateItem(name, 0)).allowed
        assert bucket.retire(bucket.now())
    assert local.count() == 2
