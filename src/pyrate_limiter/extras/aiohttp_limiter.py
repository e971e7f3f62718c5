"""A session of aiohttp that keeps to a limiter's rates."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Coroutine
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from pyrate_limiter.errors import MissingDriver
from pyrate_limiter.extras._pace import Pace
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
    from collections.abc import Callable, Generator, Mapping

    from typing_extensions import ParamSpec, Self

    from pyrate_limiter.http.profiles import Feedback, Profile

    P = ParamSpec("P")

__all__ = ["ClientSession", "Limiter", "OutgoingRequest", "RateLimitedSession", "logger", "logging"]

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")


class OutgoingRequest(NamedTuple):
    """What a `RateLimitedSession` knows of a request before it is sent."""

    method: str
    url: URL
    options: Mapping[str, Any]
    """The keyword arguments of the call."""


class _Call(Coroutine[Any, Any, T], Generic[T]):
    """A call that can be awaited, made a task, or entered with ``async with``, like aiohttp's."""

    __slots__ = ("_coroutine", "_result")

    _result: T

    def __init__(self, coroutine: Coroutine[object, object, T]) -> None:
        self._coroutine = coroutine

    def send(self, value: object) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> T:
        self._result = await self._coroutine
        return self._result

    async def __aexit__(self, *exc: object) -> None:
        result: Any = self._result
        if isinstance(result, ClientWebSocketResponse):
            await result.close()
        else:
            await result.__aexit__(*exc)


class _Verb:
    """A method that makes a `_Call` of its coroutine function's coroutine.

    It has what `inspect` looks at, and so passes for that function: mocks made by its
    specification return awaitables, too.
    """

    def __init__(self, function: Any) -> None:
        update_wrapper(self, function)
        self._function = function
        self.__code__ = function.__code__
        self.__defaults__ = function.__defaults__
        self.__kwdefaults__ = function.__kwdefaults__

    def __get__(self, session: object, owner: object) -> Any:
        return self if session is None else MethodType(self, session)

    def __call__(self, *args: object, **kwargs: object) -> _Call[Any]:
        return _Call(self._function(*args, **kwargs))


def _verb(function: Callable[P, Coroutine[object, object, T]]) -> Callable[P, _Call[T]]:
    verb: Any = _Verb(function)
    return verb  # type: ignore[no-any-return] # it is called like a method


class RateLimitedSession:
    """A ``ClientSession`` that waits for its limiter before each request.

    It has a session inside, made on first use, and all of its attributes. What a method returns
    can be awaited, or entered with ``async with``. A chain of redirects is one request, and so is
    the handshake of a websocket. The wait does not count for the session's timeouts.

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
        **kwargs: Any,
    ) -> None:
        inspect.signature(ClientSession).bind(**kwargs)  # its TypeError, before the first use
        self.name = name
        self._limiter = limiter
        self._pace: Pace[OutgoingRequest] = Pace(key, weight, wait_timeout, feedback)
        self._pace.check(limiter, sync=False)
        self._options = kwargs
        self._made: ClientSession | None = None
        self._closed = False

    @property
    def _session(self) -> ClientSession:
        if self._made is None:
            self._made = ClientSession(**self._options)
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

    @_verb
    async def get(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.get``, when it is admitted.

        Raises:
            RateLimitExceeded: it was not admitted, and not sent. The same holds for all methods.
        """
        return await self._send("get", a, k)

    @_verb
    async def post(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.post``, when it is admitted."""
        return await self._send("post", a, k)

    @_verb
    async def put(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.put``, when it is admitted."""
        return await self._send("put", a, k)

    @_verb
    async def patch(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.patch``, when it is admitted."""
        return await self._send("patch", a, k)

    @_verb
    async def delete(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.delete``, when it is admitted."""
        return await self._send("delete", a, k)

    @_verb
    async def head(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.head``, when it is admitted."""
        return await self._send("head", a, k)

    @_verb
    async def options(self, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.options``, when it is admitted."""
        return await self._send("options", a, k)

    @_verb
    async def request(self, method: str, *a: object, **k: object) -> ClientResponse:
        """``ClientSession.request``, when it is admitted."""
        return await self._send("request", a, k, method)

    @_verb
    async def ws_connect(self, *a: object, **k: object) -> ClientWebSocketResponse:
        """``ClientSession.ws_connect``, when it is admitted."""
        connected: Any = await self._send("ws_connect", a, k)
        return connected  # type: ignore[no-any-return] # this verb's answer

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
        if self.closed:
            message = "Session is closed"
            raise RuntimeError(message)  # as aiohttp says it, but nothing was taken
        request = self._described(method[0] if method else verb, a, k)
        name = await self._pace.admit_async(self._limiter, self.name, request)
        sent: Coroutine[object, object, ClientResponse] = getattr(self._session, verb)(
            *method, *a, **k
        )
        try:
            response = await sent
        except ClientResponseError as error:  # raise_for_status, or a handshake's refusal
            await self._pace.learn_async(self._limiter, name, error)
            raise
        if verb != "ws_connect":
            try:
                await self._pace.learn_async(self._limiter, name, response)
            except BaseException:  # cancelled: nobody else has the response
                response.close()
                raise
        return response

    def _described(
        self, method: str, a: tuple[Any, ...], k: dict[str, Any]
    ) -> OutgoingRequest | None:
        """The request, where the limiter is asked by it."""
        if not self._pace.by_request:
            return None
        url = URL(a[0] if a else k["url"])
        base = self._options.get("base_url")
        return OutgoingRequest(
            "GET" if method == "ws_connect" else method.upper(),
            url if base is None or url.absolute else URL(base).join(url),
            k,
        )
