"""The middleware for ASGI: websockets, waits, clients that leave, and what must not block."""

import asyncio
import socket
import threading

import httpx
import pytest
import redis
import redis.asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pyrate_limiter import (
    BucketAsyncWrapper,
    BucketFactory,
    Decision,
    InMemoryBucket,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    SQLiteBucket,
)
from pyrate_limiter.errors import OutOfRange, WrongType
from pyrate_limiter.extras.asgi import Limit, RateLimitMiddleware
from tests.extras import web_servers
from tests.extras.limiters import HOUR_MS, Broken, NeverFits
from tests.support.doubles import World


async def ok(scope, receive, send):
    """Answers with how many bytes came in; a websocket is accepted and echoes."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": str(length).encode()})


class Connection:
    """One request to an application, without a server."""

    def __init__(self, path="/", peer="203.0.113.1", kind="http", messages=(), **scope):
        self.scope = {"type": kind, "path": path, "client": (peer, 1), "headers": [], **scope}
        if kind == "http":
            self.scope.setdefault("method", "GET")
        self.messages = list(messages) or [{"type": "http.request", "body": b""}]
        self.sent = []
        self.gone = asyncio.Event()
        self.watched = asyncio.Event()
        self.third = asyncio.Event()
        self.taken = 0

    async def receive(self):
        self.taken += 1
        if self.taken == 3:
            self.third.set()
        if self.messages:
            return self.messages.pop(0)
        self.watched.set()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def to(self, app):
        await app(self.scope, self.receive, self.send)
        return self.status

    @property
    def status(self):
        return self.sent[0].get("status") if self.sent else None

    @property
    def fields(self):
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


def limited(limits, **options):
    return RateLimitMiddleware(ok, limits, **options)


def per_key(limit=1, interval=HOUR_MS, **options):
    return Limiter.per_key(Rate(limit, interval), **options)


def test_ten_thousand_addresses_are_each_limited_by_themselves():
    app = limited(per_key(2))

    async def run():
        found = [0, 0, 0]
        for turn in range(3):
            for number in range(10_000):
                peer = f"10.{number // 256}.{number % 256}.1"
                found[turn] += await Connection(peer=peer).to(app) == 200
        return found

    assert asyncio.run(run()) == [10_000, 10_000, 0]


def test_addresses_of_one_ipv6_network_are_one_client():
    app = limited(per_key(3))

    async def run():
        return [await Connection(peer=f"2001:db8::{n:x}").to(app) for n in range(1, 6)]

    assert asyncio.run(run()) == [200, 200, 200, 429, 429]


def test_the_fields_join_those_of_the_application():
    async def run():
        connection = Connection()
        await connection.to(limited(per_key(5)))
        return connection.fields

    assert asyncio.run(run()) == {
        "x-own": "1",
        "ratelimit-policy": '"default";q=5;w=3600',
        "ratelimit": '"default";r=4',
    }


def test_a_message_that_the_application_sends_twice_is_left_as_it_is():
    start = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope, receive, send):
        await send(start)

    async def run():
        app_with_limit = RateLimitMiddleware(app, per_key(5))
        return [await Connection().to(app_with_limit) for _ in range(2)]

    assert asyncio.run(run()) == [200, 200]
    assert start["headers"] == []


class OwnFactory(BucketFactory):
    """A user's own, whose private names are its own affair."""

    def __init__(self):
        self._rates = {"gold": 10}
        self.bucket = NeverFits()

    def wrap_item(self, name, weight=1):
        return RateItem(name, 0, weight)

    def get(self, item):
        return self.bucket


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (lambda: InMemoryBucket([Rate(3, 1500)]), '"default";q=3;w=2'),
        (lambda: BucketAsyncWrapper(InMemoryBucket([Rate(3, 1000)])), '"default";q=3;w=1'),
        (
            lambda: [Rate(1, 1500), Rate(2, 30 * 24 * HOUR_MS)],
            '"default-1500ms";q=1;w=2, "default-2592000s";q=2;w=2592000',
        ),
        (OwnFactory, None),
    ],
)
def test_the_policy_is_that_of_the_limiter_where_it_is_known(make, policy):
    async def run():
        connection = Connection()
        await connection.to(limited(Limiter(make()), legacy=True))
        return connection.fields

    assert asyncio.run(run()).get("ratelimit-policy") == policy


