"""Whose request it is: the address of the client, as far as it can be trusted."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from pyrate_limiter.errors import InvalidNetwork, OutOfRange, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from ipaddress import IPv4Network, IPv6Network

    from pyrate_limiter.extras._request import Key, WebRequest

_LONGEST_KEY = 64  # characters of a header; longer values are known by their digest
_IPV6_BITS = 128
_UNKNOWN = "unknown"


def by_address(
    trusted: Iterable[str] = (), *, header: str = "X-Forwarded-For", ipv6_prefix: int = 64
) -> Callable[[WebRequest], str]:
    """Limit by the address of the client.

    That is the address that the connection comes from. Only where this is a trusted proxy, the
    header is read: from its end, where the proxies nearest to the server write, to the first
    address that is no trusted proxy. What a client itself writes there is never reached.

    Args:
        trusted: the networks of the proxies, such as ``10.0.0.0/8``; ``unix`` stands for
            connections without an address, through a socket in the file system.
        header: where the proxies say who connected to them.
        ipv6_prefix: addresses of IPv6 that share so many bits are one client, because one is given
            as many as that to choose from.

    Raises:
        InvalidNetwork: one of the networks is none.
        WrongType: ``trusted`` is one text, or ``ipv6_prefix`` no whole number.
        OutOfRange: an address has not so many bits.
    """
    if isinstance(trusted, str):
        raise WrongType("trusted", trusted, "several networks, such as ['10.0.0.0/8']")
    if not isinstance(ipv6_prefix, int):
        raise WrongType("ipv6_prefix", ipv6_prefix, "a whole number of bits")
    if not 1 <= ipv6_prefix <= _IPV6_BITS:
        raise OutOfRange("ipv6_prefix", ipv6_prefix, f"1 to {_IPV6_BITS} bits")
    look_up = _cached_look_up(list(trusted), ipv6_prefix)

    def key(request: WebRequest) -> str:
        found, is_proxy = look_up(request.peer or None)
        if is_proxy:
            for hop in reversed((request.header(header) or "").split(",")):
                if _address(hop) is None:
                    break  # what stands before it cannot be trusted
                found, is_proxy = look_up(hop)
                if not is_proxy:
                    break
        return found

    return key


def by_header(name: str, otherwise: Key | None = None) -> Key:
    """Limit by the value of a header, such as an API key.

    A client may write there what it likes: check it before, or limit by address as well.

    Args:
        name: of the header.
        otherwise: how to limit requests without it; left out, by address.
    """
    other = by_address() if otherwise is None else otherwise

    def key(request: WebRequest) -> str | Awaitable[str | None] | None:
        value = request.header(name)
        if not value:
            return other(request)
        if len(value) > _LONGEST_KEY:
            value = hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{name}: {value}"  # never taken for somebody's address

    return key


def by_path(request: WebRequest) -> str:
    """Limit each path by itself, all clients together."""
    return request.path


def _cached_look_up(
    trusted: list[str], ipv6_prefix: int
) -> Callable[[str | None], tuple[str, bool]]:
    networks = [_network(name) for name in trusted if name != "unix"]

    @lru_cache(maxsize=4096)
    def look_up(text: str | None) -> tuple[str, bool]:
        """What an address counts as, and whether it is of a trusted proxy."""
        address = _address(text or "")
        if address is None:
            return _UNKNOWN, text is None and "unix" in trusted
        return _shared(address, ipv6_prefix), any(address in network for network in networks)

    return look_up


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name, strict=False)
    except ValueError:
        raise InvalidNetwork(name) from None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in a header or of a connection, without port, brackets and zone."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _shared(address: IPv4Address | IPv6Address, ipv6_prefix: int) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, ipv6_prefix), strict=False))
