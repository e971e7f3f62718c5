"""The transports of httpx and httpx2: what the libraries promise of transports, kept."""

import asyncio
import logging

import httpx
import httpx2
import pytest
from hishel.httpx import AsyncCacheTransport, CacheTransport
from httpx_retries import Retry, RetryTransport

from pyrate_limiter.errors import WrongType
from pyrate_limiter.extras import httpx2_limiter, httpx_limiter
from tests.extras.limiters import Recording

LIBRARIES = [
    pytest.param(httpx, httpx_limiter, id="httpx"),
    pytest.param(httpx2, httpx2_limiter, id="httpx2"),
]
both = pytest.mark.parametrize(("library", "module"), LIBRARIES)


@pytest.fixture
def limiter():
    return Recording()


class Canned:
    """A transport that answers by itself, and notes whether it was closed."""

    def __init__(self, library):
        self.library = library
        self.events = []

    def handle_request(self, request):
        self.events.append(str(request.url))
        return self.library.Response(200, text="canned")

    async def handle_async_request(self, request):
        return self.handle_request(request)

    def close(self):
        self.events.append("closed")

    async def aclose(self):
        self.close()

    def __enter__(self):
        self.events.append("entered")
        return self

    def __exit__(self, *exc):
        self.close()

    async def __aenter__(self):
        return self.__enter__()

    async def __aexit__(self, *exc):
        self.close()


@both
def test_each_hop_of_a_redirect_takes_a_unit(library, module, limiter, server):
    transport = module.RateLimiterTransport(limiter=limiter)
    with library.Client(transport=transport, follow_redirects=True, trust_env=False) as client:
        assert client.get(server.url + "/redirect").status_code == 200
    assert server.paths == ["/redirect", "/final"]
    assert len(limiter.asked) == 2


@both
def test_it_is_a_transport_of_its_library(library, module, limiter):
    transport = module.RateLimiterTransport(limiter, retries=2, http2=False)
    assert isinstance(transport, library.HTTPTransport)
    assert transport.limiter is limiter
    transport.close()
    assert issubclass(module.AsyncRateLimiterTransport, library.AsyncHTTPTransport)
    for kind in (module.RateLimiterTransport, module.AsyncRateLimiterTransport):
        with pytest.raises(TypeError, match="nonsense"):
            kind(limiter, nonsense=1)
        with pytest.raises(TypeError, match="limiter"):
            kind()


@both
def test_only_what_a_mount_carries_is_limited(library, module, limiter, server):
    mounts = {"all://localhost": module.RateLimiterTransport(limiter)}
    with library.Client(mounts=mounts, trust_env=False) as client:
        client.get(server.url + "/free")
        client.get(server.url.replace("127.0.0.1", "localhost") + "/paced")
    assert server.paths == ["/free", "/paced"]
    assert len(limiter.asked) == 1


@both
def test_it_can_be_called_directly_and_streams(library, module, limiter, server):
    with module.RateLimiterTransport(limiter) as transport:
        request = library.Request("GET", server.url + "/direct")
        response = transport.handle_request(request)
        assert response.read() == b'{"path": "/direct"}'
        with pytest.raises(TypeError, match="surprise"):
            transport.handle_request(request, surprise=1)
    with (
        library.Client(transport=module.RateLimiterTransport(limiter), trust_env=False) as client,
        client.stream("GET", server.url + "/stream") as response,
    ):
        assert b"".join(response.iter_bytes()) == b'{"path": "/stream"}'


@both
def test_after_its_client_was_closed_it_serves_another(library, module, limiter, server):
    transport = module.RateLimiterTransport(limiter)
    for _ in range(2):
        with library.Client(transport=transport, trust_env=False) as client:
            assert client.get(server.url).status_code == 200
    assert limiter.names == [module.__name__] * 2


