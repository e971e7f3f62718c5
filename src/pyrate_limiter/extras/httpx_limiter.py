"""Transports of httpx that keep a client to a limiter's rates."""

from __future__ import annotations

import logging

from pyrate_limiter.errors import MissingDriver
from pyrate_limiter.extras._transport import LimitedAsyncTransport, LimitedTransport
from pyrate_limiter.limiter import Limiter

try:
    import httpx
    from httpx import AsyncHTTPTransport, HTTPTransport
except ModuleNotFoundError as _error:
    raise MissingDriver("httpx", "httpx") from _error

__all__ = ["AsyncRateLimiterTransport", "Limiter", "RateLimiterTransport", "logger", "logging"]

logger: logging.Logger = logging.getLogger(__name__)


class RateLimiterTransport(LimitedTransport[httpx.Request, httpx.Response], HTTPTransport):
    """Waits for its limiter before each request of a ``httpx.Client``.

    Each hop of a redirect is a request. The wait does not count for the client's timeouts.

    Args:
        limiter: what is asked. It is not closed with the transport.
        name: under which name; left out, it is the name of this module.
        key: a name for each request: ``"host"`` is the host of its URL; or a function of the
            request.
        weight: how many units a request takes, or a function of the request.
        timeout: seconds to wait for the limiter at the most; -1 waits for ever.
        feedback: whether a server's 429 and 503 with a Retry-After, and quotas of which nothing is
            left, hold the limiter. True reads the standard fields; or a `Profile` or `Feedback` of
            `pyrate_limiter.http`.
        transport: sends what was admitted, and is closed with this transport. Left out, the
            parent class does.
        **kwargs: as for ``httpx.HTTPTransport``.

    Raises:
        AsyncBucketInSyncCode: the limiter has to be awaited.
        WrongType: an argument is nothing of the above, or ``transport`` is given together with
            arguments of the parent class.
    """

    _logger = logger


class AsyncRateLimiterTransport(
    LimitedAsyncTransport[httpx.Request, httpx.Response], AsyncHTTPTransport
):
    """`RateLimiterTransport` for a ``httpx.AsyncClient``, over sync and async buckets."""

    _logger = logger
