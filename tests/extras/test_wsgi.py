"""The middleware for WSGI, beyond what all frameworks show."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from flask import Flask

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, Rate, RedisBucket
from pyrate_limiter.errors import AsyncBucketInSyncCode
from pyrate_limiter.extras.wsgi import Limit, RateLimitMiddleware, WsgiRequest
from tests.extras import web_servers
from tests.extras.limiters import HOUR_MS


def ok(environ, start_response):
    start_response("200 OK", [("X-Own", "1")])
    return [b"ok"]


def ask(app, path="/", **environ):
    started = []

    def start_response(*arguments):
        started.append(arguments)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": "203.0.113.1", **environ}
    body = b"".join(app(environ, start_response))
    return started[0], body


def per_key(limit=1, **options):
    return Limit(Limiter.per_key(Rate(limit, HOUR_MS)), **options)


def test_the_fields_join_those_of_the_application():
    (status, headers), body = ask(RateLimitMiddleware(ok, per_key(5)))
    assert (status, body) == ("200 OK", b"ok")
    assert headers == [
        ("X-Own", "1"),
        ("RateLimit-Policy", '"default";q=5;w=3600'),
        ("RateLimit", '"default";r=4'),
    ]


def test_a_refusal_says_its_length_and_a_head_has_no_body():
    app = RateLimitMiddleware(ok, per_key())
    ask(app)
    (status, headers), body = ask(app)
    assert status == "429 Too Many Requests"
    assert dict(headers)["Content-Length"] == str(len(body))
    assert ask(app, REQUEST_METHOD="HEAD")[1] == b""


def test_an_error_that_the_application_reports_is_passed_on():
    def failing(environ, start_response):
        start_response("500 Oh", [], (KeyError, KeyError("x"), None))
        return []

    (status, headers, exc_info), _ = ask(RateLimitMiddleware(failing, per_key()))
    assert status == "500 Oh"
    assert headers[0][0] == "RateLimit-Policy"
    assert exc_info[0] is KeyError


def test_a_path_is_decoded_and_includes_where_the_application_is_mounted():
    environ = {"SCRIPT_NAME": "/shop", "PATH_INFO": "/caf\xc3\xa9/\xff"}
    assert WsgiRequest(environ).path == "/shop/café/\N{REPLACEMENT CHARACTER}"
    assert WsgiRequest({}).path == "/"
    app = RateLimitMiddleware(ok, per_key(paths=["/shop/*"]))
    assert [ask(app, "/x", SCRIPT_NAME="/shop")[0][0][:3] for _ in range(2)] == ["200", "429"]
    assert ask(app, "/x")[0][0] == "200 OK"


def test_headers_of_all_kinds_are_found():
    request = WsgiRequest({"CONTENT_TYPE": "a/b", "HTTP_X_API_KEY": "k", "REQUEST_METHOD": "PUT"})
    found = [request.header(name) for name in ("Content-Type", "x-api-key", "Missing")]
    assert found == ["a/b", "k", None]
    assert request.method == "PUT"


@pytest.mark.parametrize("what", ["key", "cost"])
def test_a_function_that_must_be_awaited_is_refused(what):
    async def function(request):
        return "x"

    with pytest.raises(AsyncBucketInSyncCode, match="WSGI application cannot await"):
        ask(RateLimitMiddleware(ok, per_key(**{what: function})))


def test_a_bucket_that_must_be_awaited_is_refused():
    bucket = BucketAsyncWrapper(InMemoryBucket([Rate(1, HOUR_MS)]))
    with Limiter(bucket) as limiter, pytest.raises(AsyncBucketInSyncCode):
        ask(RateLimitMiddleware(ok, limiter))


def test_an_outage_is_answered_as_the_bucket_says():
    import redis

    client = redis.Redis(host="127.0.0.1", port=1)
    for on_error, status in (("allow", "200"), ("deny", "429")):
        bucket = RedisBucket([Rate(1, HOUR_MS)], client, "key", on_error=on_error)
        with Limiter(bucket) as limiter:
            assert ask(RateLimitMiddleware(ok, limiter))[0][0].startswith(status)


def test_many_clients_at_once_keep_to_the_limit_over_loopback():
    app = Flask(__name__)
    app.add_url_rule("/", "/", lambda: "ok")
    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, per_key(10))
    with (
        web_servers.wsgi(app) as url,
        httpx.Client(trust_env=False, timeout=60) as http,
        ThreadPoolExecutor(8) as pool,
    ):
        statuses = list(pool.map(lambda _: http.get(url).status_code, range(40)))
    assert sorted(statuses) == [200] * 10 + [429] * 30