@both
def test_each_acquire_is_logged_under_the_modules_name(library, module, limiter, server, caplog):
    transport = module.RateLimiterTransport(limiter)
    with (
        caplog.at_level(logging.DEBUG, logger=module.__name__),
        library.Client(transport=transport, trust_env=False) as client,
    ):
        client.get(server.url)
    assert [record.message for record in caplog.records if record.name == module.__name__] == [
        "Acquired lock"
    ]


@both
def test_it_wraps_another_transport_and_closes_it(library, module, limiter):
    inner = Canned(library)
    transport = module.RateLimiterTransport(limiter, transport=inner)
    with library.Client(transport=transport) as client:
        assert client.get("https://example.com/x").text == "canned"
    assert inner.events == ["entered", "https://example.com/x", "closed"]
    transport.close()
    assert len(limiter.asked) == 1


@both
def test_it_wraps_another_async_transport_and_closes_it(library, module, limiter):
    inner = Canned(library)

    async def run():
        transport = module.AsyncRateLimiterTransport(limiter, transport=inner)
        async with library.AsyncClient(transport=transport) as client:
            assert (await client.get("https://example.com/x")).text == "canned"
        await transport.aclose()

    asyncio.run(run())
    assert inner.events == ["entered", "https://example.com/x", "closed", "closed"]


@both
def test_arguments_that_a_wrapped_transport_would_not_see_are_refused(library, module, limiter):
    with pytest.raises(WrongType, match="verify"):
        module.RateLimiterTransport(limiter, transport=Canned(library), verify=False)


def test_retries_around_it_are_paced_and_within_it_are_not(limiter, server):
    server.answers["/busy"] = (503, {})
    retry = Retry(total=2, backoff_factor=0)
    around = RetryTransport(transport=httpx_limiter.RateLimiterTransport(limiter), retry=retry)
    with httpx.Client(transport=around, trust_env=False) as client:
        assert client.get(server.url + "/busy").status_code == 503
    assert (len(server.arrived), len(limiter.asked)) == (3, 3)
    within = httpx_limiter.RateLimiterTransport(limiter, transport=RetryTransport(retry=retry))
    with httpx.Client(transport=within, trust_env=False) as client:
        client.get(server.url + "/busy")
    assert (len(server.arrived), len(limiter.asked)) == (6, 4)


def test_a_cache_around_it_takes_nothing_for_what_it_has(limiter, server, tmp_path):
    from hishel import AsyncSqliteStorage, SqliteStorage

    server.answers["/cached"] = (200, {"Cache-Control": "max-age=3600"})
    cache = CacheTransport(
        next_transport=httpx_limiter.RateLimiterTransport(limiter),
        storage=SqliteStorage(database_path=tmp_path / "sync.db"),
    )
    with httpx.Client(transport=cache, trust_env=False) as client:
        assert [client.get(server.url + "/cached").status_code for _ in range(3)] == [200] * 3
    assert (len(server.arrived), len(limiter.asked)) == (1, 1)

    async def run():
        cache = AsyncCacheTransport(
            next_transport=httpx_limiter.AsyncRateLimiterTransport(limiter),
            storage=AsyncSqliteStorage(database_path=tmp_path / "async.db"),
        )
        async with httpx.AsyncClient(transport=cache, trust_env=False) as client:
            for _ in range(3):
                assert (await client.get(server.url + "/cached")).status_code == 200

    asyncio.run(run())
    assert (len(server.arrived), len(limiter.asked)) == (2, 2)


def test_programs_that_test_themselves_with_pytest_httpx(limiter, httpx_mock):
    httpx_mock.add_response(url="https://api.example.com/x", json={"ok": True}, is_reusable=True)
    with httpx.Client(transport=httpx_limiter.RateLimiterTransport(limiter)) as client:
        assert client.get("https://api.example.com/x").json() == {"ok": True}

    async def run():
        transport = httpx_limiter.AsyncRateLimiterTransport(limiter)
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("https://api.example.com/x")).json() == {"ok": True}

    asyncio.run(run())
    assert len(limiter.asked) == 2
