"""Transports of httpx2 that keep a client to a limiter's rates."""

from __future__ import annotations

import logging

from pyrate_limiter.errors import MissingDriver
from pyrate_limiter.extras._transport import LimitedAsyncTransport, LimitedTransport
from pyrate_limiter.limiter import Limiter

try:
    import httpx2
    from httpx2 import AsyncHTTPTransport, HTTPTransport
except ModuleNotFoundError as _error:
    raise MissingDriver("httpx2", "httpx2") from _error

__all__ = ["AsyncRateLimiterTransport", "Limiter", "RateLimiterTransport", "logger", "logging"]

logger: logging.Logger = logging.getLogger(__name__)


class RateLimiterTransport(LimitedTransport[httpx2.Request, httpx2.Response], HTTPTransport):
    """Waits for its limiter before each request of a ``httpx2.Client``.

    The arguments are those of `pyrate_limiter.extras.httpx_limiter.RateLimiterTransport`.
    """

    _logger = logger


class AsyncRateLimiterTransport(
    LimitedAsyncTransport[httpx2.Request, httpx2.Response], AsyncHTTPTransport
):
    """`RateLimiterTransport` for a ``httpx2.AsyncClient``, over sync and async buckets."""

    _logger = logger