def test_the_policy_may_be_told_where_it_is_not_known():
    async def run():
        connection = Connection()
        limit = Limit(Limiter(OwnFactory()), rates=[Rate(7, 1000)])
        await connection.to(limited(limit, legacy=True))
        return connection.status, connection.fields

    status, fields = asyncio.run(run())
    assert status == 429
    assert fields["ratelimit-policy"] == '"default";q=7;w=1'
    assert fields["ratelimit"] == '"default";r=0'
    assert "retry-after" not in fields
    assert "x-ratelimit-limit" not in fields


def test_of_several_rates_answers_name_the_one_that_is_short(monkeypatch):
    world = World(monkeypatch)
    rates = [Rate(2, 1000), Rate(3, 10_000)]
    limiter = Limiter.per_key(rates, bucket=lambda rates: world.on(InMemoryBucket(rates)))
    app = limited(Limit(limiter, cost=lambda request: int(request.path[1:])))

    async def run():
        for cost, later in (("/1", 0), ("/3", 0), ("/1", 1001), ("/1", 0), ("/1", 0)):
            connection = Connection(cost)
            await connection.to(app)
            world.advance(later)
            yield connection

    async def listed():
        return [connection async for connection in run()]

    connections = world.run(listed())
    policies = '"default-1s";q=2;w=1, "default-10s";q=3;w=10'
    assert {connection.fields["ratelimit-policy"] for connection in connections} == {policies}
    assert [
        (each.status, each.fields["ratelimit"], each.fields.get("retry-after"))
        for each in connections
    ] == [
        (200, '"default-1s";r=1', None),
        (429, '"default-1s";r=1', None),  # it can never fit
        (200, '"default-1s";r=0;t=2', None),
        (200, '"default-10s";r=0;t=9', None),
        (429, '"default-10s";r=0;t=9', "9"),
    ]
    assert b'["default-10s"]' in connections[-1].sent[1]["body"]


def test_a_limit_by_an_async_function_of_the_scope():
    async def user(request):
        await asyncio.sleep(0)
        return request.raw["user"]

    async def cost(request):
        return 2

    app = limited(Limit(per_key(2), key=user, cost=cost))

    async def run():
        return [await Connection(user=user).to(app) for user in ("me", "me", "you", None)]

    assert asyncio.run(run()) == [200, 429, 200, 200]


def test_a_limit_may_look_at_the_method():
    def writing(request):
        return None if request.method == "GET" else "writers"

    app = limited(Limit(per_key(1), key=writing))

    async def run():
        methods = ("GET", "PUT", "GET", "POST")
        return [await Connection(method=method).to(app) for method in methods]

    assert asyncio.run(run()) == [200, 200, 200, 429]


def test_other_connections_pass_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    def receive():
        pass

    asyncio.run(RateLimitMiddleware(app, per_key())({"type": "lifespan"}, receive, print))
    assert seen == [({"type": "lifespan"}, receive, print)]


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp_path: SQLiteBucket.init_from_file([Rate(2, HOUR_MS)]),
        lambda tmp_path: BucketAsyncWrapper(SQLiteBucket.init_from_file([Rate(2, HOUR_MS)])),
        lambda tmp_path: BucketAsyncWrapper(InMemoryBucket([Rate(2, HOUR_MS)])),
    ],
    ids=["sqlite", "async-sqlite", "async-memory"],
)
def test_any_bucket_limits(make, tmp_path):
    with Limiter(make(tmp_path)) as limiter:
        app = limited(limiter)

        async def run():
            return [await Connection().to(app) for _ in range(3)]

        assert asyncio.run(run()) == [200, 200, 429]


