"""What servers say holds the limiter, with the real libraries over loopback."""

import asyncio
import copy
import logging

import aiohttp
import httpx
import httpx2
import pytest
import requests

from pyrate_limiter import Limiter, Rate
from pyrate_limiter.errors import CannotHold, WrongType
from pyrate_limiter.extras.aiohttp_limiter import RateLimitedSession
from pyrate_limiter.extras.requests_limiter import RateLimitedRequestsSession
from pyrate_limiter.http import GITHUB, STANDARD, Feedback
from tests.buckets.test_own_bucket_conformance import OwnBucket
from tests.extras.clients import async_kinds, every_kind, get
from tests.extras.limiters import HOUR_MS

PLAIN = Feedback(jitter=0)
NAME = RateLimitedRequestsSession.__module__


@pytest.fixture
def limiter():
    return Limiter.per_key(Rate(1000, HOUR_MS))


def held(limiter, name, other="another name"):
    """For how many seconds a name is held, to the next ten; that another one is not."""
    assert limiter.check(other).allowed
    decision = limiter.check(name)
    return -(-(decision.retry_after_ms or 0) // 10_000) * 10


@every_kind
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_name_that_was_asked(kind, server, limiter, status):
    server.answers["/busy"] = (status, {"Retry-After": "50"})
    kind.each(limiter, get(server.url + "/fine"), get(server.url + "/busy"), feedback=PLAIN)
    assert held(limiter, kind.own_name) == 50


@every_kind
def test_a_quota_of_which_nothing_is_left_holds_the_requests_own_name(kind, server, limiter):
    server.answers["/last"] = (200, {"RateLimit": '"a";r=0;t=50'})
    kind.each(limiter, get(server.url + "/last"), feedback=PLAIN, key="host")
    assert held(limiter, "127.0.0.1", other=kind.own_name) == 50


@every_kind
def test_only_a_given_profile_is_read_and_holds_are_clamped(kind, server, limiter):
    server.answers["/gone"] = (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9" * 12})
    for feedback in (True, Feedback(GITHUB, longest=30, jitter=0)):
        kind.each(limiter, get(server.url + "/gone"), feedback=feedback)
    assert held(limiter, kind.own_name) == 30


@every_kind
@pytest.mark.parametrize("field", ["soon", "-1", "", "9" * 300])
def test_a_malformed_field_is_ignored(kind, server, limiter, field):
    server.answers["/busy"] = (429, {"Retry-After": field, "RateLimit": ';;;"'})
    kind.each(limiter, get(server.url + "/busy"), feedback=True)
    assert held(limiter, kind.own_name) == 0


@every_kind
def test_without_feedback_nothing_is_held(kind, server, limiter):
    server.answers["/busy"] = (429, {"Retry-After": "50"})
    kind.each(limiter, get(server.url + "/busy"))
    assert held(limiter, kind.own_name) == 0


@every_kind
def test_an_error_of_the_hold_is_logged_and_the_response_arrives(kind, server, limiter, caplog):
    def hold(item, hold_ms):
        raise ConnectionError("the store is down")

    limiter.bucket_factory.bucket(kind.own_name).hold = hold
    server.answers["/busy"] = (429, {"Retry-After": "50"})
    with caplog.at_level(logging.WARNING, logger="pyrate_limiter"):
        kind.each(limiter, get(server.url + "/busy"), feedback=PLAIN)
    (record,) = [found for found in caplog.records if found.name == "pyrate_limiter"]
    assert "50.0 s" in record.getMessage()
    assert isinstance(record.exc_info[1], ConnectionError)


@every_kind
def test_feedback_that_is_none_is_refused_with_its_value(kind, limiter):
    with pytest.raises(WrongType, match=r"feedback must be .* got 'github'"):
        kind.each(limiter, feedback="github")


@every_kind
def test_feedback_asks_for_a_bucket_that_can_hold(kind, server):
    with pytest.raises(CannotHold, match="cannot hold"):
        kind.each(Limiter(OwnBucket([Rate(1, 1000)])), feedback=True)
    kind.each(Limiter(OwnBucket([Rate(1, 1000)])), get(server.url + "/fine"))


def test_a_redirect_that_ends_in_a_refusal_holds_once(server, limiter):
    server.answers["/redirect"] = (302, {"Location": "/final", "Retry-After": "1"})
    server.answers["/final"] = (429, {"Retry-After": "50"})
    with RateLimitedRequestsSession(limiter, feedback=PLAIN) as session:
        session.get(server.url + "/redirect")
        assert held(limiter, NAME) == 50
        limiter.release_hold(NAME)
        session.send(session.prepare_request(requests.Request("GET", server.url + "/redirect")))
        assert held(limiter, NAME) == 50


def test_a_hook_that_raises_for_the_status_hides_nothing(server, limiter):
    server.answers["/busy"] = (429, {"Retry-After": "50"})

    def check(response, **kwargs):
        response.raise_for_status()

    with RateLimitedRequestsSession(limiter, feedback=PLAIN, hooks={"response": check}) as session:
        with pytest.raises(requests.HTTPError):
            session.get(server.url + "/busy")
        assert held(limiter, NAME) == 50
        limiter.release_hold(NAME)
        with pytest.raises(requests.ConnectionError):
            session.get("http://127.0.0.1:1")


def test_a_session_that_raises_for_the_status_hides_nothing(server, limiter):
    server.answers["/busy"] = (429, {"Retry-After": "50"})

    async def run():
        async with RateLimitedSession(limiter, feedback=PLAIN, raise_for_status=True) as session:
            with pytest.raises(aiohttp.ClientResponseError):
                await session.get(server.url + "/busy")
        assert held(limiter, "pyrate") == 50
        limiter.release_hold("pyrate")
        async with RateLimitedSession(limiter, feedback=PLAIN) as session:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(server.url + "/busy")
        assert held(limiter, "pyrate") == 50

    asyncio.run(run())


def test_a_copied_session_keeps_its_feedback(server, limiter):
    server.answers["/busy"] = (429, {"Retry-After": "50"})
    with copy.copy(RateLimitedRequestsSession(limiter, feedback=PLAIN)) as session:
        session.get(server.url + "/busy")
        assert held(limiter, NAME) == 50
    assert Feedback().profile is STANDARD


@async_kinds
def test_a_call_that_is_cancelled_while_it_holds_closes_its_response(kind, server, monkeypatch):
    limiter = Limiter(Rate(1000, HOUR_MS))
    server.answers["/busy"] = (429, {"Retry-After": "50"})
    closed = []

    def noting(kind_of_response, method):
        close = getattr(kind_of_response, method)

        def noted(response):
            closed.append(response)
            return close(response)

        monkeypatch.setattr(kind_of_response, method, noted)

    for kind_of_response, method in (
        (httpx.Response, "aclose"),
        (httpx2.Response, "aclose"),
        (aiohttp.ClientResponse, "close"),
    ):
        noting(kind_of_response, method)

    async def run():
        holding = asyncio.Event()

        async def hold_async(name, seconds):
            holding.set()
            await asyncio.Event().wait()

        limiter.hold_async = hold_async
        async with kind.open(limiter, feedback=PLAIN) as client:
            call = asyncio.ensure_future(client.get(server.url + "/busy"))
            await holding.wait()
            assert closed == []
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(run())
    assert len(closed) == 1
