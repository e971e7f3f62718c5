"""Errors of Redis: they say which key they are about, and a wrong password admits nobody."""

import asyncio
import contextlib
import inspect
from functools import partial

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
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
from tests.support.redis_servers import RedisServer, wait_until

RATE = Rate(9, 60_000)
KEY = "whose:a"


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def admin(server):
    # Its connections are not killed with those of others.
    with redis.Redis(port=server.port, single_connection_client=True) as admin:
        yield admin


class Caller:
    """A bucket over a client, sync or asyncio, that is called from a loop of its own."""

    def __init__(self, port, is_async, make, **options):
        self.loop = asyncio.new_event_loop() if is_async else None
        kind, retry = (redis.asyncio.Redis, AsyncRetry) if is_async else (redis.Redis, Retry)
        self.client = self.call(lambda: kind(port=port, retry=retry(NoBackoff(), 1), **options))
        self.make = make

    def call(self, function):
        """What it returns, or what that gives when awaited."""
        if self.loop is None:
            return function()

        async def main():
            value = function()
            return (await value) if inspect.isawaitable(value) else value

        return self.loop.run_until_complete(main())

    def bucket(self, **options):
        return self.call(lambda: self.make(self.client, **options))

    def close(self):
        self.call(getattr(self.client, "aclose", self.client.close))
        if self.loop is not None:
            self.loop.close()


def log(client, **options):
    return RedisBucket([RATE], client, KEY, **options)


def state(client, **options):
    return StateBucket([RATE], store=RedisStateStore(client, KEY, **options))


def keyed(client, **options):
    return RedisKeys(client, "whose:", **options).for_name([RATE], "a")


@pytest.fixture(params=[log, state, keyed])
def make(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request):
    return request.param


def acquires(caller, bucket):
    return caller.call(lambda: Limiter(bucket).try_acquire("a", blocking=False))


USES = {
    "try_acquire": lambda bucket: Limiter(bucket).try_acquire("a", blocking=False),
    "with a timeout": lambda bucket: Limiter(bucket).try_acquire("a", timeout=20),
    "put": lambda bucket: bucket.put(RateItem("a", 1)),
    "check": lambda bucket: bucket.check(RateItem("a", 1)),
    "count": lambda bucket: bucket.count(),
    "flush": lambda bucket: bucket.flush(),
    "hold": lambda bucket: bucket.hold(RateItem("a", 1), 1000),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_error_of_a_server_that_is_away_names_the_key(server, is_async, make, use):
    with contextlib.closing(Caller(server.port, is_async, make)) as caller:
        bucket = caller.bucket()
        server.stop()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError, match=rf"\(key '{KEY}'\)$"):
                caller.call(lambda: use(bucket))


@pytest.mark.parametrize("use", ["try_acquire", "put", "count"])
def test_an_error_of_a_key_that_holds_something_else_names_it(server, admin, is_async, make, use):
    admin.set(KEY, "text")
    with contextlib.closing(Caller(server.port, is_async, make)) as caller:
        bucket = caller.bucket(on_error="allow")
        with pytest.raises(redis.ResponseError, match=rf"WRONGTYPE.*\(key '{KEY}'\)$"):
            caller.call(lambda: USES[use](bucket))


def test_an_error_when_a_bucket_is_made_names_its_key(server, is_async):
    with contextlib.closing(Caller(server.port, is_async, None)) as caller:
        server.stop()
        with pytest.raises(redis.ConnectionError, match=rf"\(key '{KEY}'\)$"):
            caller.call(lambda: RedisBucket.init([RATE], caller.client, KEY))


def test_an_error_that_tasks_with_many_keys_share_names_a_few(server):
    async def main():
        retry = AsyncRetry(NoBackoff(), 0)
        async with redis.asyncio.Redis(port=server.port, retry=retry) as client:
            limiter = Limiter.per_key(RATE, bucket=RedisKeys(client, "whose:"))
            assert await limiter.try_acquire_async("a")
            server.stop()
            calls = [limiter.try_acquire_async(f"n{n}", blocking=False) for n in range(50)]
            return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(main())
    assert all(isinstance(error, redis.ConnectionError) for error in errors)
    assert all(1 <= str(error).count("(key 'whose:n") <= 5 for error in errors)


