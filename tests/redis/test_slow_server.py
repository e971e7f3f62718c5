"""A server that answers slowly: callers who are cancelled, who have a timeout, who wait."""

import asyncio
import time

import pytest
import redis

from pyrate_limiter import (
    InMemoryBucket,
    Limiter,
    Rate,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from tests.support.redis_fleet import most_in_a_window, spans, watch
from tests.support.redis_proxy import Proxy
from tests.support.redis_servers import async_client, fresh_key, shared_url, sync_client

DELAY = 0.1


@pytest.fixture
def proxy():
    proxy = Proxy(int(shared_url().rsplit(":", 1)[1]))
    yield proxy
    proxy.close()


@pytest.fixture
def admin():
    with sync_client(shared_url(), decode_responses=True) as client:
        yield client


def names_in(admin, key):
    return sorted(member.split(":")[0] for member in admin.zrange(key, 0, -1))


async def cancelled_after(limiter, seconds, size=10):
    """Start callers together, and cancel every other one; the names of those who went."""
    tasks = {
        f"caller{number}": asyncio.ensure_future(limiter.try_acquire_async(f"caller{number}"))
        for number in range(size)
    }
    await asyncio.sleep(seconds)
    for task in [*tasks.values()][::2]:
        task.cancel()
    done = await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) or each is True for each in done)
    return sorted(name for name, each in zip(tasks, done, strict=True) if each is True)


# While connecting, in the midst of the first call, or of its repetition, or after it.
MOMENTS = [0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55]


def at_all_moments(proxy, scenario):
    """Run a scenario once for each moment, all at once, with a client for each."""

    async def run(moment):
        client = await async_client(proxy.url)
        condition = await scenario(client, moment)
        deadline = time.monotonic() + 30
        while client.connection_pool._in_use_connections or not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    proxy.delay = DELAY

    async def main():
        await asyncio.gather(*(run(moment) for moment in MOMENTS))

    asyncio.run(main())


def test_callers_cancelled_in_a_round_trip_leave_nothing_to_those_who_shared_it(proxy, admin):
    async def scenario(client, moment):
        key = fresh_key()
        limiter = Limiter(RedisBucket([Rate(1000, 60_000)], client, key))
        went = await cancelled_after(limiter, moment)
        assert set(went) >= {f"caller{number}" for number in range(1, 10, 2)}
        return lambda: names_in(admin, key) == went

    at_all_moments(proxy, scenario)


def test_waiters_cancelled_in_a_round_trip_leave_no_reservation(proxy, admin):
    rate = Rate(2, 700)

    async def scenario(client, moment):
        key = fresh_key()
        assert Limiter(RedisBucket([rate], admin, key)).try_acquire("first", 2)
        limiter = Limiter(RedisBucket([rate], client, key))
        went = await cancelled_after(limiter, moment, size=4)
        return lambda: admin.zcard(key) == len(went) + 2

    at_all_moments(proxy, scenario)


def test_callers_cancelled_in_a_round_trip_owe_nothing_to_a_state(proxy, admin):
    rate = Rate(1000, 36_000_000)  # a unit takes 36 s to drain

    async def scenario(client, moment):
        key = fresh_key()
        limiter = Limiter(StateBucket([rate], store=RedisStateStore(client, key)))
        number = len(await cancelled_after(limiter, moment, size=4))
        return lambda: StateBucket([rate], store=RedisStateStore(admin, key)).count() == number

    at_all_moments(proxy, scenario)


def test_callers_of_many_names_cancelled_in_a_round_trip_leave_no_key(proxy, admin):
    async def scenario(client, moment):
        prefix = f"{fresh_key()}:"
        limiter = Limiter.per_key(Rate(5, 60_000), bucket=RedisKeys(client, prefix))
        went = await cancelled_after(limiter, moment)
        return lambda: sorted(admin.keys(f"{prefix}*")) == [prefix + name for name in went]

    at_all_moments(proxy, scenario)


def test_a_cancelled_task_over_a_sync_client_leaves_nothing(proxy, admin):
    proxy.delay = DELAY
    key = fresh_key()

    async def main():
        with sync_client(proxy.url) as client:
            limiter = Limiter(RedisBucket([Rate(1000, 60_000)], client, key))
            went = await cancelled_after(limiter, 0.05, size=4)
            went += await cancelled_after(limiter, 0.05, size=4)
            # What was reserved for one who left may be used by the next, under that name.
            assert len(names_in(admin, key)) == len(went) == 4

    asyncio.run(main())


@pytest.mark.parametrize("policy", ["raise", "allow", "deny", "local"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_hung_server_holds_a_caller_no_longer_than_his_own_timeout(proxy, policy, is_async):
    local = InMemoryBucket([Rate(1, 60_000)])
    rate, options = Rate(1, 60_000), {"on_error": local if policy == "local" else policy}
    proxy.requests.clear()

    async def main():
        if is_async:
            client = await async_client(proxy.url, socket_timeout=None)
            limiter = Limiter(RedisBucket([rate], client, fresh_key(), **options))
            return await limiter.try_acquire_async("a", timeout=0.3)
        with sync_client(proxy.url, socket_timeout=None) as client:
            limiter = Limiter(RedisBucket([rate], client, fresh_key(), **options))
            return limiter.try_acquire("a", timeout=0.3)

    begin = time.monotonic()
    if policy == "raise":
        with pytest.raises(redis.TimeoutError, match=r"within 0\.3 s"):
            asyncio.run(main())
    else:
        assert asyncio.run(main()) is (policy != "deny")
    assert 0.25 < time.monotonic() - begin < 10


def test_waiters_behind_a_slow_server_keep_to_the_limit_in_order(proxy):
    proxy.delay = DELAY
    records = {f"caller{number}": {} for number in range(15)}

    async def work(limiter, name):
        records[name]["sent"] = time.time()
        records[name]["outcome"] = await limiter.try_acquire_async(name)
        records[name]["went"] = time.time()

    async def main():
        client = await async_client(proxy.url)
        bucket = RedisBucket([Rate(5, 400)], client, fresh_key())
        watch(bucket, records)
        limiter = Limiter(bucket)
        await asyncio.gather(*(work(limiter, name) for name in records))

    asyncio.run(main())
    assert most_in_a_window(spans(records), 0.4)[0] <= 5
    assert sorted(records, key=lambda name: records[name]["due"]) == list(records)


class Hung:
    """A client whose server says nothing."""

    hanging = 0

    async def execute_command(self, *_):
        raise NotImplementedError

    async def evalsha(self, *_):
        self.hanging += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.hanging -= 1


def test_of_calls_that_hang_no_more_than_a_few_are_kept(monkeypatch):
    monkeypatch.setattr("pyrate_limiter.buckets.redis.batching_async._HUNG_SECONDS", 0)

    async def main():
        client = Hung()
        limiter = Limiter(RedisBucket([Rate(9, 60_000)], client, "key"))
        patient = asyncio.ensure_future(limiter.try_acquire_async("a"))
        for _ in range(20):
            with pytest.raises(redis.TimeoutError):
                await limiter.try_acquire_async("a", timeout=0.01)
        assert client.hanging <= 9
        with pytest.raises(redis.TimeoutError):
            await patient  # gave no limit, and would hang for ever

    asyncio.run(main())