def test_a_bucket_that_blocks_is_asked_in_another_thread():
    threads = []

    class Slow(InMemoryBucket):
        blocks = True

        def reserve(self, *args, **kwargs):
            threads.append(threading.current_thread())
            return super().reserve(*args, **kwargs)

    with Limiter(Slow([Rate(1, HOUR_MS)])) as limiter:
        assert asyncio.run(Connection().to(limited(limiter))) == 200
    assert threads
    assert threading.main_thread() not in threads


class Test_an_outage_is_answered_as_the_bucket_says:  # noqa: N801 - it reads as a sentence
    @pytest.fixture(params=[redis.Redis, redis.asyncio.Redis])
    def client(self, request):
        return request.param(host="127.0.0.1", port=1)

    @pytest.mark.parametrize(("on_error", "statuses"), [("allow", {200}), ("deny", {429})])
    def test_by_letting_in_or_refusing(self, client, on_error, statuses):
        async def run():
            bucket = RedisBucket([Rate(1, HOUR_MS)], client, "key", on_error=on_error)
            app = limited(Limiter(bucket))
            return {await Connection().to(app) for _ in range(3)}

        assert asyncio.run(run()) == statuses

    def test_by_an_error(self):
        with Limiter(Broken()) as limiter, pytest.raises(ConnectionError, match="is down"):
            asyncio.run(Connection().to(limited(limiter)))


class Test_a_request_that_waits:  # noqa: N801
    def waiting(self, world, wait=10):
        limiter = Limiter.per_key(Rate(1, 1000), bucket=lambda r: world.on(InMemoryBucket(r)))
        return limited(Limit(limiter, wait=wait))

    @pytest.fixture
    def world(self, monkeypatch):
        return World(monkeypatch)

    def test_is_admitted_when_its_turn_has_come(self, world):
        app = self.waiting(world)

        async def run():
            return [await Connection().to(app) for _ in range(3)]

        assert world.run(run()) == [200, 200, 200]

    def test_is_refused_at_once_where_its_turn_is_too_far(self, world):
        app = self.waiting(world, wait=0.5)
        before = world.ms

        async def run():
            return [await Connection().to(app) for _ in range(2)]

        assert world.run(run()) == [200, 429]
        assert world.ms == before

    def test_gives_back_what_it_had_reserved_when_its_client_leaves(self):
        limiter = Limiter.per_key(Rate(1, HOUR_MS))
        app = limited(Limit(limiter, wait=2 * HOUR_MS))

        async def run():
            await Connection().to(app)
            leaving = Connection()
            serving = asyncio.ensure_future(leaving.to(app))
            await leaving.watched.wait()
            leaving.gone.set()
            assert await serving is None
            return leaving.sent

        assert asyncio.run(run()) == []
        assert limiter.buckets()[0].count() == 1

    def test_gives_back_what_it_had_reserved_when_it_is_cancelled(self):
        limiter = Limiter.per_key(Rate(1, HOUR_MS))
        app = limited(Limit(limiter, wait=2 * HOUR_MS))

        async def run():
            await Connection().to(app)
            waiting = Connection()
            serving = asyncio.ensure_future(waiting.to(app))
            await waiting.watched.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

        asyncio.run(run())
        assert limiter.buckets()[0].count() == 1

    def test_loses_nothing_of_its_body(self, world):
        app = self.waiting(world)
        parts = [{"type": "http.request", "body": b"x" * 30_000, "more_body": True}] * 9
        parts += [{"type": "http.request", "body": b"end"}]

        async def run():
            await Connection().to(app)
            uploading = Connection(messages=parts)
            await uploading.to(app)
            return uploading.sent[1]["body"]

        assert world.run(run()) == b"270003"

    def test_keeps_no_more_of_a_large_body_than_it_must(self):
        app = limited(Limit(Limiter.per_key(Rate(1, HOUR_MS)), wait=2 * HOUR_MS))
        part = {"type": "http.request", "body": b"x" * 30_000, "more_body": True}

        async def run():
            await Connection().to(app)
            uploading = Connection(messages=[part] * 100)
            serving = asyncio.ensure_future(uploading.to(app))
            await uploading.third.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.wait([serving])
            return len(uploading.messages)

        assert asyncio.run(run()) == 97

    def test_fails_as_receiving_from_its_client_fails(self):
        app = limited(Limit(Limiter.per_key(Rate(1, HOUR_MS)), wait=2 * HOUR_MS))

        async def run():
            await Connection().to(app)
            broken = Connection()

            async def receive():
                raise OSError("the connection broke")

            broken.receive = receive
            with pytest.raises(OSError, match="broke"):
                await broken.to(app)

        asyncio.run(run())

    def test_leaves_over_loopback_and_is_noticed(self):
        limiter = Limiter.per_key(Rate(1, HOUR_MS))
        told = threading.Event()

        class Noting(Limiter):
            async def acquire_async(self, name="pyrate", weight=1, blocking=True, timeout=-1):
                if not blocking:
                    return await super().acquire_async(name, weight, blocking, timeout)
                told.set()
                try:
                    await asyncio.sleep(HOUR_MS)
                finally:
                    given_back.set()
                return Decision()

        given_back = threading.Event()
        limiter = Noting(Rate(1, HOUR_MS))
        app = limited(Limit(limiter, wait=2 * HOUR_MS))
        with web_servers.asgi(app) as url, httpx.Client(trust_env=False) as http:
            assert http.get(url).status_code == 200
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as leaving:
                leaving.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert told.wait(30)
            assert given_back.wait(30)

    def test_of_a_slow_client_loses_nothing_over_loopback(self):
        app = limited(Limit(Limiter.per_key(Rate(1, 500)), wait=30))
        with web_servers.asgi(app) as url, httpx.Client(trust_env=False) as http:
            http.get(url)
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as slow:
                slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n")
                slow.sendall(b"Connection: close\r\n\r\n")
                for byte in (b"a", b"b", b"c", b"d", b"e", b"f"):
                    slow.sendall(byte)
                answer = b""
                while part := slow.recv(65_536):
                    answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\n6\r\n" in answer


