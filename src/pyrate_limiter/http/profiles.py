"""How each provider states its limits, and how long a response says to hold on."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter.errors import OutOfRange, WrongType
from pyrate_limiter.http.fields import (
    Quota,
    fields_of,
    go_duration,
    http_date,
    iso_date,
    parse_rate_limit,
    parse_retry_after,
    seconds,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.http.fields import Headers

    Fields = dict[str, str]

_REFUSED = 429
_UNAVAILABLE = 503


class Profile(NamedTuple):
    """A provider's way to state its limits.

    Attributes:
        name: of the provider.
        quotas: what its fields, by names in lower case, say at a moment in seconds of the epoch.
        refusals: statuses of a refusal, apart from 503.
        refused_for: seconds to hold after a 429 that says nothing; None is not at all.
    """

    name: str
    quotas: Callable[[dict[str, str], float], list[Quota]]
    refusals: frozenset[int] = frozenset({_REFUSED})
    refused_for: float | None = None

    def hold(self, status: int, headers: Headers, now: float | None = None) -> float | None:
        """Seconds to send nothing after this response; None where it gives no reason to.

        A refusal's Retry-After comes first, then the quotas of which nothing is left. A response
        from a cache says nothing about now.

        Args:
            status: of the response.
            headers: of the response.
            now: the time, in seconds of the epoch. Left out, the response's own Date, which a wrong
                clock here does not disturb, or else the time here.
        """
        fields = fields_of(headers)
        if whole(fields.get("age")) not in {None, 0}:
            return None
        if now is None:
            date = http_date(fields.get("date"))
            now = time.time() if date is None else date
        refused = status in self.refusals
        if refused or status == _UNAVAILABLE:
            after = _retry_after(fields, now)
            if after is not None or not refused:
                return after
        waits = [quota.wait() for quota in self.quotas(fields, now) if quota.remaining == 0]
        known = [wait for wait in waits if wait is not None]
        if known:
            return max(known)
        return self.refused_for if status == _REFUSED else None


class Feedback:
    """How a client helper obeys what servers say.

    Args:
        profile: how the server states its limits.
        longest: seconds to hold at the most, whatever a server says; jitter comes on top.
        jitter: a hold is longer by up to this part of it, at random, so that a fleet does not come
            back in one moment.

    Raises:
        WrongType: an argument is nothing of that kind.
        OutOfRange: a number is negative or not finite.
    """

    __slots__ = ("jitter", "longest", "profile")

    def __init__(
        self, profile: Profile | None = None, *, longest: float = 60, jitter: float = 0.1
    ) -> None:
        profile = STANDARD if profile is None else profile
        if not isinstance(profile, Profile):
            raise WrongType("profile", profile, "a Profile of pyrate_limiter.http")
        for field, value in (("longest", longest), ("jitter", jitter)):
            if not isinstance(value, (int, float)):
                raise WrongType(field, value, "a number")
            if not 0 <= value < float("inf"):
                raise OutOfRange(field, value, "0 or more, and finite")
        self.profile: Profile = profile
        self.longest: float = longest
        self.jitter: float = jitter

    @classmethod
    def of(cls, value: Feedback | Profile | bool | None) -> Feedback | None:
        """What the ``feedback`` argument of a client helper means; True is `STANDARD`.

        Raises:
            WrongType: it is nothing of the above.
        """
        if value is None or value is False:
            return None
        if isinstance(value, Feedback):
            return value
        if value is True or isinstance(value, Profile):
            return cls(None if value is True else value)
        raise WrongType("feedback", value, "True, a Profile or a Feedback of pyrate_limiter.http")

    def seconds(self, status: int, headers: Headers) -> float:
        """How long to hold after a response; 0 is not at all."""
        wait = self.profile.hold(status, headers)
        if not wait:
            return 0
        wait = min(wait, self.longest)
        return wait + random.uniform(0, self.jitter * wait)  # noqa: S311 - no secret depends on it


def _retry_after(fields: Fields, now: float) -> float | None:
    milliseconds = seconds(fields.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    return parse_retry_after(fields.get("retry-after"), now)


def _standard(fields: Fields, now: float) -> list[Quota]:
    del now
    found = parse_rate_limit(fields.get("ratelimit", ""))
    if found:
        return found
    remaining = whole(fields.get("ratelimit-remaining"))
    if remaining is None:
        return []
    # Drafts up to 06: the limit may be followed by its policies.
    limit = whole(fields.get("ratelimit-limit", "").partition(",")[0])
    return [Quota("default", remaining, seconds(fields.get("ratelimit-reset")), limit=limit)]


def _openai(fields: Fields, now: float) -> list[Quota]:
    del now
    found = []
    for kind in ("requests", "tokens", "project-tokens"):
        limit = whole(fields.get(f"x-ratelimit-limit-{kind}"))
        remaining = whole(fields.get(f"x-ratelimit-remaining-{kind}"))
        reset = fields.get(f"x-ratelimit-reset-{kind}")
        after = go_duration(reset) or seconds(reset)
        if remaining is not None and remaining >= 0 and limit != -1:  # -1: Azure does not know
            found.append(Quota(kind, remaining, all_after=after or None, limit=limit))
    return found


_ANTHROPIC = {  # what its fields call a quota, and its name here
    "ratelimit-requests": "requests",
    "ratelimit-tokens": "tokens",
    "ratelimit-input-tokens": "input-tokens",
    "ratelimit-output-tokens": "output-tokens",
    "priority-input-tokens": "priority-input-tokens",
    "priority-output-tokens": "priority-output-tokens",
}


def _anthropic(fields: Fields, now: float) -> list[Quota]:
    found = []
    for family, name in _ANTHROPIC.items():
        remaining = whole(fields.get(f"anthropic-{family}-remaining"))
        if remaining is not None and remaining >= 0:
            after = _until(iso_date(fields.get(f"anthropic-{family}-reset")), now)
            limit = whole(fields.get(f"anthropic-{family}-limit"))
            found.append(Quota(name, remaining, all_after=after, limit=limit))
    return found


def _shopify(fields: Fields, now: float) -> list[Quota]:
    del now
    used, _, size = fields.get("x-shopify-shop-api-call-limit", "").partition("/")
    taken, limit = whole(used), whole(size)
    if taken is None or not limit or limit < 0:
        return []
    # The bucket leaks 2 of 40 in a second, and those of other plans in proportion to their size.
    full = _SHOPIFY_DRAIN_SECONDS * max(0, taken) / limit
    return [Quota("api-calls", max(0, limit - taken), all_after=full, limit=limit)]


_SHOPIFY_DRAIN_SECONDS = 20


def _x_rate_limit(
    reset: Callable[[str | None, float], float | None], fields: Fields, now: float
) -> list[Quota]:
    remaining = seconds(fields.get("x-ratelimit-remaining"))  # Reddit's has a fraction
    if remaining is None:
        return []
    after = reset(fields.get("x-ratelimit-reset"), now)
    limit = whole(fields.get("x-ratelimit-limit"))
    name = fields.get("x-ratelimit-resource") or fields.get("x-ratelimit-bucket") or "default"
    return [Quota(name, int(remaining), more_after=after, limit=limit)]


def _at_epoch(text: str | None, now: float) -> float | None:
    return _until(seconds(text), now)


def _from_now(text: str | None, now: float) -> float | None:
    del now
    return seconds(text)


def _at_date(text: str | None, now: float) -> float | None:
    return _until(iso_date(text), now)


def _until(moment: float | None, now: float) -> float | None:
    return None if moment is None else max(0.0, moment - now)


_epoch = partial(_x_rate_limit, _at_epoch)

STANDARD = Profile("standard", _standard)
"""Retry-After, and the fields of the IETF's draft in all of its revisions."""

OPENAI = Profile("openai", _openai)
"""OpenAI, Azure OpenAI, and services that follow them."""

ANTHROPIC = Profile("anthropic", _anthropic)

GITHUB = Profile("github", _epoch, frozenset({403, _REFUSED}), 60.0)
"""A 403 holds where it has a Retry-After or nothing remains; a 429 for a minute at least else."""

SHOPIFY = Profile("shopify", _shopify)

X_RATELIMIT_EPOCH = Profile("x-ratelimit-epoch", _epoch)
"""``X-RateLimit-Reset`` is a moment in seconds of the epoch, as Discord's."""

X_RATELIMIT_SECONDS = Profile("x-ratelimit-seconds", partial(_x_rate_limit, _from_now))
"""``X-RateLimit-Reset`` is seconds from now, as Reddit's."""

X_RATELIMIT_DATE = Profile("x-ratelimit-date", partial(_x_rate_limit, _at_date))
"""``X-RateLimit-Reset`` is an ISO 8601 date, as Atlassian's."""
