"""Programs of published packages that stand on this one, over loopback: ``nox -s dependents``."""

import asyncio
import time
from importlib.metadata import version

import httpx
import httpx2
import pytest
import requests
from fastapi import Depends, FastAPI
from fastapi_limiter.depends import RateLimiter
from httpx_limiter import AsyncRateLimitedTransport
from httpx_limiter import Rate as HttpxRate
from httpx_limiter.pyrate import PyrateAsyncLimiter
from requests_ratelimiter import LimiterAdapter, LimiterSession

from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate, SQLiteBucket
from pyrate_limiter.extras.aiohttp_limiter import RateLimitedSession
from pyrate_limiter.extras.httpx2_limiter import RateLimiterTransport as Httpx2Transport
from pyrate_limiter.extras.httpx_limiter import RateLimiterTransport
from pyrate_limiter.extras.requests_limiter import RateLimitedRequestsSession
from tests.extras import http_server, web_servers


@pytest.fixture
def server():
    with http_server.running() as server:
        yield server


def seconds(call, times):
    begun = time.monotonic()
    for _ in range(times):
        call()
    return time.monotonic() - begun


def test_this_release_is_under_test():
    assert version("pyrate-limiter") >= "4.6"


class TestRequestsRatelimiter:
    @pytest.mark.parametrize("bucket_class", [InMemoryBucket, SQLiteBucket])
    def test_a_session_keeps_to_its_rate(self, server, bucket_class):
        with LimiterSession(per_second=2, bucket_class=bucket_class) as session:
            assert seconds(lambda: session.get(server.url).raise_for_status(), 5) >= 2
        assert len(server.arrived) == 5

    def test_an_adapter_keeps_each_host_to_its_rate(self, server):
        with requests.Session() as session:
            session.mount("http://", LimiterAdapter(per_second=2))
            other = server.url.replace("127.0.0.1", "localhost")
            assert seconds(lambda: [session.get(url) for url in (server.url, other)], 3) >= 1
        assert len(server.arrived) == 6

    def test_a_limiter_of_ones_own(self, server):
        limiter = Limiter([Rate(1, 200)])
        with LimiterSession(limiter=limiter) as session:
            assert seconds(lambda: session.get(server.url), 3) >= 0.4
        limiter.close()

    def test_a_refusal_of_the_server_fills_the_bucket(self, server):
        server.answers["/busy"] = (429, {})
        with LimiterSession(per_second=5, limit_statuses=[429]) as session:
            session.get(server.url)
            session.get(server.url + "/busy")
            assert seconds(lambda: session.get(server.url), 1) >= 0.5


class TestFastapiLimiter:
    def test_a_route_is_limited(self):
        app = FastAPI()
        limiter = Limiter(Rate(2, Duration.HOUR))

        @app.get("/", dependencies=[Depends(RateLimiter(limiter=limiter))])
        async def index() -> str:
            return "ok"

        with web_servers.asgi(app) as url, httpx.Client(trust_env=False) as client:
            assert [client.get(url).status_code for _ in range(4)] == [200, 200, 429, 429]
        limiter.close()


class TestHttpxLimiter:
    @pytest.mark.parametrize(
        "rates",
        [
            [HttpxRate.create(magnitude=2, duration=0.5)],
            [HttpxRate.create(2, 0.5), HttpxRate.create(3)],
        ],
    )
    def test_a_client_keeps_to_its_rates(self, server, rates):
        async def run():
            limiter = PyrateAsyncLimiter.create(*rates)
            transport = AsyncRateLimitedTransport.create(limiter=limiter)
            async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
                begun = time.monotonic()
                answers = await asyncio.gather(*(client.get(server.url) for _ in range(5)))
                return time.monotonic() - begun, {answer.status_code for answer in answers}

        took, statuses = asyncio.run(run())
        assert statuses == {200}
        assert took >= 1


class TestOurOwnExtras:
    def test_beside_the_others_they_keep_to_their_rate(self, server):
        with RateLimitedRequestsSession(Limiter(Rate(1, 200))) as session:
            assert seconds(lambda: session.get(server.url), 3) >= 0.4
        for library, kind in ((httpx, RateLimiterTransport), (httpx2, Httpx2Transport)):
            transport = kind(Limiter(Rate(1, 200)))
            with library.Client(transport=transport, trust_env=False) as client:
                assert seconds(lambda client=client: client.get(server.url), 3) >= 0.4

        async def run():
            async with RateLimitedSession(Limiter(Rate(1, 200))) as session:
                begun = time.monotonic()
                for answer in await asyncio.gather(*(session.get(server.url) for _ in range(3))):
                    answer.release()
                return time.monotonic() - begun

        assert asyncio.run(run()) >= 0.4
        assert len(server.arrived) == 12
