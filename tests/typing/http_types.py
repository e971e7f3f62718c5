"""Checked by mypy --strict and pyright, and never run: what the types of the HTTP helpers are."""

from typing import Any

import aiohttp
import fastapi
import httpx
import requests
from typing_extensions import assert_type

from pyrate_limiter import Limiter, Rate
from pyrate_limiter.extras import asgi, wsgi
from pyrate_limiter.extras.aiohttp_limiter import OutgoingRequest, RateLimitedSession
from pyrate_limiter.extras.asgi import Limit, WebRequest, by_address, by_header, by_path
from pyrate_limiter.extras.fastapi import RateLimit, install
from pyrate_limiter.extras.httpx_limiter import AsyncRateLimiterTransport, RateLimiterTransport
from pyrate_limiter.extras.requests_limiter import RateLimitedRequestsSession
from pyrate_limiter.http import GITHUB, Feedback, Quota, parse_rate_limit, parse_retry_after

limiter = Limiter(Rate(10, 1000))


def weight(request: requests.PreparedRequest) -> int:
    return len(request.body or b"")


with RateLimitedRequestsSession(limiter, "name", key="host", weight=weight) as session:
    assert_type(session.get("https://example.com"), requests.Response)
RateLimitedRequestsSession(limiter, key=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

transport = RateLimiterTransport(limiter, timeout=5, feedback=GITHUB, verify=False)
assert_type(transport.handle_request(httpx.Request("GET", "/")), httpx.Response)
httpx.Client(transport=transport)
httpx.AsyncClient(transport=AsyncRateLimiterTransport(limiter, feedback=Feedback(longest=5)))


def key(request: OutgoingRequest) -> str:
    return request.url.host or request.method


async def ask() -> None:
    async with RateLimitedSession(limiter, key=key) as paced:
        assert_type(await paced.get("/"), aiohttp.ClientResponse)
        async with paced.post("/", json={}) as response:
            assert_type(response, aiohttp.ClientResponse)
        async with paced.ws_connect("/") as socket:
            assert_type(socket, aiohttp.ClientWebSocketResponse)


async def user(request: WebRequest) -> str | None:
    return request.header("X-User")


limits = [
    Limit(limiter, key=by_address(["10.0.0.0/8"]), cost={"/": 2}, paths=["/*"]),
    Limit(limiter, key=by_header("X-Key", by_path), cost=lambda request: len(request.path)),
    Limit(limiter, key=user, wait=1.5),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive, send


asgi.RateLimitMiddleware(app, limiter)
asgi.RateLimitMiddleware(app, [*limits, limiter], exempt=["/health"], plain=True)
wsgi.RateLimitMiddleware(lambda environ, start_response: [], limits)

api = fastapi.FastAPI(dependencies=[fastapi.Depends(RateLimit(limits))])
install(api)

assert_type(parse_rate_limit(""), list[Quota])
assert_type(parse_retry_after("1", 0), float | None)
