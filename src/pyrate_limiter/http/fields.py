"""The fields in which servers state their limits: their spelling, read and written.

What is malformed reads as absent: a client must not fail over a field that it does not need.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter.errors import InvalidField
from pyrate_limiter.http.structured import format_bytes, format_list, format_text, parse_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyrate_limiter.http.structured import Bare

    Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

RETRY_AFTER = "Retry-After"
RATE_LIMIT = "RateLimit"
RATE_LIMIT_POLICY = "RateLimit-Policy"
PROBLEM_TYPE = "https://iana.org/assignments/http-problem-types#"

_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,9})?")
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_GO_UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_GO_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(h|ms|us|µs|ns|m|s)")
_GO_DURATION = re.compile(f"(?:{_GO_PART.pattern})+")


class Quota(NamedTuple):
    """What is left of one of a server's limits.

    Attributes:
        name: of the limit.
        remaining: units that are still free.
        more_after: seconds until more is there; None if unknown.
        all_after: seconds until all of it is there; None if unknown.
        limit: units there are in all; None if unknown.
        partition: the part of the server's clients that it is counted for.
    """

    name: str
    remaining: int
    more_after: float | None = None
    all_after: float | None = None
    limit: int | None = None
    partition: bytes | None = None

    def wait(self) -> float | None:
        """Seconds until more is there: as stated, or by what refills evenly until all is there."""
        if self.more_after is not None or self.all_after is None or not self.limit:
            return self.more_after
        return self.all_after / max(1, self.limit - self.remaining)


class QuotaPolicy(NamedTuple):
    """One of a server's limits.

    Attributes:
        name: of the limit.
        quota: units in a window.
        window: seconds; None if unknown.
        unit: what is counted: ``requests``, ``content-bytes`` or ``concurrent-requests``.
        partition: the part of the server's clients that it is counted for.
    """

    name: str
    quota: int
    window: int | None = None
    unit: str = "requests"
    partition: bytes | None = None


def fields_of(headers: Headers) -> dict[str, str]:
    """The fields by their names in lower case; lines of one name are joined."""
    fields: dict[str, str] = {}
    for name, value in headers.items() if hasattr(headers, "items") else headers:
        key, text = _text(name).lower(), _text(value)
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def whole(text: str | None) -> int | None:
    """A whole number; None where it is none."""
    return int(text) if text is not None and _WHOLE.fullmatch(text.strip()) else None


def seconds(text: str | None) -> float | None:
    """A number of seconds, whole or decimal."""
    return float(text) if text is not None and _SECONDS.fullmatch(text := text.strip()) else None


def go_duration(text: str | None) -> float | None:
    """Seconds of a duration as Go writes it: ``6m0s``, ``12ms``, ``4m12.172s``."""
    if text is None or not _GO_DURATION.fullmatch(text := text.strip()):
        return None
    return sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_PART.findall(text))


def http_date(text: str | None) -> float | None:
    """The moment of an HTTP-date, in seconds of the epoch."""
    try:
        return None if text is None else _moment(parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError):
        return None


def iso_date(text: str | None) -> float | None:
    """The moment of an RFC 3339 date, in seconds of the epoch."""
    try:
        return None if text is None else _moment(datetime.fromisoformat(_with_offset(text)))
    except (ValueError, OverflowError):
        return None


def _with_offset(text: str) -> str:
    text = text.strip().upper()
    # Python 3.10 knows neither the Z nor fractions of other than 3 or 6 digits.
    text = re.sub(r"\.([0-9]+)", lambda found: "." + found[1][:6].ljust(6, "0"), text)
    return f"{text[:-1]}+00:00" if text.endswith("Z") else text


def _moment(date: datetime) -> float:
    return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After: a number of them, or an HTTP-date.

    Args:
        text: the field's value.
        now: the time, in seconds of the epoch.
    """
    number = seconds(text)
    if number is not None:
        return number
    date = http_date(text)
    return None if date is None else max(0.0, date - now)


def format_retry_after(milliseconds: int) -> str:
    """Whole seconds, rounded up, at least 1."""
    return str(max(1, -(-milliseconds // 1000)))


def parse_rate_limit(text: str) -> list[Quota]:
    """The items of a ``RateLimit`` field, also of its draft 07."""
    if (older := _draft_07(text)) is not None:
        return older
    return [
        Quota(name, remaining, more_after=after, partition=_bytes(item.get("pk")))
        for name, item in _named_items(text)
        if (remaining := _count(item.get("r", item.get("a")))) is not None
        for after in [_count(item.get("t", item.get("w")))]
    ]


def parse_rate_limit_policy(text: str) -> list[QuotaPolicy]:
    """The items of a ``RateLimit-Policy`` field."""
    return [
        QuotaPolicy(
            name,
            quota,
            _count(item.get("w")) or None,
            unit if isinstance(unit := item.get("qu"), str) else "requests",
            _bytes(item.get("pk")),
        )
        for name, item in _named_items(text)
        if (quota := _count(item.get("q"))) is not None
    ]


def format_rate_limit(quotas: Iterable[Quota]) -> str:
    """A ``RateLimit`` field.

    Raises:
        InvalidField: a name is not printable ASCII.
    """
    return ", ".join(
        format_quota(name, remaining, after, partition)
        for name, remaining, after, _, _, partition in quotas
    )


def format_quota(
    name: str, remaining: int, more_after: float | None = None, partition: bytes | None = None
) -> str:
    """One item of a ``RateLimit`` field. See `format_rate_limit`."""
    after = "" if more_after is None else f";t={max(0, math.ceil(more_after))}"
    key = "" if partition is None else f";pk={format_bytes(partition)}"
    return f"{format_text(name)};r={max(0, remaining)}{after}{key}"


def format_rate_limit_policy(policies: Iterable[QuotaPolicy]) -> str:
    """A ``RateLimit-Policy`` field.

    Raises:
        InvalidField: a name is not printable ASCII.
    """
    return format_list(
        (
            policy.name,
            [
                ("q", policy.quota),
                ("qu", None if policy.unit == "requests" else policy.unit),
                ("w", policy.window),
                ("pk", policy.partition),
            ],
        )
        for policy in policies
    )


def legacy_fields(limit: int, remaining: int, reset: int) -> list[tuple[str, str]]:
    """The older triple, with the seconds from now until all of it is there."""
    return [
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(max(0, remaining))),
        ("X-RateLimit-Reset", str(max(0, reset))),
    ]


def problem(status: int, violated: Iterable[str] = ()) -> bytes:
    """The body of an ``application/problem+json`` answer, for 429 or 503."""
    kind, title = {
        429: ("quota-exceeded", "Too many requests: a quota is exceeded"),
        503: ("temporary-reduced-capacity", "The service takes no more clients at the moment"),
    }[status]
    body: dict[str, object] = {"type": PROBLEM_TYPE + kind, "title": title, "status": status}
    if policies := list(violated):
        body["violated-policies"] = policies
    return json.dumps(body).encode()


def _draft_07(text: str) -> list[Quota] | None:
    parts = dict(part.strip().partition("=")[::2] for part in text.split(","))
    remaining = whole(parts.get("remaining"))
    if remaining is None or remaining < 0:
        return None
    reset = seconds(parts.get("reset"))
    return [Quota("default", remaining, more_after=reset, limit=whole(parts.get("limit")))]


def _named_items(text: str) -> list[tuple[str, dict[str, Bare]]]:
    try:
        items = parse_list(text)
    except InvalidField:
        return []
    return [(item.value, item.parameters) for item in items if isinstance(item.value, str)]


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None
