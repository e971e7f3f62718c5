"""RateLimit as a dependency of FastAPI, under a real server."""

import asyncio
import importlib
import sys

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Response, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pyrate_limiter import Limiter, Rate
from pyrate_limiter.errors import MissingDriver
from pyrate_limiter.extras.fastapi import Limit, RateLimit, install
from tests.extras import web_servers
from tests.extras.limiters import HOUR_MS


def per_key(limit=1, **options):
    return Limit(Limiter.per_key(Rate(limit, HOUR_MS)), **options)


def application(limits, *, installed=True, **options):
    """/route, /router, /plain and the websocket /ws, of which the first two are limited alike."""
    app = FastAPI()
    limited = Depends(RateLimit(limits, **options))

    @app.get("/route", dependencies=[limited])
    async def route() -> str:
        return "ok"

    router = APIRouter(dependencies=[limited])

    @router.get("/router")
    def within() -> Response:
        return Response("ok")

    @app.get("/plain")
    async def plain() -> str:
        return "ok"

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, _: None = limited) -> None:
        await websocket.accept()
        await websocket.close()

    app.include_router(router)
    if installed:
        install(app)
    return app


def answers(app, *paths):
    with web_servers.asgi(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        return [http.get(path) for path in paths]


@pytest.mark.parametrize("path", ["/route", "/router"])
def test_a_dependency_limits_a_route_or_a_router(path):
    first, second, plain = answers(application(per_key()), path, path, "/plain")
    assert [first.status_code, second.status_code, plain.status_code] == [200, 429, 200]
    assert first.headers["RateLimit-Policy"] == '"default";q=1;w=3600'
    assert first.headers["RateLimit"].startswith('"default";r=0;t=3')
    assert second.headers["Content-Type"] == "application/problem+json"
    assert second.json()["violated-policies"] == ["default"]
    assert int(second.headers["Retry-After"]) > 3500
    assert "RateLimit" not in plain.headers


def test_without_install_refusals_are_fastapis_own_and_have_the_fields():
    app = application(per_key(), installed=False)
    first, second = answers(app, "/route", "/route")
    assert first.headers["RateLimit"].startswith('"default";r=0')
    assert second.status_code == 429
    assert second.json() == {"detail": "Too many requests"}
    assert int(second.headers["Retry-After"]) > 3500


def test_plain_text_older_fields_and_a_full_house():
    limiter = Limiter.per_key(Rate(1, HOUR_MS), max_keys=1)
    limit = Limit(limiter, key=lambda request: request.path)
    app = application(limit, plain=True, legacy=True)
    first, second, other = answers(app, "/route", "/route", "/router")
    assert first.headers["X-RateLimit-Limit"] == "1"
    assert second.text.startswith("Too many requests, try again in 3")
    assert (other.status_code, other.text) == (503, "Too many clients, try again in 1 s\n")


def test_a_request_that_nothing_limits_says_nothing_of_limits():
    (answer,) = answers(application(per_key(key=lambda request: None)), "/route")
    assert answer.status_code == 200
    assert "RateLimit" not in answer.headers


def test_several_dependencies_all_tell_where_the_client_stands():
    app = FastAPI(dependencies=[Depends(RateLimit(per_key(9, name="all")))])
    install(app)

    @app.get("/", dependencies=[Depends(RateLimit(per_key(5, name="route")))])
    async def route() -> str:
        return "ok"

    (answer,) = answers(app, "/")
    assert answer.headers["RateLimit"] == '"all";r=8, "route";r=4'


def test_a_websocket_is_refused_at_its_handshake():
    async def run(url):
        async with connect(url):
            pass
        with pytest.raises(InvalidStatus) as caught:
            async with connect(url):
                pass
        return caught.value.response.status_code

    with web_servers.asgi(application(per_key())) as url:
        assert asyncio.run(run(url.replace("http", "ws") + "/ws")) == 403


@pytest.mark.parametrize("path", ["/route", "/router"])
def test_the_openapi_document_says_so(path):
    (answer,) = answers(application(per_key(), legacy=True), "/openapi.json")
    paths = answer.json()["paths"]
    responses = paths[path]["get"]["responses"]
    fields = {"RateLimit", "RateLimit-Policy"}
    fields |= {f"X-RateLimit-{name}" for name in ("Limit", "Remaining", "Reset")}
    assert set(responses["200"]["headers"]) == fields
    assert set(responses["429"]["headers"]) == {*fields, "Retry-After"}
    assert list(responses["429"]["content"]) == ["application/problem+json"]
    assert "429" not in paths["/plain"]["get"]["responses"]


def test_the_document_is_made_once_and_keeps_what_others_wrote():
    app = FastAPI()
    limit = RateLimit(per_key(), plain=True)
    mine = {"description": "Mine", "headers": {"RateLimit": {"description": "Mine"}}}

    @app.get("/", dependencies=[Depends(limit)], responses={200: mine, 429: mine})
    async def route() -> str:
        return "ok"

    install(app)
    schema = app.openapi()
    assert app.openapi() is schema
    responses = schema["paths"]["/"]["get"]["responses"]
    assert responses["429"]["description"] == "Mine"
    assert responses["200"]["headers"]["RateLimit"] == {"description": "Mine"}
    assert list(limit.responses[429]["content"]) == ["text/plain"]


def test_a_client_that_leaves_while_it_waits_gives_back_what_it_had_reserved():
    limiter = Limiter.per_key(Rate(1, HOUR_MS))
    app = application(Limit(limiter, wait=2 * HOUR_MS))

    async def run():
        sent = []
        gone, watched = asyncio.Event(), asyncio.Event()

        def client():
            parts = [{"type": "http.request", "body": b""}]

            async def receive():
                if parts:
                    return parts.pop()
                watched.set()
                await gone.wait()
                return {"type": "http.disconnect"}

            return receive

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/route",
            "query_string": b"",
            "headers": [],
            "client": ("203.0.113.1", 1),
        }
        await app(dict(scope), client(), send)
        waiting = asyncio.ensure_future(app(dict(scope), client(), send))
        await watched.wait()
        gone.set()
        await waiting
        return [message["status"] for message in sent if "status" in message]

    assert asyncio.run(run()) == [200, 429]  # which nobody reads any more
    assert limiter.buckets()[0].count() == 1


def test_without_fastapi_the_module_says_which_extra_to_install(monkeypatch):
    name = "pyrate_limiter.extras.fastapi"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingDriver, match=r"pip install .pyrate-limiter\[fastapi\]"):
        importlib.import_module(name)