class Test_a_websocket:  # noqa: N801
    def test_is_limited_at_its_handshake_over_loopback(self):
        async def run(url):
            async with connect(url) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                fields = dict(socket.response.headers.raw_items())
            with pytest.raises(InvalidStatus) as caught:
                async with connect(url):
                    pass
            return fields, caught.value.response

        with web_servers.asgi(limited(per_key(1))) as url:
            fields, refusal = asyncio.run(run(url.replace("http", "ws")))
        assert fields["ratelimit"].startswith('"default";r=0')
        assert fields["x-own"] == "1"
        assert refusal.status_code == 429
        assert int(refusal.headers["Retry-After"]) > 3500
        assert b"quota-exceeded" in refusal.body

    def test_is_closed_where_the_server_cannot_answer_it(self):
        app = limited(per_key(1))

        async def run():
            asked = {"kind": "websocket", "messages": [{"type": "websocket.connect"}]}
            first, second = Connection(**asked), Connection(**asked)
            first.gone.set()
            await first.to(app)
            await second.to(app)
            return first.sent[0]["type"], second.sent, second.messages

        accepted, refused, left = asyncio.run(run())
        assert accepted == "websocket.accept"
        assert refused == [{"type": "websocket.close", "code": 1008}]
        assert left == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"limiter": Rate(1, 1)}, "limiter"),
        ({"wait": "soon"}, "wait"),
        ({"cost": "heavy"}, "cost"),
        ({"paths": "/login"}, "paths"),
        ({"paths": ["login"]}, "login"),
        ({"exempt": [7]}, "7"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(arguments, named):
    with pytest.raises(WrongType, match=named):
        Limit(**{"limiter": per_key(), **arguments})


def test_a_limit_that_is_none_is_named():
    with pytest.raises(WrongType, match="got 'ten per second'"):
        limited(["ten per second"])


def test_a_wait_below_zero_is_named():
    with pytest.raises(OutOfRange, match="wait must be 0 seconds or more, got -1"):
        Limit(per_key(), wait=-1)
