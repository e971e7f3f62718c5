"""Limits for any WSGI application: Flask, Django. No package is needed."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from pyrate_limiter._core.driver import at_once
from pyrate_limiter.extras._address import by_address, by_header, by_path
from pyrate_limiter.extras._limit import Limit
from pyrate_limiter.extras._limits import Middleware
from pyrate_limiter.extras._request import WebRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from pyrate_limiter.extras._limits import Answer

    App = WSGIApplication

__all__ = [
    "Limit",
    "RateLimitMiddleware",
    "WebRequest",
    "by_address",
    "by_header",
    "by_path",
]


class RateLimitMiddleware(Middleware["App"]):
    """Answers requests beyond the limits with 429, and tells all clients where they stand.

    WSGI does not say whether a client has left: a request waits its time out.

    The arguments are those of `pyrate_limiter.extras.asgi.RateLimitMiddleware`.

    Raises:
        WrongType: an argument is nothing of the above.
        AsyncBucketInSyncCode: at a request, when a limiter, a key or a cost has to be awaited.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        message = "a WSGI application cannot await its limits: make key and cost sync functions"
        answer = at_once(self._limits.ask(WsgiRequest(environ)), message)
        if answer is None:
            return self.app(environ, start_response)
        if answer.status:
            status = HTTPStatus(answer.status)
            start_response(f"{status.value} {status.phrase}", answer.headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]
        return self.app(environ, _stating(start_response, answer))


class WsgiRequest(WebRequest):
    """A request by its WSGI environ."""

    __slots__ = ()

    @property
    def method(self) -> str:
        method: str = self.raw["REQUEST_METHOD"]
        return method

    @property
    def path(self) -> str:
        raw = self.raw.get("SCRIPT_NAME", "") + self.raw.get("PATH_INFO", "")
        # WSGI hands bytes over as characters of Latin-1.
        path: str = raw.encode("latin-1").decode("utf-8", "replace")
        return path or "/"

    @property
    def peer(self) -> str | None:
        return self.raw.get("REMOTE_ADDR") or None

    def header(self, name: str) -> str | None:
        key = name.upper().replace("-", "_")
        content = {"CONTENT_TYPE", "CONTENT_LENGTH"}
        value: str | None = self.raw.get(key if key in content else f"HTTP_{key}")
        return value


def _stating(start_response: StartResponse, answer: Answer) -> StartResponse:
    """``start_response`` that adds the fields to the headers of the application's answer."""

    def stating(
        status: str, headers: list[tuple[str, str]], *exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        return start_response(status, [*headers, *answer.fields], *exc_info)

    return stating
