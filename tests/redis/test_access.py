"""A user of Redis that may run the commands that the docs list, and no others."""

import contextlib
from functools import partial
from pathlib import Path

import pytest
import redis

from pyrate_limiter import (
    FixedWindow,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    RedisKeys,
    RedisStateStore,
    StateBucket,
)
from tests.support.callers import KINDS, AtRedis
from tests.support.redis_servers import RedisServer

DOCS = Path(__file__).parents[2] / "docs" / "backends.md"
RATE = Rate(2, 200)


def documented():
    text = DOCS.read_text(encoding="utf-8")
    return text.split("With an access control list")[1].split("```text")[1].split("```")[0].split()


def buckets(client):
    yield RedisBucket.init([RATE], client, "limits:log")
    yield RedisBucket.init([RATE], client, "limits:windows", FixedWindow())
    yield RedisKeys(client, "limits:").for_name([RATE], "name")
    yield StateBucket([RATE], store=RedisStateStore(client, "limits:state"))


def use(bucket):
    limiter = Limiter(bucket)
    for _ in range(5):
        assert limiter.try_acquire("a")  # waits too
    limiter.try_acquire("a", 2, blocking=False)
    limiter.acquire("a", blocking=False)
    bucket.check(RateItem("a", bucket.now()))
    items = [RateItem("a", bucket.now()) for _ in range(6)]
    for decision in bucket.reserve_several(items, 10_000):
        assert bucket.cancel(decision)
    bucket.put(RateItem("a", bucket.now()))
    bucket.reserve(RateItem("a", bucket.now(), 2), 10_000)
    bucket.reserve(RateItem("a", bucket.now()), 10_000)
    bucket.count()
    bucket.peek(0)
    bucket.leak(bucket.now())
    bucket.flush()


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


def test_the_commands_that_the_docs_list_are_enough_and_none_is_too_many(server):
    commands = documented()
    with redis.Redis(port=server.port) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "limiter", "on", ">secret", "~limits:*", "-@all", *commands
        )
        admin.config_resetstat()
        with redis.Redis(port=server.port, username="limiter", password="secret") as client:
            for bucket in buckets(client):
                use(bucket)
            short = RedisBucket([Rate(9, 1)], client, "limits:short")
            assert all(short.put(RateItem("a", 100 * n, 9)) for n in range(50))  # it is cleaned up
            admin.script_flush()
            use(RedisBucket([RATE], client, "limits:log"))
        refused = {entry["object"] for entry in admin.acl_log()}
        assert refused <= {"client"}  # with which the driver introduces itself
        used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
    listed = {command[1:].split("|")[0] for command in commands}
    assert listed <= used


def test_tasks_do_with_the_commands_that_the_docs_list(server):
    with redis.Redis(port=server.port) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "limiter", "on", ">secret", "~limits:*", "-@all", *documented()
        )
        url = f"redis://limiter:secret@127.0.0.1:{server.port}"
        with contextlib.closing(AtRedis(True, url)) as callers:
            limiters = [callers.limiter(kind, RATE, f"limits:{kind}") for kind in KINDS]
            for limiter in limiters * 2:
                calls = [partial(limiter.try_acquire, name) for name in ("a", "a", "a", "b", "c")]
                assert callers.together(calls) == [True] * 5
                callers.call(partial(limiter.check_async, "a"))
                admin.script_flush()
        refused = {entry["object"] for entry in admin.acl_log()}
        assert refused <= {"client"}


def test_a_state_does_with_the_one_key_that_its_user_may_touch(server):
    with redis.Redis(port=server.port) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "limiter", "on", ">secret", "~state", "-@all", *documented()
        )
        with redis.Redis(port=server.port, username="limiter", password="secret") as client:
            limiter = Limiter(StateBucket([RATE], store=RedisStateStore(client, "state")))
            assert all(limiter.try_acquire("a") for _ in range(5))  # waits too
            limiter.hold("a", 3600)
            assert limiter.try_acquire("a", blocking=False) is False
            limiter.bucket_factory.bucket.flush()
            assert limiter.try_acquire("a", blocking=False) is True
        assert admin.keys() == [b"state"]