# Passwords

POLICIES = ["raise", "allow", InMemoryBucket]


def kill_others(admin):
    mine = admin.client_id()
    for client in admin.client_list():
        if int(client["id"]) != mine:
            with contextlib.suppress(redis.ResponseError):
                admin.client_kill_filter(_id=client["id"])


def refused(caller, bucket):
    with pytest.raises(redis.AuthenticationError, match=KEY):
        acquires(caller, bucket)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("given", [{"password": "wrong"}, {}], ids=["wrong", "none"])
def test_without_the_password_nobody_is_admitted(server, admin, is_async, make, policy, given):
    admin.config_set("requirepass", "right")
    with contextlib.closing(Caller(server.port, is_async, make, **given)) as caller:
        bucket = caller.bucket(on_error=policy)
        refused(caller, bucket)
        refused(caller, bucket)
        init = partial(RedisBucket.init, [RATE], caller.client, KEY, on_error=policy)
        with pytest.raises(redis.AuthenticationError, match=KEY):
            caller.call(init)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_password_that_changes_meanwhile_admits_nobody(server, admin, is_async, make, policy):
    admin.config_set("requirepass", "old")
    with contextlib.closing(Caller(server.port, is_async, make, password="old")) as caller:
        bucket = caller.bucket(on_error=policy)
        assert acquires(caller, bucket)
        admin.config_set("requirepass", "new")
        kill_others(admin)
        refused(caller, bucket)
        refused(caller, bucket)
        admin.config_set("requirepass", "old")
        assert acquires(caller, bucket)
    assert admin.exists(KEY)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", [["resetpass", ">new"], ["off"]], ids=" ".join)
def test_a_user_that_is_shut_out_is_not_admitted(server, admin, is_async, make, policy, change):
    setuser = ("ACL", "SETUSER", "limiter")
    admin.execute_command(*setuser, "on", ">old", "~*", "+@all")
    user = {"username": "limiter", "password": "old"}
    with contextlib.closing(Caller(server.port, is_async, make, **user)) as caller:
        bucket = caller.bucket(on_error=policy)
        assert acquires(caller, bucket)
        admin.execute_command(*setuser, *change)
        kill_others(admin)
        refused(caller, bucket)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_user_that_loses_a_right_is_not_admitted(server, admin, is_async, make, policy):
    setuser = ("ACL", "SETUSER", "limiter")
    admin.execute_command(*setuser, "on", ">old", "~*", "+@all")
    user = {"username": "limiter", "password": "old"}
    with contextlib.closing(Caller(server.port, is_async, make, **user)) as caller:
        bucket = caller.bucket(on_error=policy)
        assert acquires(caller, bucket)
        admin.execute_command(*setuser, "-evalsha")
        with pytest.raises(redis.exceptions.NoPermissionError, match=KEY):
            acquires(caller, bucket)


def test_a_password_that_has_changed_during_an_outage_ends_what_was_let_through(server, is_async):
    with contextlib.closing(Caller(server.port, is_async, log)) as caller:
        bucket = caller.bucket(on_error="allow")
        assert acquires(caller, bucket)
        server.stop()
        assert acquires(caller, bucket)
        server.config += "requirepass new\n"
        server.options += ["--requirepass", "new"]

        def has_ended():
            try:
                assert acquires(caller, bucket)
            except redis.AuthenticationError:
                return True
            return False

        server.start()
        wait_until(has_ended)
        refused(caller, bucket)


@pytest.mark.parametrize(
    "key", ["a:AuthenticationError", "NOAUTH", "Too many connections", "BUSY "]
)
def test_a_key_that_reads_like_an_error_is_none(server, key):
    with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 1)) as client:
        bucket = RedisBucket([RATE], client, key, on_error="allow")
        assert Limiter(bucket).try_acquire("a", blocking=False)
        server.stop()
        for _ in range(2):
            assert Limiter(bucket).try_acquire("a", blocking=False)
