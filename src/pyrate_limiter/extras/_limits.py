"""What the limits of a web application say of a request, and what the answer tells the client."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from pyrate_limiter.errors import TooManyKeys
from pyrate_limiter.extras._call import LimiterCall
from pyrate_limiter.extras._limit import Limit, Paths
from pyrate_limiter.http.fields import (
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
    RETRY_AFTER,
    format_quota,
    format_retry_after,
    legacy_fields,
    problem,
)
from pyrate_limiter.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.algorithms.decision import Decision
    from pyrate_limiter.extras._request import WebRequest

    Fields = list[tuple[str, str]]
    Acquire = Callable[[Limit, str, int], Awaitable[Decision]]

AppT = TypeVar("AppT")

TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503
_problem = lru_cache(maxsize=256)(problem)  # the names of limits are few
_RESCAN_MS = 1000  # a keyed limiter that is full of live keys looks again so soon


class _Answered(NamedTuple):
    """What a limit said of a request, and what it will say next where all is used up."""

    limit: Limit
    decision: Decision
    following: Decision

    def remaining(self) -> int | None:
        """Units that are left; None if that is unknown."""
        remaining = self.decision.remaining
        return 0 if remaining is None and not self.decision else remaining

    def stated(self) -> str | None:
        """The item of the RateLimit field; None if nothing is known."""
        remaining = self.remaining()
        if remaining is None:
            return None
        following = self.following
        after = following.retry_after_ms
        seconds = None if after is None else int(format_retry_after(after))
        return format_quota(self.limit.policy_name(following.failing_rate), remaining, seconds)

    def legacy(self) -> Fields:
        """The older triple; nothing if part of it is unknown."""
        most = self.limit.most(self.following.failing_rate)
        remaining, reset = self.remaining(), self.decision.reset_after_ms
        if most is None or remaining is None or reset is None:
            return []
        return legacy_fields(most, remaining, -(-reset // 1000))


class Answer(NamedTuple):
    """What a client is told.

    Attributes:
        status: of a refusal; 0 is "go on".
        fields: for the headers.
        body: of a refusal.
        content_type: of the body.
    """

    status: int
    fields: Fields
    body: bytes = b""
    content_type: str = ""

    @property
    def headers(self) -> Fields:
        """All headers of a refusal."""
        content = [("Content-Type", self.content_type), ("Content-Length", str(len(self.body)))]
        return content + self.fields


class Limits:
    """All limits of an application, and how their answers look.

    They are asked in order; what one took is not given back when a later one refuses. The
    arguments are those of the middleware.
    """

    def __init__(
        self,
        limits: Limit | Limiter | Iterable[Limit | Limiter],
        *,
        exempt: Iterable[str] = (),
        plain: bool = False,
        legacy: bool = False,
    ) -> None:
        listed = [limits] if isinstance(limits, (Limit, Limiter)) else list(limits)
        self._limits = [each if isinstance(each, Limit) else Limit(each) for each in listed]
        self._exempt = Paths(exempt)
        self.plain: bool = plain
        self._legacy = legacy

    def ask(self, request: WebRequest, acquire: Acquire | None = None) -> Program[Answer | None]:
        """Ask the limits in turn, up to the first that refuses. None is "nothing limits this".

        It is a program for the engine's drivers.

        Args:
            request: what is limited.
            acquire: takes so many units under a name, where there is an event loop; it looks after
                the client, who may leave.
        """
        path = request.path
        if self._exempt and path in self._exempt:
            return None
        answered: list[_Answered] = []
        for limit in self._limits:
            if not limit.applies_to(path):
                continue
            key = limit.key(request)
            # What is at hand need not go to the driver and back.
            name = key if isinstance(key, str) else (yield key)
            if name is None:
                continue
            cost = limit.cost(request)
            weight = cost if isinstance(cost, int) else (yield cost)
            try:
                wait = limit.wait
                decision = following = yield (
                    LimiterCall(limit.limiter, "acquire", name, weight, wait > 0, wait or -1)
                    if acquire is None
                    else acquire(limit, name, weight)
                )
                if decision and decision.remaining == 0:
                    following = yield LimiterCall(limit.limiter, "check", name)
            except TooManyKeys:
                return self._refusal(UNAVAILABLE, [(RETRY_AFTER, format_retry_after(_RESCAN_MS))])
            answered.append(_Answered(limit, decision, following))
            if not decision:
                return self._exceeded(answered)
        return Answer(0, self._fields(answered)) if answered else None

    def _exceeded(self, answered: list[_Answered]) -> Answer:
        limit, decision, _ = answered[-1]
        fields = self._fields(answered)
        if decision.retry_after_ms is not None:
            fields.insert(0, (RETRY_AFTER, format_retry_after(decision.retry_after_ms)))
        violated = limit.policy_name(decision.failing_rate)
        return self._refusal(TOO_MANY_REQUESTS, fields, violated)

    def _refusal(self, status: int, fields: Fields, *violated: str) -> Answer:
        if self.plain:
            after = dict(fields).get(RETRY_AFTER)
            hope = f", try again in {after} s" if after else ""
            reason = "Too many requests" if status == TOO_MANY_REQUESTS else "Too many clients"
            body, kind = f"{reason}{hope}\n".encode(), "text/plain; charset=utf-8"
        else:
            body, kind = _problem(status, violated), "application/problem+json"
        return Answer(status, fields, body, kind)

    def _fields(self, answered: list[_Answered]) -> Fields:
        fields: Fields = []
        policies = [each.limit.policy for each in answered if each.limit.policy]
        quotas = [item for each in answered if (item := each.stated()) is not None]
        if policies:
            fields.append((RATE_LIMIT_POLICY, ", ".join(policies)))
        if quotas:
            fields.append((RATE_LIMIT, ", ".join(quotas)))
        if self._legacy:
            refused = not answered[-1].decision
            fields += (answered[-1] if refused else min(answered, key=_left)).legacy()
        return fields


class Middleware(Generic[AppT]):
    """What the middleware of ASGI and of WSGI share."""

    def __init__(
        self,
        app: AppT,
        limits: Limit | Limiter | Iterable[Limit | Limiter],
        *,
        exempt: Iterable[str] = (),
        plain: bool = False,
        legacy: bool = False,
    ) -> None:
        self.app: AppT = app
        self._limits = Limits(limits, exempt=exempt, plain=plain, legacy=legacy)


def _left(answered: _Answered) -> int:
    remaining = answered.remaining()
    return sys.maxsize if remaining is None else remaining
