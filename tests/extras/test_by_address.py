"""Whose request it is: addresses, headers and what a client may not choose."""

import asyncio
import hashlib

import pytest

from pyrate_limiter.errors import InvalidNetwork, OutOfRange, WrongType
from pyrate_limiter.extras.asgi import AsgiRequest, by_address, by_header
from pyrate_limiter.extras.wsgi import WsgiRequest

PROXIES = ["10.0.0.0/8", "fd00::/8", "127.0.0.1"]


def asgi(peer, **headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    client = None if peer is None else (peer, 50_000)
    return AsgiRequest({"type": "http", "path": "/", "headers": named, "client": client})


def wsgi(peer, **headers):
    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return WsgiRequest({**environ, "REMOTE_ADDR": peer or ""})


both = pytest.mark.parametrize("request_from", [asgi, wsgi])


@both
@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("no address", "unknown"),
    ],
)
def test_a_client_is_the_address_that_it_connects_from(request_from, peer, key):
    assert by_address()(request_from(peer, x_forwarded_for="198.51.100.1")) == key


@both
@pytest.mark.parametrize(
    ("hops", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("spoofed, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.1.1.1,127.0.0.1", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::1]:4711", "2001:db8::/64"),
        ("2001:db8::1, fd00::5", "2001:db8::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, nonsense", "10.0.0.1"),
        ("203.0.113.7, nonsense, 10.2.2.2", "10.2.2.2"),
        ("203.0.113.7, ", "10.0.0.1"),
        ("10.3.3.3", "10.3.3.3"),
        ("", "10.0.0.1"),
    ],
)
def test_behind_trusted_proxies_it_is_the_first_that_they_do_not_vouch_for(request_from, hops, key):
    assert by_address(PROXIES)(request_from("10.0.0.1", x_forwarded_for=hops)) == key


@both
def test_a_peer_that_is_no_trusted_proxy_is_not_believed(request_from):
    request = request_from("203.0.113.9", x_forwarded_for="198.51.100.1")
    assert by_address(PROXIES)(request) == "203.0.113.9"


@both
def test_a_socket_in_the_file_system_is_trusted_only_by_name(request_from):
    request = request_from(None, x_forwarded_for="203.0.113.7")
    assert by_address(["unix"])(request) == "203.0.113.7"
    assert by_address(PROXIES)(request) == "unknown"
    assert by_address(["unix"])(request_from("no address", x_forwarded_for="a")) == "unknown"


def test_several_lines_of_the_header_are_read_in_their_order():
    request = asgi("10.0.0.1")
    request.raw["headers"] = [
        (b"X-Forwarded-For", b"198.51.100.1"),
        (b"x-forwarded-for", b"203.0.113.7, 10.0.0.2"),
    ]
    assert by_address(PROXIES)(request) == "203.0.113.7"


@both
def test_another_header_and_another_prefix(request_from):
    key = by_address(PROXIES, header="X-Real-IP", ipv6_prefix=48)
    assert key(request_from("10.0.0.1", x_real_ip="2001:db8:1:2::3")) == "2001:db8:1::/48"


@pytest.mark.parametrize("network", ["10.0.0.0/99", "proxy.internal", "10.0.0.0-10.0.0.9", ""])
def test_a_network_that_is_none_is_named(network):
    with pytest.raises(InvalidNetwork, match=r"is no network, such as '10\.0\.0\.0/8'") as caught:
        by_address([network])
    assert caught.value.network == network


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"trusted": "10.0.0.0/8"}, WrongType),
        ({"ipv6_prefix": "64"}, WrongType),
        ({"ipv6_prefix": 0}, OutOfRange),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        by_address(**arguments)


@both
def test_a_header_is_never_taken_for_somebodys_address(request_from):
    key = by_header("X-Api-Key")
    assert key(request_from("203.0.113.7", x_api_key="203.0.113.8")) == "X-Api-Key: 203.0.113.8"
    assert key(request_from("203.0.113.7")) == "203.0.113.7"
    assert key(request_from("203.0.113.7", x_api_key="")) == "203.0.113.7"


@both
def test_a_long_header_is_known_by_its_digest(request_from):
    digest = hashlib.sha256(b"k" * 100_000).hexdigest()
    request = request_from("203.0.113.7", x_api_key="k" * 100_000)
    assert by_header("X-Api-Key")(request) == f"X-Api-Key: {digest}"


@both
def test_requests_without_the_header_may_be_limited_otherwise(request_from):
    request = request_from("203.0.113.7")
    assert by_header("X-Api-Key", lambda request: None)(request) is None

    async def later(request):
        return "later"

    assert asyncio.run(by_header("X-Api-Key", later)(request)) == "later"
