"""What the transports of httpx and httpx2 share; neither library is needed here.

Each class here is a mixin that stands before the library's own transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pyrate_limiter.errors import WrongType
from pyrate_limiter.extras._outgoing import OutgoingLimit, RequestT

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from typing_extensions import Self

    from pyrate_limiter.http.profiles import Feedback, Profile
    from pyrate_limiter.limiter import Limiter

ResponseT = TypeVar("ResponseT")


class _Limited(Generic[RequestT]):
    """The arguments of both forms, which the classes of the libraries document."""

    _logger: logging.Logger
    _sync: bool

    def __init__(
        self,
        limiter: Limiter,
        *,
        name: str | None = None,
        key: Literal["host"] | Callable[[RequestT], str] | None = None,
        weight: int | Callable[[RequestT], int] = 1,
        timeout: float = -1,
        feedback: Feedback | Profile | bool | None = None,
        transport: object = None,
        **kwargs: object,
    ) -> None:
        self._limit: OutgoingLimit[RequestT] = OutgoingLimit(key, weight, timeout, feedback)
        self._limit.check(limiter, sync=self._sync)
        self.limiter: Limiter = limiter
        self.name: str = self._logger.name if name is None else name
        self._wrapped = transport
        if transport is None:
            super().__init__(**kwargs)
        elif kwargs:
            given = ", ".join(kwargs)
            raise WrongType(given, kwargs, "left out: the transport that is wrapped has its own")

    def _inner(self) -> Any:  # the library's transport, of which the mixins know the methods only
        return super() if self._wrapped is None else self._wrapped


class LimitedTransport(_Limited[RequestT], Generic[RequestT, ResponseT]):
    """A sync transport that asks a limiter first."""

    _sync = True

    def handle_request(self, request: RequestT, **kwargs: object) -> ResponseT:
        """Wait until the limiter admits the request, then send it.

        Raises:
            RateLimitExceeded: it was not admitted, and not sent.
        """
        name = self._limit.admit(self.limiter, self.name, request)
        self._logger.debug("Acquired lock")
        response: ResponseT = self._inner().handle_request(request, **kwargs)
        self._limit.learn(self.limiter, name, response)
        return response

    def close(self) -> None:
        """Close the connections, or the transport that is wrapped; not the limiter."""
        self._inner().close()

    def __enter__(self) -> Self:
        self._inner().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner().__exit__(*exc)


class LimitedAsyncTransport(_Limited[RequestT], Generic[RequestT, ResponseT]):
    """A transport for asyncio that asks a limiter first."""

    _sync = False

    async def handle_async_request(self, request: RequestT, **kwargs: object) -> ResponseT:
        """See `LimitedTransport.handle_request`."""
        name = await self._limit.admit_async(self.limiter, self.name, request)
        self._logger.debug("Acquired lock")
        response = await self._inner().handle_async_request(request, **kwargs)
        try:
            await self._limit.learn_async(self.limiter, name, response)
        except BaseException:  # cancelled: nobody else has the response
            await response.aclose()
            raise
        answer: ResponseT = response
        return answer

    async def aclose(self) -> None:
        """Close the connections, or the transport that is wrapped; not the limiter."""
        await self._inner().aclose()

    async def __aenter__(self) -> Self:
        await self._inner().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._inner().__aexit__(*exc)
