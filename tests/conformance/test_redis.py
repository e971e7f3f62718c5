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


class TestServerTime(_Sync):
    manual_clock = False


class TestServerTimeAsync(_Async):
    manual_clock = False


class TestFake(_Sync):
    @pytest.fixture(autouse=True)
    def _client(self):
        self.client = fakeredis.FakeRedis()
        yield
        self.client.close()


class _State(_Sync):
    def make_bucket(self, rates):
        return StateBucket(rates, store=RedisStateStore(self.client, fresh_key()))


class TestState(_State):
    pass


class TestStateDecodedRESP2(_State):
    options = {"decode_responses": True, "protocol": 2}  # noqa: RUF012


class TestStateAsync(_Async):
    async def make_bucket(self, rates):
        client = await async_client(shared_url(), **self.options)
        return StateBucket(rates, store=RedisStateStore(client, fresh_key()))


class TestStateServerTime(_State):
    manual_clock = False


class TestStateFake(TestFake):
    def make_bucket(self, rates):
        return StateBucket(rates, store=RedisStateStore(self.client, fresh_key()))
