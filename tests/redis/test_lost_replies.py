"""A command whose reply is lost, and which the driver therefore sends again: it counts once."""

import asyncio
import contextlib
import time

import pytest
import redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrate_limiter import (
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from pyrate_limiter.buckets.redis import reservations
from pyrate_limiter.testing import ManualClock
from tests.support.redis_proxy import Proxy
from tests.support.redis_servers import (
    async_client,
    fresh_key,
    shared_url,
    sync_client,
    wait_until,
)

FOR_EVER = 1 << 50
AGAIN = {"retry_on_error": [redis.ConnectionError]}  # later releases do by themselves


class LosesReplies(Proxy):
    """Cuts the connection where the reply to a call of a script would come, ``losses`` times."""

    def __init__(self, port):
        super().__init__(port)
        self.losses = 0
        self.lost = 0
        self.meanwhile = None  # called when a reply was lost
        self._doomed = set()

    def pass_request(self, data, server):
        if b"EVALSHA" in data and self.lost < self.losses:
            self.lost += 1
            self._doomed.add(server)

    def may_pass_reply(self, server):
        if server in self._doomed and self.meanwhile is not None:
            self.meanwhile()
        return server not in self._doomed


@pytest.fixture
def proxy():
    proxy = LosesReplies(int(shared_url().rsplit(":", 1)[1]))
    yield proxy
    proxy.close()


@pytest.fixture
def admin():
    with sync_client(shared_url()) as client:
        yield client


@pytest.fixture
def client(proxy):
    client = redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 3), **AGAIN)
    yield client
    client.close()


def log(client, rate, key):
    return RedisBucket([rate], client, key)


def keyed(client, rate, key):
    return RedisKeys(client, key).for_name([rate], "")


def state(client, rate, key):
    return StateBucket([rate], store=RedisStateStore(client, key))


@pytest.fixture(params=[log, keyed, state])
def make(request, admin):
    bucket = request.param(admin, Rate(1, 60_000), fresh_key())
    assert Limiter(bucket).try_acquire("loads the script")
    return request.param


def test_a_call_with_room_for_one_is_admitted_once(proxy, client, admin, make):
    rate, key = Rate(1, 60_000), fresh_key()
    proxy.losses = 1
    assert Limiter(make(client, rate, key)).try_acquire("a", blocking=False)
    assert proxy.lost == 1
    assert make(admin, rate, key).count() == 1


def test_of_tasks_that_share_a_call_each_is_admitted_once(proxy, admin, make):
    rate, key = Rate(50, 3_600_000), fresh_key()

    async def main():
        ours = await async_client(proxy.url, retry=AsyncRetry(NoBackoff(), 3), **AGAIN)
        limiter = Limiter(make(ours, rate, key))
        assert await limiter.try_acquire_async("a", blocking=False)
        proxy.losses = 1
        tasks = [limiter.try_acquire_async("a", blocking=False) for _ in range(60)]
        assert (await asyncio.gather(*tasks)).count(True) == 49

    asyncio.run(main())
    assert proxy.lost == 1
    assert make(admin, rate, key).count() == 50


def test_a_waiter_reserves_once_and_confirms_once(proxy, client, admin, make):
    rate, key = Rate(1, 500), fresh_key()
    bucket = make(client, rate, key)
    assert bucket.reserve(RateItem("a", 0)).allowed
    item = RateItem("a", 0)
    proxy.losses = 1
    decision = bucket.reserve(item, FOR_EVER)
    assert decision.wait_ms <= 551
    if make is not state:
        assert admin.zcard(key) == 2
        decision.handle.ask = True
    proxy.losses = 2
    deadline = time.monotonic() + 20
    while decision.wait_ms and time.monotonic() < deadline:
        time.sleep(bucket.pause(decision))
        decision = bucket.confirm(decision, bucket.now(), FOR_EVER)
    assert decision.allowed
    assert proxy.lost == 2
    if make is not state:
        assert admin.zcard(key) == 2
    behind = RateItem("a", 0)
    reserved_behind = bucket.reserve(behind, FOR_EVER)
    assert reserved_behind.wait_ms <= 552  # not behind two
    assert bucket.cancel(reserved_behind)


