import itertools
import os

import fakeredis
import pytest
import redis

from pyrate_limiter import FixedWindow, RedisBucket, RedisStateStore, SlidingWindowLog, StateBucket
from pyrate_limiter.testing import BucketConformance
from tests.redis_servers import async_client, shared_url

_number = itertools.count()


def fresh_key():
    return f"test:{os.getpid()}:{next(_number)}"


class _Sync(BucketConformance):
    claims = True
    algorithm = SlidingWindowLog
    options = {}  # noqa: RUF012 - read only

    @pytest.fixture(autouse=True)
    def _client(self):
        self.client = redis.Redis.from_url(shared_url(), **self.options)
        yield
        self.client.close()

    def make_bucket(self, rates):
        return RedisBucket.init(rates, self.client, fresh_key(), self.algorithm())


class _Async(_Sync):
    async def make_bucket(self, rates):
        client = await async_client(shared_url(), **self.options)
        return await RedisBucket.init(rates, client, fresh_key(), self.algorithm())


class TestSync(_Sync):
    pass


class TestSyncDecodedRESP2(_Sync):
    options = {"decode_responses": True, "protocol": 2}  # noqa: RUF012


class TestSyncRESP3FixedWindow(_Sync):
    options = {"protocol": 3}  # noqa: RUF012
    algorithm = FixedWindow


class TestAsyncRESP2(_Async):
    options = {"protocol": 2}  # noqa: RUF012


class TestAsyncDecodedRESP3(_Async):
    options = {"decode_responses": True, "protocol": 3}  # noqa: RUF012


class TestAsyncFixedWindow(_Async):
    algorithm = FixedWindow


class _ServerTime:
    """Without the tests that stamp their items by hand, to the millisecond."""

    manual_clock = False
    test_check_stores_nothing_and_says_the_same = None
    test_claims_are_served_in_the_order_of_arrival = None
    test_a_waiter_whose_claim_is_gone_claims_anew = None
    test_a_late_waiter_is_recorded_at_the_true_time = None
    test_a_claim_keeps_clear_of_the_edge_as_far_as_patience_goes = None
    test_a_claim_holds_the_first_moment_that_fits = None
    test_a_claim_that_fits_now_goes_now = None
    test_limiter_without_reserving_ahead_waits_as_well = None
    test_nobody_jumps_the_queue_of_claims = None


class TestServerTime(_ServerTime, _Sync):
    pass


class TestServerTimeAsync(_ServerTime, _Async):
    pass


class TestFake(_Sync):
    @pytest.fixture(autouse=True)
    def _client(self):
        self.client = fakeredis.FakeRedis()
        yield
        self.client.close()


class _State(_Sync):
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, store=RedisStateStore(self.client, fresh_key()))


class TestState(_State):
    pass


class TestStateDecodedRESP2(_State):
    options = {"decode_responses": True, "protocol": 2}  # noqa: RUF012


class TestStateAsync(_Async):
    units = False

    async def make_bucket(self, rates):
        client = await async_client(shared_url(), **self.options)
        return StateBucket(rates, store=RedisStateStore(client, fresh_key()))


class TestStateServerTime(_ServerTime, _State):
    pass


class TestStateFake(TestFake):
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, store=RedisStateStore(self.client, fresh_key()))
