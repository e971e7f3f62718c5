"""RateLimitedSession: the usual spellings of aiohttp, and the whole of its ClientSession."""

import asyncio
import inspect
import unittest.mock

import aiohttp
import pytest
from aiohttp import web

from pyrate_limiter import Duration, Limiter, Rate
from pyrate_limiter.errors import RateLimitExceeded
from pyrate_limiter.extras.aiohttp_limiter import RateLimitedSession
from tests.extras.limiters import NeverFits, Recording

VERBS = ["get", "post", "put", "patch", "delete", "head", "options", "request", "ws_connect"]


@pytest.fixture
def limiter():
    return Recording()


def run(use, limiter, **options):
    async def within():
        async with RateLimitedSession(limiter, **options) as session:
            return await use(session)

    return asyncio.run(within())


def test_async_with_is_entered_with_the_response_and_releases_it(limiter, server):
    async def use(session):
        async with session.get(server.url + "/x") as response:
            assert isinstance(response, aiohttp.ClientResponse)
            assert await response.json() == {"path": "/x"}
        assert response.closed
        async with await session.post(server.url + "/y") as response:
            assert response.status == 200

    run(use, limiter)
    assert server.paths == ["/x", "/y"]
    assert limiter.asked == [(("pyrate",), {})] * 2


def test_a_call_is_a_coroutine_for_all_who_take_one(limiter, server):
    async def use(session):
        call = session.get(server.url)
        assert inspect.isawaitable(call)
        assert asyncio.iscoroutine(call)
        answers = [
            await call,
            await asyncio.create_task(session.get(server.url)),
            await asyncio.ensure_future(session.get(server.url)),
            await asyncio.wait_for(session.get(server.url), 30),
            *await asyncio.gather(session.get(server.url), session.get(server.url)),
        ]
        for response in answers:
            assert (await response.read()) == b'{"path": "/"}'

    run(use, limiter)
    assert len(limiter.asked) == 6


def test_a_forgotten_await_warns(limiter, server):
    async def use(session):
        with pytest.warns(RuntimeWarning, match=r"RateLimitedSession\.get.* was never awaited"):
            session.get(server.url)

    run(use, limiter)
    assert server.arrived == []


def test_a_call_that_is_closed_or_thrown_into_is_over(limiter, server):
    async def use(session):
        session.get(server.url).close()
        with pytest.raises(KeyError):
            session.get(server.url).throw(KeyError("enough"))

    run(use, limiter)
    assert server.arrived == []


def test_its_methods_pass_for_coroutine_functions():
    mock = unittest.mock.create_autospec(RateLimitedSession, instance=True)
    for verb in VERBS:
        assert inspect.iscoroutinefunction(getattr(RateLimitedSession, verb))
        assert isinstance(getattr(mock, verb), unittest.mock.AsyncMock)


def test_every_public_method_of_the_session_inside_is_limited_or_sends_nothing():
    public = {name for name, _ in inspect.getmembers(aiohttp.ClientSession, inspect.isfunction)}
    assert {name for name in public if not name.startswith("_")} == {*VERBS, "close", "detach"}


def test_an_error_within_async_with_goes_through(limiter, server):
    async def use(session):
        async with session.get(server.url):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(use, limiter)


def test_a_refused_call_is_not_entered(server):
    limiter = Limiter(NeverFits())

    async def use(session):
        with pytest.raises(RateLimitExceeded):
            async with session.get(server.url):
                pass

    run(use, limiter)
    assert server.arrived == []
    limiter.close()


def test_a_redirect_chain_is_one_call(limiter, server):
    async def use(session):
        async with session.get(server.url + "/redirect") as response:
            assert response.status == 200

    run(use, limiter)
    assert server.paths == ["/redirect", "/final"]
    assert len(limiter.asked) == 1


def test_a_websocket_takes_one_unit_and_is_closed_on_leaving(limiter):
    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def use(session):
        app = web.Application()
        app.router.add_get("/ws", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/ws"
        async with session.ws_connect(url) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
        assert socket.closed
        await runner.cleanup()

    run(use, limiter)
    assert len(limiter.asked) == 1


def test_it_can_be_made_outside_a_running_loop(limiter, server):
    session = RateLimitedSession(limiter, headers={"X-Mine": "1"}, base_url=server.url)
    assert not session.closed

    async def use():
        async with session, session.get("/x") as response:
            assert response.status == 200
        assert session.closed

    asyncio.run(use())
    assert server.arrived[0][2]["X-Mine"] == "1"


def test_an_unknown_argument_is_a_type_error_at_once(limiter):
    with pytest.raises(TypeError, match="nonsense"):
        RateLimitedSession(limiter, nonsense=1)


def test_the_attributes_of_a_client_session_are_there(limiter):
    async def use(session):
        session.headers["X-More"] = "1"
        assert session._session.headers["X-More"] == "1"
        assert session.cookie_jar is session._session.cookie_jar
        assert session.connector is session._session.connector
        assert session.timeout.total == 5
        assert session.requote_redirect_url is False
        assert session.closed is False
        with pytest.raises(AttributeError, match="no attribute '_nothing'"):
            session._nothing  # noqa: B018 - reading it is what is tested
        with pytest.raises(AttributeError, match="nothing"):
            session.nothing  # noqa: B018
        connector = session.connector
        session.detach()
        assert session.closed
        await connector.close()

    run(use, limiter, timeout=aiohttp.ClientTimeout(5), requote_redirect_url=False)


def test_a_closed_session_takes_nothing(limiter, server):
    async def use():
        for used in (True, False):
            session = RateLimitedSession(limiter)
            if used:
                (await session.get(server.url)).release()
            await session.close()
            await session.close()
            with pytest.raises(RuntimeError, match="Session is closed"):
                await session.get(server.url)

    asyncio.run(use())
    assert len(limiter.asked) == 1


def test_by_host_relative_urls_are_of_the_base_url(limiter, server):
    async def use(session):
        (await session.get("/a")).release()
        (await session.get(url="/c")).release()
        (await session.request("PUT", url="/b")).release()

    run(use, limiter, key="host", base_url=server.url)
    assert limiter.names == ["127.0.0.1"] * 3


def test_programs_that_test_themselves_by_replacing_the_request_of_client_sessions(monkeypatch):
    class Client:
        session = RateLimitedSession(Limiter(Rate(90, Duration.MINUTE)), headers={"A": "b"})

    async def answer(session, method, url, **options):
        return f"{method} {url} {session.headers['A']}"

    async def use():
        async with Client.session as session:
            return await session.get("https://api.example.com/x")

    monkeypatch.setattr(aiohttp.ClientSession, "_request", answer)
    assert asyncio.run(use()) == "GET https://api.example.com/x b"
