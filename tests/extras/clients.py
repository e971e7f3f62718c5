"""The clients of all libraries, called in one way."""

import asyncio
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import httpx
import httpx2
import pytest

from pyrate_limiter.extras import (
    aiohttp_limiter,
    httpx2_limiter,
    httpx_limiter,
    requests_limiter,
)


@contextmanager
def requests_client(limiter, **options):
    with requests_limiter.RateLimitedRequestsSession(limiter, **options) as session:
        session.trust_env = False
        yield session


@contextmanager
def httpx_client(limiter, **options):
    transport = httpx_limiter.RateLimiterTransport(limiter, **options)
    with httpx.Client(transport=transport, trust_env=False) as client:
        yield client


@contextmanager
def httpx2_client(limiter, **options):
    transport = httpx2_limiter.RateLimiterTransport(limiter, **options)
    with httpx2.Client(transport=transport, trust_env=False) as client:
        yield client


@asynccontextmanager
async def httpx_async(limiter, **options):
    transport = httpx_limiter.AsyncRateLimiterTransport(limiter, **options)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        yield client


@asynccontextmanager
async def httpx2_async(limiter, **options):
    transport = httpx2_limiter.AsyncRateLimiterTransport(limiter, **options)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        yield client


@asynccontextmanager
async def aiohttp_async(limiter, **options):
    if "timeout" in options:
        options["wait_timeout"] = options.pop("timeout")
    async with aiohttp_limiter.RateLimitedSession(limiter, **options) as session:
        yield session


SYNC = {"requests": requests_client, "httpx": httpx_client, "httpx2": httpx2_client}
ASYNC = {"httpx": httpx_async, "httpx2": httpx2_async, "aiohttp": aiohttp_async}
OWN_NAMES = {
    requests_client: "pyrate_limiter.extras.requests_limiter",
    httpx_client: "pyrate_limiter.extras.httpx_limiter",
    httpx2_client: "pyrate_limiter.extras.httpx2_limiter",
    httpx_async: "pyrate_limiter.extras.httpx_limiter",
    httpx2_async: "pyrate_limiter.extras.httpx2_limiter",
    aiohttp_async: "pyrate",
}


def call_sync(open_client, limiter, calls, **options):
    with open_client(limiter, **options) as client:
        return calls(client)


def call_async(open_client, limiter, calls, **options):
    """Run ``calls`` written for a sync client: whatever it returns at the end is awaited."""

    async def run():
        async with open_client(limiter, **options) as client:
            result = None
            for made in calls(client):
                result = done(await made)
            return result

    return asyncio.run(run())


def done(response):
    """The response; aiohttp's has to be given back."""
    if isinstance(response, aiohttp.ClientResponse):
        response.release()
    return response


class Kind:
    """A client of one library, called in one way for both forms."""

    def __init__(self, open_client, run):
        self.open, self.run = open_client, run

    def each(self, limiter, *calls, **options):
        """Make each call in turn; the last one's result."""

        def made(client):
            if self.run is call_async:
                return (call(client) for call in calls)
            return [call(client) for call in calls][-1]

        return self.run(self.open, limiter, made, **options)

    @property
    def own_name(self):
        return OWN_NAMES[self.open]


KINDS = [pytest.param(Kind(client, call_sync), id=f"{name}-sync") for name, client in SYNC.items()]
ASYNC_KINDS = [
    pytest.param(Kind(client, call_async), id=f"{name}-async") for name, client in ASYNC.items()
]
every_kind = pytest.mark.parametrize("kind", [*KINDS, *ASYNC_KINDS])
sync_kinds = pytest.mark.parametrize("kind", KINDS)
async_kinds = pytest.mark.parametrize("kind", ASYNC_KINDS)


def status(response):
    return getattr(response, "status_code", None) or response.status


def get(path):
    return lambda client: client.get(path)
