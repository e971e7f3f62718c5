"""RateLimitedRequestsSession: what requests' own sessions promise, kept."""

import copy
import io
import pickle

import pytest
import requests
import responses
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pyrate_limiter import Duration, Limiter, Rate, limiter_factory
from pyrate_limiter.errors import RateLimitExceeded, WrongType
from pyrate_limiter.extras.requests_limiter import RateLimitedRequestsSession
from tests.extras.limiters import NeverFits, Recording

OWN_NAME = "pyrate_limiter.extras.requests_limiter"


@pytest.fixture
def limiter():
    return Recording()


@pytest.fixture
def session(limiter):
    with RateLimitedRequestsSession(limiter) as session:
        session.trust_env = False
        yield session


def test_a_redirect_chain_is_one_call(session, limiter, server):
    response = session.get(server.url + "/redirect")
    assert server.paths == ["/redirect", "/final"]
    assert [step.status_code for step in response.history] == [302]
    assert len(limiter.asked) == 1


def test_a_prepared_request_and_its_redirects_are_one_call(session, limiter, server):
    prepared = session.prepare_request(requests.Request("GET", server.url + "/redirect"))
    assert session.send(prepared).status_code == 200
    assert server.paths == ["/redirect", "/final"]
    assert limiter.asked == [((OWN_NAME,), {})]


def test_a_refused_prepared_request_is_not_sent(server):
    with RateLimitedRequestsSession(Limiter(NeverFits())) as session:
        prepared = session.prepare_request(requests.Request("GET", server.url))
        with pytest.raises(RateLimitExceeded):
            session.send(prepared)
        session._limiter.close()
    assert server.arrived == []


@pytest.mark.parametrize("options", [{}, {"key": "host"}])
def test_a_request_made_by_a_hook_is_a_call_of_its_own(limiter, server, options):
    with RateLimitedRequestsSession(limiter, **options) as session:

        def renew(response, **kwargs):
            if response.request.path_url == "/":
                session.post(server.url + "/token")

        session.get(server.url, hooks={"response": renew})
    assert server.paths == ["/", "/token"]
    assert len(limiter.asked) == 2


def test_the_send_of_another_session_is_a_call_of_its_own(session, limiter, server):
    with RateLimitedRequestsSession(limiter) as other:

        def also(response, **kwargs):
            prepared = requests.Request("GET", server.url + "/other").prepare()
            if response.request.path_url == "/":
                other.send(prepared)

        session.get(server.url, hooks={"response": also})
    assert len(limiter.asked) == 2


def test_a_malformed_url_has_cost_its_unit(session, limiter):
    with pytest.raises(requests.exceptions.MissingSchema):
        session.get("no-scheme")
    assert len(limiter.asked) == 1


def test_retries_of_an_adapter_cost_nothing(session, limiter, server):
    server.answers["/busy"] = (503, {})
    session.mount("http://", HTTPAdapter(max_retries=Retry(2, status_forcelist=[503])))
    with pytest.raises(requests.exceptions.RetryError):
        session.get(server.url + "/busy")
    assert len(server.arrived) == 3
    assert len(limiter.asked) == 1


def test_every_argument_reaches_requests(session, server):
    session.request(
        b"POST",
        url=server.url + "/x",
        params={"q": "1"},
        data={"a": "b"},
        headers={"X-One": "1"},
        auth=("me", "secret"),
        timeout=30,
    )
    ((method, path, headers, body),) = server.arrived
    assert (method, path, body) == ("POST", "/x?q=1", b"a=b")
    assert headers["X-One"] == "1"
    assert headers["Authorization"].startswith("Basic ")
    session.post(server.url + "/x", json={"a": 1}, stream=True).raw.read()
    assert server.arrived[1][3] == b'{"a": 1}'


def test_streaming_works(session, server):
    with session.get(server.url + "/x", stream=True) as response:
        assert b"".join(response.iter_content(4)) == b'{"path": "/x"}'
    session.post(server.url + "/up", data=io.BytesIO(b"12345"))
    assert server.arrived[1][3] == b"12345"


def test_a_closed_session_can_be_used_again(limiter, server):
    session = RateLimitedRequestsSession(limiter)
    session.close()
    session.close()
    assert session.get(server.url).status_code == 200
    session.close()


@pytest.mark.parametrize("copied", [copy.copy, lambda session: pickle.loads(pickle.dumps(session))])
def test_a_copy_keeps_its_limiter_and_name(server, copied):
    with RateLimitedRequestsSession(Limiter(Rate(1, Duration.DAY)), "mine", timeout=0) as session:
        session.headers["X-Kept"] = "yes"
        twin = copied(session)
    assert twin.get(server.url).status_code == 200
    assert server.arrived[0][2]["X-Kept"] == "yes"
    with pytest.raises(RateLimitExceeded) as caught:
        twin.get(server.url)
    assert caught.value.name == "mine"
    twin.close()


def test_attributes_of_a_session_may_be_given(limiter, server):
    with RateLimitedRequestsSession(
        limiter, headers={"X-Mine": "1"}, cookies={"a": "b"}, auth=("me", "pw"), max_redirects=3
    ) as session:
        session.get(server.url)
        assert session.max_redirects == 3
    headers = server.arrived[0][2]
    assert headers["X-Mine"] == "1"
    assert headers["Cookie"] == "a=b"
    assert headers["User-Agent"].startswith("python-requests")
    assert "Authorization" in headers


@pytest.mark.parametrize("unknown", ["retries", "adapters", "per_second"])
def test_an_unknown_argument_is_named(limiter, unknown):
    with pytest.raises(WrongType, match=f"max_redirects.*got '{unknown}'"):
        RateLimitedRequestsSession(limiter, **{unknown: 5})


def test_without_a_limiter_it_says_so():
    with pytest.raises(TypeError, match="limiter"):
        RateLimitedRequestsSession()


def test_a_second_base_is_made_without_arguments(limiter):
    class Other(requests.Session):
        def __init__(self):
            super().__init__()
            self.other = True

    class Both(RateLimitedRequestsSession, Other):
        pass

    with Both(limiter, "mine", headers={"X": "1"}) as session:
        assert session.other
        assert (session._limiter, session._name) == (limiter, "mine")


def test_a_limiter_of_the_factory_and_mounted_retries_as_programs_have_them(server):
    limiter = limiter_factory.create_inmemory_limiter(
        rate_per_duration=10, duration=Duration.SECOND
    )
    with RateLimitedRequestsSession(limiter) as session:
        session.mount("https://", HTTPAdapter(max_retries=Retry(total=3, backoff_factor=1)))
        assert [session.get(server.url).status_code for _ in range(3)] == [200] * 3
    limiter.close()


@responses.activate
def test_programs_that_test_themselves_with_responses(limiter):
    responses.add(responses.GET, "https://api.example.com/x", json={"ok": True})
    with RateLimitedRequestsSession(limiter) as session:
        assert session.get("https://api.example.com/x").json() == {"ok": True}
    assert len(limiter.asked) == 1
