"""How the client helpers ask their limiter before a request goes out; no HTTP library is needed."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from pyrate_limiter._core.driver import at_once, run_async, run_blocking
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.algorithms.decision import Decision
from pyrate_limiter.errors import AsyncBucketInSyncCode, CannotHold, RateLimitExceeded, WrongType
from pyrate_limiter.extras._call import LimiterCall
from pyrate_limiter.http.profiles import Feedback, Profile
from pyrate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.bucket import BucketFactory

RequestT = TypeVar("RequestT")

_NOT_AWAITED = (
    "a sync HTTP client cannot await its limiter, whose bucket, clock or factory is async: "
    "use the async client, or a sync bucket"
)
_log = logging.getLogger("pyrate_limiter")


class OutgoingLimit(Generic[RequestT]):
    """What a helper asks its limiter for, request by request.

    Args:
        key: under which name. None is the helper's own name for all requests, ``"host"`` the host
            of each URL; or a function of the request.
        weight: how many units a request takes, or a function of the request.
        timeout: seconds to wait at the most; -1 waits for ever.
        feedback: whether, and how, a server's refusals and quotas hold the limiter.

    Raises:
        WrongType: one of them is nothing of the above.
    """

    __slots__ = ("_feedback", "_key", "_timeout", "_weight", "by_request")

    def __init__(
        self,
        key: Literal["host"] | Callable[[RequestT], str] | None = None,
        weight: int | Callable[[RequestT], int] = 1,
        timeout: float = -1,
        feedback: Feedback | Profile | bool | None = None,
    ) -> None:
        if key is not None and key != "host" and not callable(key):
            raise WrongType("key", key, "None, 'host' or a function of the request")
        if not isinstance(weight, int) and not callable(weight):
            raise WrongType("weight", weight, "a whole number or a function of the request")
        self._key: Callable[[RequestT], str] | None = host_of if key == "host" else key
        self._weight = weight
        self._timeout = timeout
        self._feedback = Feedback.of(feedback)
        self.by_request: bool = key is not None or callable(weight)
        """Whether the request has to be known when the limiter is asked."""

    def __reduce__(self) -> tuple[type[OutgoingLimit[RequestT]], tuple[object, ...]]:
        return type(self), (self._key, self._weight, self._timeout, self._feedback)

    def check(self, limiter: Limiter, *, sync: bool) -> None:
        """Refuse a limiter that is known to be of no use to the helper.

        Raises:
            AsyncBucketInSyncCode: it has to be awaited, and the helper cannot.
            CannotHold: there is feedback, and a bucket of its has no ``hold``.
        """
        if not isinstance(limiter, Limiter):
            return
        if self._feedback is not None:
            for bucket in limiter.bucket_factory.owned_buckets():
                if type(bucket).hold is AbstractBucket.hold:
                    raise CannotHold(bucket)
        if sync and _is_async(limiter.bucket_factory):
            raise AsyncBucketInSyncCode(_NOT_AWAITED)

    def admit(self, limiter: Limiter, name: str, request: RequestT | None) -> str:
        """Wait until the request may be sent, and return the name under which it was admitted.

        Raises:
            RateLimitExceeded: it was refused; it must not be sent.
            AsyncBucketInSyncCode: the limiter has to be awaited.
        """
        return at_once(self._admit(limiter, name, request), _NOT_AWAITED)

    async def admit_async(self, limiter: Limiter, name: str, request: RequestT | None) -> str:
        """`admit` for asyncio, over sync and async buckets."""
        return await run_async(self._admit(limiter, name, request))

    def _admit(self, limiter: Limiter, name: str, request: RequestT | None) -> Program[str]:
        weight = 1 if callable(self._weight) else self._weight
        if request is not None:
            name = name if self._key is None else self._key(request)
            weight = self._weight(request) if callable(self._weight) else weight
        if self._timeout == -1:
            # A limiter in the place of ours may know only the name.
            named = {} if weight == 1 else {"weight": weight}
            answer = yield LimiterCall(limiter, "try_acquire", name, **named)
        else:
            answer = yield LimiterCall(limiter, "acquire", name, weight, timeout=self._timeout)
        if not (yield answer):  # which has to be awaited in vain by a sync client
            if not isinstance(answer, Decision):
                known = isinstance(limiter, Limiter)
                answer = (
                    (yield LimiterCall(limiter, "check", name, weight)) if known else Decision()
                )
            raise _not_sent(name, weight, answer)
        return name

    def learn(self, limiter: Limiter, name: str, response: object) -> None:
        """Hold the limiter if a response says so. An error of the limiter is logged.

        Args:
            limiter: what admitted the request.
            name: under which name.
            response: of any library, or its error that has a status and headers.
        """
        if self._feedback is not None:
            run_blocking(self._learn(self._feedback, limiter, name, response))

    async def learn_async(self, limiter: Limiter, name: str, response: object) -> None:
        """`learn` for asyncio."""
        if self._feedback is not None:
            await run_async(self._learn(self._feedback, limiter, name, response))

    @staticmethod
    def _learn(feedback: Feedback, limiter: Limiter, name: str, response: object) -> Program[None]:
        status = getattr(response, "status", getattr(response, "status_code", 0))
        seconds = feedback.seconds(status, getattr(response, "headers", None) or {})
        if seconds:
            try:
                yield LimiterCall(limiter, "hold", name, seconds)
            except Exception as error:  # noqa: BLE001 - the response must reach the caller
                message = "a server asked for %.1f s without calls, and %r could not be held"
                _log.warning(message, seconds, name, exc_info=error)


def host_of(request: object) -> str:
    """The host that a request's URL names, in lower case; empty where it names none."""
    return urlsplit(str(getattr(request, "url", ""))).hostname or ""


def _is_async(factory: BucketFactory) -> bool:
    """Whether a factory or one of its buckets is known to need awaiting."""
    return (
        any(bucket.is_async for bucket in factory.owned_buckets())
        or iscoroutinefunction(factory.wrap_item)
        or iscoroutinefunction(factory.get)
    )


def _not_sent(name: str, weight: int, decision: Decision) -> RateLimitExceeded:
    message = f"The request was not sent: the limiter refused {name!r} with weight={weight}"
    if decision.retry_after_ms is not None:
        message += f"; it fits in {decision.retry_after_ms} ms"
    return RateLimitExceeded(name, weight, decision, message)
