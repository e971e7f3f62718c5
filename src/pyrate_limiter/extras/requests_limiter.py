"""A session of requests that keeps to a limiter's rates."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Literal

from pyrate_limiter.errors import MissingDriver, WrongType
from pyrate_limiter.extras._outgoing import OutgoingLimit
from pyrate_limiter.limiter import Limiter

try:
    from requests import PreparedRequest, RequestException, Response, Session
except ModuleNotFoundError as _error:
    raise MissingDriver("requests", "requests") from _error

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.http.profiles import Feedback, Profile

__all__ = ["Limiter", "RateLimitedRequestsSession", "Session", "logger", "logging"]

logger: logging.Logger = logging.getLogger(__name__)

_SETTABLE = frozenset(Session.__attrs__) - {"adapters"}

_sending: ContextVar[Session | None] = ContextVar("_sending", default=None)
"""The session whose admitted request this thread is at: its redirects cost nothing more."""


class RateLimitedRequestsSession(Session):
    """Waits for its limiter before each request.

    A chain of redirects is one request, and so are an adapter's own retries. The wait does not
    count for the request's timeout. A prepared request given to `send` is limited as well.

    Args:
        limiter: what is asked. It is not closed with the session.
        name: under which name.
        key: a name for each request: ``"host"`` is the host of its URL; or a function of the
            ``requests.PreparedRequest``.
        weight: how many units a request takes, or a function of the ``requests.PreparedRequest``.
        timeout: seconds to wait for the limiter at the most; -1 waits for ever.
        feedback: whether a server's 429 and 503 with a Retry-After, and quotas of which nothing is
            left, hold the limiter. True reads the standard fields; or a `Profile` or `Feedback` of
            `pyrate_limiter.http`.
        **_: values for attributes of the session, such as ``headers``, ``auth`` or ``verify``.
            Headers and cookies are added to those there are.

    Raises:
        AsyncBucketInSyncCode: the limiter has to be awaited.
        WrongType: an argument is nothing of the above.
    """

    __attrs__: list[str] = [*Session.__attrs__, "_limit", "_limiter", "_name"]  # noqa: RUF012

    def __init__(
        self,
        limiter: Limiter,
        name: str = __name__,
        *,
        key: Literal["host"] | Callable[[PreparedRequest], str] | None = None,
        weight: int | Callable[[PreparedRequest], int] = 1,
        timeout: float = -1,
        feedback: Feedback | Profile | bool | None = None,
        **_: object,
    ) -> None:
        self._limiter = limiter
        self._name = name
        self._limit: OutgoingLimit[PreparedRequest] = OutgoingLimit(key, weight, timeout, feedback)
        self._limit.check(limiter, sync=True)
        super().__init__()
        for attribute, value in _.items():
            if attribute not in _SETTABLE:
                expected = f"one of {', '.join(sorted(_SETTABLE))}"
                raise WrongType("keyword arguments", attribute, expected)
            if attribute in {"headers", "cookies"}:
                getattr(self, attribute).update(value)
            else:
                setattr(self, attribute, value)

    def request(
        self, method: str | bytes, url: str | bytes, *args: object, **kwargs: object
    ) -> Response:
        """Wait until the limiter admits the request, then send it.

        Raises:
            RateLimitExceeded: it was not admitted, and not sent.
        """
        request: Callable[..., Response] = super().request
        call = partial(request, method, url, *args, **kwargs)
        if self._limit.by_request:
            return self._as(None, call)  # `send` gets to know the request, and asks
        return self._admitted(None, call)

    def send(self, request: PreparedRequest, **kwargs: object) -> Response:
        """`request` for one that is prepared."""
        send: Callable[..., Response] = super().send
        call = partial(send, request, **kwargs)
        return call() if _sending.get() is self else self._admitted(request, call)

    def _admitted(self, request: PreparedRequest | None, call: Callable[[], Response]) -> Response:
        name = self._limit.admit(self._limiter, self._name, request)
        response: Response | None = None
        try:
            response = self._as(self, call)
        except RequestException as error:  # of a hook that raises for a status
            response = error.response
            raise
        finally:
            if response is not None:
                self._limit.learn(self._limiter, name, response)
        return response

    @staticmethod
    def _as(session: Session | None, call: Callable[[], Response]) -> Response:
        token = _sending.set(session)
        try:
            return call()
        finally:
            _sending.reset(token)
