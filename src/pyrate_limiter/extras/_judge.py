"""What the limits of a web application say of a request, and what the answer tells the client."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pyrate_limiter._core.driver import BlockingEffect
from pyrate_limiter.errors import TooManyKeys
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
    Patiently = Callable[["Ask"], Awaitable[Decision]]

AppT = TypeVar("AppT")

TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503
_problem = lru_cache(maxsize=256)(problem)  # the names of limits are few
_RESCAN_MS = 1000  # a keyed limiter that is full of live keys looks again so soon


class Ask(BlockingEffect["Decision"]):
    """Ask a limiter for an admission; the answer is a Decision.

    Args:
        limit: whose limiter.
        name: under which name.
        weight: units.
        patiently: asks where there is an event loop, in the place of `soon`: it looks after the
            client, who may leave.
    """

    __slots__ = ("_patiently", "limit", "name", "weight")

    def __init__(self, limit: Limit, name: str, weight: int, patiently: Patiently | None) -> None:
        self.limit: Limit = limit
        self.name: str = name
        self.weight: int = weight
        self._patiently = patiently

    def block(self) -> Decision:
        """Ask in this thread."""
        wait = self.limit.wait
        return self.limit.limiter.acquire(self.name, self.weight, wait > 0, wait or -1)

    async def wait(self) -> Decision:
        """Ask in the event loop."""
        return await (
            self.soon(self.limit.wait) if self._patiently is None else self._patiently(self)
        )

    async def soon(self, seconds: float) -> Decision:
        """Ask for an admission within so many seconds; 0 is at once."""
        limiter = self.limit.limiter
        return await limiter.acquire_async(self.name, self.weight, seconds > 0, seconds or -1)


class Look(BlockingEffect["Decision"]):
    """Ask a limiter when one more unit will fit; the answer is a Decision."""

    __slots__ = ("_limiter", "_name")

    def __init__(self, limiter: Limiter, name: str) -> None:
        self._limiter, self._name = limiter, name

    def block(self) -> Decision:
        """Ask in this thread."""
        return self._limiter.check(self._name)

    async def wait(self) -> Decision:
        """Ask in the event loop."""
        return await self._limiter.check_async(self._name)


class _Asked(NamedTuple):
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

    Args:
        limits: limits, or limiters of which each is a limit by address. They are asked in order;
            what one took is not given back when a later one refuses.
        exempt: patterns of paths that none of them limits.
        plain: whether refusals are a plain text, not an ``application/problem+json``.
        legacy: whether answers have the older ``X-RateLimit`` fields as well.

    Raises:
        WrongType: an argument is nothing of the above.
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

    def judge(
        self, request: WebRequest, patiently: Patiently | None = None
    ) -> Program[Answer | None]:
        """Ask the limits in turn, up to the first that refuses. None is "nothing limits this".

        It is a program for the engine's drivers. See `Ask` for ``patiently``.
        """
        path = request.path
        if self._exempt and path in self._exempt:
            return None
        asked: list[_Asked] = []
        for limit in self._limits:
            if not limit.applies_to(path):
                continue
            key: Any = limit.key(request)
            if key.__class__ is not str:  # what is at hand need not go to the driver and back
                key = yield key
                if key is None:
                    continue
            cost: Any = limit.cost(request)
            if cost.__class__ is not int:
                cost = yield cost
            try:
                decision = following = yield Ask(limit, key, cost, patiently)
                if decision and decision.remaining == 0:
                    following = yield Look(limit.limiter, key)
            except TooManyKeys:
                return self._refusal(UNAVAILABLE, [(RETRY_AFTER, format_retry_after(_RESCAN_MS))])
            asked.append(_Asked(limit, decision, following))
            if not decision:
                return self._exceeded(asked)
        return Answer(0, self._fields(asked)) if asked else None

    def _exceeded(self, asked: list[_Asked]) -> Answer:
        limit, decision, _ = asked[-1]
        fields = self._fields(asked)
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

    def _fields(self, asked: list[_Asked]) -> Fields:
        fields: Fields = []
        policies = [each.limit.policy for each in asked if each.limit.policy]
        quotas = [item for each in asked if (item := each.stated()) is not None]
        if policies:
            fields.append((RATE_LIMIT_POLICY, ", ".join(policies)))
        if quotas:
            fields.append((RATE_LIMIT, ", ".join(quotas)))
        if self._legacy:
            refused = not asked[-1].decision
            fields += (asked[-1] if refused else min(asked, key=_left)).legacy()
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


def _left(asked: _Asked) -> int:
    remaining = asked.remaining()
    return sys.maxsize if remaining is None else remaining