def test_what_was_given_back_is_given_back_once(proxy, client, admin, make):
    rate, key = Rate(3, 60_000), fresh_key()
    bucket, item = make(client, rate, key), RateItem("a", 0, 2)
    reservation = bucket.reserve(item)
    assert reservation.allowed
    assert bucket.reserve(RateItem("a", 0)).allowed
    proxy.losses = 1
    bucket.cancel(reservation)
    assert proxy.lost == 1
    assert make(admin, rate, key).count() == 1


def test_who_ends_a_hold_is_told_that_it_stood_and_ends_no_other(proxy, client, admin, make):
    reservations._random.seed(0)  # a state keeps the last replies by a digit of their ids
    rate, key = Rate(1, 60_000), fresh_key()
    bucket, other = make(client, rate, key), make(admin, rate, key)
    item = RateItem("a", bucket.now(), 0)
    for _ in range(2):
        bucket.hold(item, 60_000)
        proxy.lost, proxy.losses = 0, 1
        assert bucket.release_hold(item) is True
        assert proxy.lost == 1
        assert bucket.release_hold(item) is False
    other.hold(item, 60_000)
    proxy.lost, proxy.meanwhile = 0, lambda: other.hold(item, 60_000)
    assert bucket.release_hold(item) is True
    assert proxy.lost == 1
    assert other.put(RateItem("a", other.now())) is False
    assert other.release_hold(item) is True
    assert other.put(RateItem("a", other.now())) is True


def test_a_call_that_fails_for_good_is_made_good_by_the_next(proxy, admin):
    assert Limiter(log(admin, Rate(9, 60_000), fresh_key())).try_acquire("loads the script")
    key = fresh_key()
    proxy.losses = 1
    with contextlib.closing(redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0))) as ours:
        bucket = log(ours, Rate(9, 60_000), key)
        with pytest.raises(redis.ConnectionError):
            Limiter(bucket).try_acquire("a", 3)
        assert admin.zcard(key) == 3
        assert Limiter(bucket).try_acquire("a")
        assert admin.zcard(key) == 1


@pytest.mark.parametrize(("policy", "goes"), [("deny", False), ("allow", True)])
def test_who_asks_in_vain_whether_to_go_is_answered_by_the_policy_and_holds_nothing(
    proxy, admin, policy, goes
):
    assert Limiter(log(admin, Rate(9, 60_000), fresh_key())).try_acquire("loads the script")
    with contextlib.closing(redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0))) as ours:
        bucket = RedisBucket([Rate(1, 60_000)], ours, fresh_key(), on_error=policy)
        clock = bucket._clock = ManualClock(10**12)
        assert bucket.put(RateItem("first", clock.ms))
        reservation = bucket.reserve(RateItem("a", clock.ms), FOR_EVER, 0)
        clock.advance(reservation.wait_ms)
        proxy.losses = 1
        assert bucket.confirm(reservation, clock.ms, FOR_EVER).allowed is goes
        assert proxy.lost == 1
        wait_until(lambda: bucket.check(RateItem("b", clock.ms)) and not bucket._server.outage.away)
        clock.advance(1)
        assert bucket.put(RateItem("b", clock.ms))
        assert not bucket.put(RateItem("c", clock.ms))


@pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
def test_the_unit_of_a_waiter_that_is_cancelled_while_it_asks_whether_to_go_is_used_once(
    proxy, admin, heard
):
    key = fresh_key()

    async def main():
        bucket = RedisBucket([Rate(1, 300)], await async_client(proxy.url), key)
        limiter, confirm, asking = Limiter(bucket), bucket.confirm, asyncio.Event()

        def held_up(*terms):
            proxy.replies.clear()
            asking.set()
            return confirm(*terms)

        assert await limiter.try_acquire_async("first")
        bucket.confirm = held_up
        first, *others = (
            asyncio.ensure_future(limiter.try_acquire_async(name)) for name in ("a", "b", "c")
        )
        await asking.wait()
        bucket.confirm, before = confirm, admin.zrange(key, 0, -1)
        if heard:
            await asyncio.to_thread(wait_until, lambda: admin.zrange(key, 0, -1) != before)
        first.cancel()
        proxy.replies.set()
        assert await asyncio.gather(*others) == [True, True]
        with pytest.raises(asyncio.CancelledError):
            await first
        # What came of its last question is undone when the answer is there.
        await asyncio.to_thread(wait_until, lambda: admin.zcard(key) == 3)

    asyncio.run(main())
