"""Each framework under a real server, asked by a real client over loopback."""

import httpx
import pytest

from pyrate_limiter import Limiter, Rate
from pyrate_limiter.errors import InvalidField
from pyrate_limiter.extras.asgi import Limit, by_address, by_header, by_path
from tests.extras import applications, web_servers
from tests.extras.limiters import HOUR_MS

EVERY = [
    *(pytest.param(app, web_servers.asgi, id=f"{n}-asgi") for n, app in applications.ASGI.items()),
    *(pytest.param(app, web_servers.wsgi, id=f"{n}-wsgi") for n, app in applications.WSGI.items()),
]
every_framework = pytest.mark.parametrize(("make", "running"), EVERY)


def each(rate, **options):
    return Limit(Limiter.per_key(rate), **options)


def client(url):
    return httpx.Client(base_url=url, trust_env=False)


@every_framework
def test_requests_beyond_the_limit_are_answered_with_429_and_the_truth(make, running):
    with running(make(each(Rate(2, HOUR_MS)))) as url, client(url) as http:
        first, second, third = (http.get("/") for _ in range(3))
    assert [first.text.strip('"'), second.status_code, third.status_code] == ["ok", 200, 429]
    assert first.headers["RateLimit-Policy"] == '"default";q=2;w=3600'
    assert first.headers["RateLimit"] == '"default";r=1'
    assert second.headers["RateLimit"].startswith('"default";r=0;t=36')
    after = int(third.headers["Retry-After"])
    assert 3500 < after <= 3601
    assert third.headers["RateLimit"] == f'"default";r=0;t={after}'
    assert third.headers["Content-Type"] == "application/problem+json"
    assert third.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests: a quota is exceeded",
        "status": 429,
        "violated-policies": ["default"],
    }


@every_framework
def test_who_is_limited_cannot_be_chosen_by_the_client(make, running):
    with running(make(each(Rate(2, HOUR_MS)))) as url, client(url) as http:
        found = [
            http.get("/", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(3)
        ]
    assert found == [200, 200, 429]


@every_framework
def test_behind_a_trusted_proxy_the_client_is_whom_it_names(make, running):
    limit = each(Rate(1, HOUR_MS), key=by_address(["127.0.0.0/8", "10.0.0.0/8"]))
    with running(make(limit)) as url, client(url) as http:
        found = [
            http.get("/", headers={"X-Forwarded-For": hops}).status_code
            for hops in ("203.0.113.1", "203.0.113.2, 10.0.0.1", "spoofed, 203.0.113.1", "")
        ]
    assert found == [200, 200, 429, 200]


@every_framework
def test_paths_have_limits_of_their_own_and_exemptions(make, running):
    limits = [each(Rate(1, HOUR_MS), paths=["/login"], name="login"), each(Rate(3, HOUR_MS))]
    with running(make(limits, exempt=["/free"])) as url, client(url) as http:
        asked = ["/login", "/login", "/", "/", "/", "/free", "/free"]
        answers = [http.get(path) for path in asked]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 200, 429, 200, 200]
    assert answers[0].headers["RateLimit"].startswith('"login";r=0;t=3')
    assert answers[0].headers["RateLimit"].endswith(', "default";r=2')
    assert answers[1].json()["violated-policies"] == ["login"]
    assert "RateLimit" not in answers[5].headers


@every_framework
def test_a_limit_by_header_by_path_and_by_a_function(make, running):
    limits = [
        each(Rate(1, HOUR_MS), key=by_header("X-Api-Key"), name="key"),
        each(Rate(2, HOUR_MS), key=by_path, name="path"),
        each(Rate(1, HOUR_MS), key=lambda request: request.header("X-Agent"), name="agent"),
    ]
    with running(make(limits)) as url, client(url) as http:

        def ask(path, **headers):
            answer = http.get(path, headers={f"X-{k}": v for k, v in headers.items()})
            return answer.json()["violated-policies"] if answer.status_code == 429 else "ok"

        assert ask("/", **{"Api-Key": "a"}) == "ok"
        assert ask("/login", **{"Api-Key": "a"}) == ["key"]
        assert ask("/", **{"Api-Key": "b"}) == "ok"
        assert ask("/", **{"Api-Key": "c"}) == ["path"]
        assert ask("/login", **{"Api-Key": "d", "Agent": "x"}) == "ok"
        assert ask("/free", **{"Api-Key": "e", "Agent": "x"}) == ["agent"]


@every_framework
def test_plain_text_and_older_fields_if_asked(make, running):
    app = make(each(Rate(1, HOUR_MS)), plain=True, legacy=True)
    with running(app) as url, client(url) as http:
        first, second = http.get("/"), http.get("/")
        assert http.head("/").content == b""
    assert first.headers["X-RateLimit-Limit"] == "1"
    assert first.headers["X-RateLimit-Remaining"] == "0"
    assert 3500 < int(first.headers["X-RateLimit-Reset"]) <= 3601
    assert second.headers["Content-Type"].startswith("text/plain")
    assert second.text == f"Too many requests, try again in {second.headers['Retry-After']} s\n"
    assert second.headers["X-RateLimit-Remaining"] == "0"


@every_framework
def test_more_live_clients_than_there_is_room_for_are_503(make, running):
    limiter = Limiter.per_key(Rate(5, HOUR_MS), max_keys=1)
    limit = Limit(limiter, key=lambda request: request.header("X-Key"))
    with running(make(limit)) as url, client(url) as http:
        answers = [http.get("/", headers={"X-Key": key}) for key in "aba"]
    assert [answer.status_code for answer in answers] == [200, 503, 200]
    assert answers[1].headers["Retry-After"] == "1"
    assert answers[1].json()["type"].endswith("#temporary-reduced-capacity")


@every_framework
def test_a_request_may_wait_for_its_turn(make, running):
    with running(make(each(Rate(1, 300), wait=30))) as url, client(url) as http:
        assert [http.get("/").status_code for _ in range(3)] == [200] * 3


@every_framework
def test_costs_by_path_and_by_a_function(make, running):
    limits = [
        each(Rate(10, HOUR_MS), cost={"/login": 5, "/l*": 9, "/*": 2}, name="route"),
        each(Rate(10, HOUR_MS), cost=lambda request: int(request.header("X-Cost")), name="asked"),
    ]
    with running(make(limits)) as url, client(url) as http:
        first = http.get("/login", headers={"X-Cost": "3"})
        second = http.get("/", headers={"X-Cost": "0"})
    assert first.headers["RateLimit"] == '"route";r=5, "asked";r=7'
    assert second.headers["RateLimit"] == '"route";r=3, "asked";r=7'


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x", "é"])
def test_a_name_cannot_bring_in_a_header_of_its_own(name):
    with pytest.raises(InvalidField, match="printable ASCII"):
        each(Rate(1, HOUR_MS), name=name)
