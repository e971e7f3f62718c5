"""A session of aiohttp that keeps to a limiter's rates."""

from __future__ import annotations

import inspect
import logging
from contextlib import AbstractAsyncContextManager
from functools import WRAPPER_ASSIGNMENTS, update_wrapper
from operator import methodcaller
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from pyrate_limiter._core.awaitables import Pending
from pyrate_limiter.errors import MissingDriver
from pyrate_limiter.extras._outgoing import OutgoingLimit
from pyrate_limiter.limiter import Limiter

try:
    from aiohttp import (
        ClientResponse,
        ClientResponseError,
        ClientSession,
        ClientWebSocketResponse,
    )
    from yarl import URL
except ModuleNotFoundError as _error:
    raise MissingDriver("aiohttp", "aiohttp") from _error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from pyrate_limiter.http.profiles import Feedback, Profile

__all__ = ["ClientSession", "Limiter", "OutgoingRequest", "RateLimitedSession", "logger", "logging"]

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")


class OutgoingRequest(NamedTuple):
    """What a `RateLimitedSession` knows of a request before it is sent."""

    method: str
    url: URL
    options: Mapping[str, Any]
    """The keyword arguments of the call."""


class _Call(Pending[T]):
    """A call that can be awaited, made a task, or entered with ``async with``, like aiohttp's."""

    __slots__ = ("_result",)

    async def __aenter__(self) -> T:
        self._result: T = await self
        return self._result

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        result = self._result
        if isinstance(result, ClientWebSocketResponse):
            await result.close()
        elif isinstance(result, AbstractAsyncContextManager):
            await result.__aexit__(exc_type, exc, tb)


class _Verb(Generic[T]):
    """A method that makes a `_Call` of its coroutine function's coroutine.

    It has what `inspect` looks at, and so passes for that function: mocks made by its
    specification return awaitables, too.
    """

    def __init__(self, function: Callable[..., Coroutine[object, object, T]]) -> None:
        looked_at = ("__code__", "__defaults__", "__kwdefaults__")
        update_wrapper(self, function, (*WRAPPER_ASSIGNMENTS, *looked_at))
        self._function = function

    def __get__(self, session: object, owner: object) -> Callable[..., _Call[T]]:
        return self if session is None else MethodType(self, session)

    def __call__(self, *args: object, **kwargs: object) -> _Call[T]:
        return _Call(self._function(*args, **kwargs), None)


def _verb(name: str) -> _Verb[ClientResponse]:
    async def send(self: RateLimitedSession, *a: object, **k: object) -> ClientResponse:
        return await self._send(name, a, k)

    send.__name__ = name
    send.__qualname__ = f"RateLimitedSession.{name}"
    send.__doc__ = f"``ClientSession.{name}``, when it is admitted."
    return _Verb(send)


class RateLimitedSession:
    """A ``ClientSession`` that waits for its limiter before each request.

    It has a session inside, made on first use, and all of its attributes. What a method returns
    can be awaited, or entered with ``async with``. A chain of redirects is one request, and so is
    the handshake of a websocket. The wait does not count for the session's timeouts. A call that
    is not admitted raises `RateLimitExceeded`, and nothing is sent.

    Args:
        limiter: what is asked. It is not closed with the session.
        name: under which name.
        key: a name for each request: ``"host"`` is the host of its URL; or a function of the
            `OutgoingRequest`.
        weight: how many units a request takes, or a function of the `OutgoingRequest`.
        wait_timeout: seconds to wait for the limiter at the most; -1 waits for ever.
        feedback: whether a server's 429 and 503 with a Retry-After, and quotas of which nothing is
            left, hold the limiter. True reads the standard fields; or a `Profile` or `Feedback` of
            `pyrate_limiter.http`.
        **kwargs: as for ``ClientSession``.

    Raises:
        WrongType: an argument is nothing of the above.
    """

    def __init__(
        self,
        limiter: Limiter,
        name: str = "pyrate",
        *,
        key: Literal["host"] | Callable[[OutgoingRequest], str] | None = None,
        weight: int | Callable[[OutgoingRequest], int] = 1,
        wait_timeout: float = -1,
        feedback: Feedback | Profile | bool | None = None,
        **kwargs: object,
    ) -> None:
        inspect.signature(ClientSession).bind(**kwargs)  # its TypeError, before the first use
        self.name = name
        self._limiter = limiter
        self._limit: OutgoingLimit[OutgoingRequest] = OutgoingLimit(
            key, weight, wait_timeout, feedback
        )
        self._limit.check(limiter, sync=False)
        self._options = kwargs
        self._made: ClientSession | None = None
        self._closed = False

    @property
    def _session(self) -> ClientSession:
        if self._made is None:
            make: Callable[..., ClientSession] = ClientSession
            self._made = make(**self._options)
        return self._made

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._closed or (self._made is not None and self._made.closed)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            message = f"{type(self).__name__!r} object has no attribute {attribute!r}"
            raise AttributeError(message)
        return getattr(self._session, attribute)

    get: _Verb[ClientResponse] = _verb("get")
    post: _Verb[ClientResponse] = _verb("post")
    put: _Verb[ClientResponse] = _verb("put")
    patch: _Verb[ClientResponse] = _verb("patch")
    delete: _Verb[ClientResponse] = _verb("delete")
    head: _Verb[ClientResponse] = _verb("head")
    options: _Verb[ClientResponse] = _verb("options")

    @_Verb
    async def request(self, method: str, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.request``, when it is admitted."""
        return await self._send("request", a, k, method)

    @_Verb
    async def ws_connect(self, *a: object, **k: object) -> ClientWebSocketResponse:
        """``ClientSession.ws_connect``, when it is admitted."""
        name = await self._admitted("GET", a, k)
        return await self._answered(name, methodcaller("ws_connect", *a, **k)(self._session))

    async def close(self) -> None:
        """Close the session inside; may be called again."""
        self._closed = True
        if self._made is not None:
            await self._made.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _send(
        self, verb: str, a: tuple[object, ...], k: dict[str, object], *method: str
    ) -> ClientResponse:
        name = await self._admitted(method[0] if method else verb, a, k)
        send = methodcaller(verb, *method, *a, **k)
        response: ClientResponse = await self._answered(name, send(self._session))
        try:
            await self._limit.learn_async(self._limiter, name, response)
        except BaseException:  # cancelled: nobody else has the response
            response.close()
            raise
        return response

    async def _admitted(self, method: str, a: tuple[object, ...], k: dict[str, object]) -> str:
        if self.closed:
            message = "Session is closed"
            raise RuntimeError(message)  # as aiohttp says it, but nothing was taken
        request: OutgoingRequest | None = None
        if self._limit.by_request:
            url = _url(a[0] if a else k["url"])
            base = self._options.get("base_url")
            if base is not None and not url.absolute:
                url = _url(base).join(url)
            request = OutgoingRequest(method.upper(), url, k)
        return await self._limit.admit_async(self._limiter, self.name, request)

    async def _answered(self, name: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except ClientResponseError as error:  # raise_for_status, or a handshake's refusal
            await self._limit.learn_async(self._limiter, name, error)
            raise


def _url(given: object) -> URL:
    return given if isinstance(given, URL) else URL(str(given))
