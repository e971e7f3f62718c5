"""Durations, rates, and the items that are limited by them."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from pyrate_limiter._core.validation import number_of, whole_number
from pyrate_limiter._core.value_errors import InvalidRate, InvalidRateText, WrongType

if TYPE_CHECKING:
    from datetime import timedelta

_set = object.__setattr__


class Milliseconds(int):
    """A whole number of ms that comes from a `Duration`: `RequestRate` of 2.x tells by it.

    Attributes:
        bare: how much of it was added as a bare number, which is in seconds for 2.x.
    """

    bare: int = 0

    def __mul__(self, factor: int) -> int:
        return self._from(super().__mul__(factor), self.bare * factor)

    def __rmul__(self, factor: int) -> int:
        return self * factor

    def __add__(self, other: int) -> int:
        bare = other.bare if isinstance(other, Milliseconds) else other
        return self._from(super().__add__(other), self.bare + bare)

    def __radd__(self, other: int) -> int:
        return self + other

    def __sub__(self, other: int) -> int:
        return self + -1 * other

    @classmethod
    def _from(cls, total: int, bare: int) -> int:
        if not isinstance(total, int):  # NotImplemented: the other is no whole number
            return total
        result = cls(total)
        result.bare = bare
        return result


class Duration(Enum):
    """Common intervals, in milliseconds.

    Arithmetic gives whole milliseconds: ``Duration.SECOND * 5 == 5000``.
    """

    SECOND = 1000
    MINUTE = 1000 * 60
    HOUR = 1000 * 60 * 60
    DAY = 1000 * 60 * 60 * 24
    WEEK = 1000 * 60 * 60 * 24 * 7

    def __mul__(self, mutiplier: float) -> int:
        return Milliseconds(self.value * _number("multiplier", mutiplier))

    def __rmul__(self, multiplier: float) -> int:
        return self * multiplier

    def __add__(self, another_duration: int | Duration) -> int:
        if isinstance(another_duration, Duration):
            return Milliseconds(self.value + another_duration.value)
        return Milliseconds(self.value) + _milliseconds("duration", another_duration)

    def __radd__(self, another_duration: int | Duration) -> int:
        return self + another_duration

    def __int__(self) -> int:
        return int(self.value)

    def __eq__(self, duration: object) -> bool:
        if isinstance(duration, Duration):
            return bool(self.value == duration.value)
        return isinstance(duration, int) and bool(self.value == duration)

    def __hash__(self) -> int:
        return hash(self.value)

    @staticmethod
    def readable(value: int | Duration) -> str:
        """Write a number of milliseconds in the largest unit that fits, with one decimal."""
        value = int(value)
        for unit in (Duration.WEEK, Duration.DAY, Duration.HOUR, Duration.MINUTE, Duration.SECOND):
            if value >= unit.value:
                return f"{value / unit.value:.1f}{unit.name[0].lower()}"
        return f"{value}ms"


# No member, or it would be one of list(Duration). Programs for 2.x have it.
Duration.MONTH = Milliseconds(30 * Duration.DAY.value)  # type: ignore[attr-defined]


def _number(field: str, value: object) -> float:
    whole = whole_number(value)
    number = number_of(value) if whole is None else whole
    if number is None:
        raise WrongType(field, value, "a number")
    return number


def _milliseconds(field: str, value: object) -> int:
    if hasattr(value, "total_seconds"):  # a timedelta: not imported for the sake of a question
        value = round(value.total_seconds() * 1000)
    try:
        if isinstance(value, (Duration, float, str)):
            return int(value)
        milliseconds = whole_number(value)
    except (ValueError, OverflowError):
        milliseconds = None
    if milliseconds is None:
        expected = "a whole number of milliseconds, a Duration or a timedelta"
        raise WrongType(field, value, expected)
    return milliseconds


def _count(field: str, value: object) -> int:
    if isinstance(value, Duration):
        raise WrongType(f"Rate's {field}", value, "a whole number: the interval comes second")
    count = whole_number(value)
    if count is None:
        raise WrongType(f"Rate's {field}", value, "a whole number")
    if count < 1:
        raise InvalidRate(field, value)
    return count


class Rate:
    """At most ``limit`` units in any ``interval``. A value: equal rates are one and the same.

    Args:
        limit: units per interval, 1 or more.
        interval: milliseconds, 1 or more, a `Duration` or a ``timedelta``.
        burst: how many units may pass at once under GCRA and token bucket; ``limit`` if left out.
            The log algorithms do not look at it.

    Raises:
        InvalidRate: a value is below 1.
        WrongType: a value is no number.
    """

    __module__ = "pyrate_limiter.abstracts.rate"

    __slots__ = ("burst", "emission_us", "interval", "limit")

    limit: int
    interval: int
    burst: int
    emission_us: int
    """The time that one unit takes, in whole microseconds, rounded up."""

    def __init__(
        self, limit: int, interval: int | Duration | timedelta, burst: int | None = None
    ) -> None:
        _set(self, "limit", _count("limit", limit))
        milliseconds = _milliseconds("Rate's interval", interval)
        if milliseconds < 1:
            raise InvalidRate("interval", interval)
        _set(self, "interval", milliseconds)
        _set(self, "burst", self.limit if burst is None else _count("burst", burst))
        _set(self, "emission_us", -(-milliseconds * 1000 // self.limit))

    @classmethod
    def parse(cls, text: str) -> Rate | list[Rate]:
        """Read ``"10/second"``, ``"100 per 15 minutes"`` or ``"5/2s"``.

        Several, divided by ``;``, give a list, in the order of the text. Units are ``ms``,
        ``s``/``sec``/``second``, ``m``/``min``/``minute``, ``h``/``hour``, ``d``/``day`` and
        ``w``/``week``, also in the plural.

        Raises:
            InvalidRateText: it says at which character the text stops making sense.
        """
        rates = cls.parse_list(text)
        return rates[0] if len(rates) == 1 else rates

    @classmethod
    def parse_list(cls, text: str) -> list[Rate]:
        """Like `parse`, but always a list."""
        if not isinstance(text, str):
            raise WrongType("text", text, "a string such as '10/second'")
        rates, start = [], 0
        for part in text.split(";"):
            rates.append(cls._parse_one(text, part, start))
            start += len(part) + 1
        return rates

    @classmethod
    def _parse_one(cls, text: str, part: str, start: int) -> Rate:
        position = 0
        words: dict[str, str] = {}
        for field, pattern, expected in _GRAMMAR:
            match = pattern.match(part, position)
            if match is None:
                blank = len(part) - len(part[position:].lstrip())
                raise InvalidRateText(text, start + blank, expected)
            if field == "unit" and match["unit"].lower() not in _UNITS:
                raise InvalidRateText(text, start + match.start("unit"), expected)
            words[field] = match[field]
            position = match.end()
        if int(words["limit"]) < 1:
            raise InvalidRateText(text, start + part.index(words["limit"]), "a limit of 1 or more")
        interval = float(words["every"] or 1) * _UNITS[words["unit"].lower()]
        if interval < 1 or not interval.is_integer():
            raise InvalidRateText(
                text, start + part.index(words["unit"]), "an interval of whole milliseconds"
            )
        return cls(int(words["limit"]), int(interval))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rate):
            return NotImplemented
        return (self.limit, self.interval, self.burst) == (other.limit, other.interval, other.burst)

    def __hash__(self) -> int:
        return hash((self.limit, self.interval, self.burst))

    def __str__(self) -> str:
        return self._text(Duration.readable(self.interval))

    def __repr__(self) -> str:
        return self._text(str(self.interval))

    def _text(self, interval: str) -> str:
        burst = "" if self.burst == self.limit else f", burst={self.burst}"
        return f"limit={self.limit}/{interval}{burst}"

    def __reduce__(self) -> tuple[type[Rate], tuple[int, ...]]:
        return type(self), (self.limit, self.interval, self.burst)

    def __setattr__(self, field: str, value: object) -> NoReturn:
        msg = f"cannot assign to field {field!r}: a Rate is a value, make a new one"
        raise AttributeError(msg)

    def __delattr__(self, field: str) -> NoReturn:
        msg = f"cannot delete field {field!r}: a Rate is a value"
        raise AttributeError(msg)


_GRAMMAR = (
    ("limit", re.compile(r"\s*(?P<limit>[0-9]+)"), "a whole number of units"),
    ("per", re.compile(r"\s*(?P<per>/|per\b)", re.IGNORECASE), "'/' or 'per'"),
    ("every", re.compile(r"\s*(?P<every>[0-9]+(?:\.[0-9]+)?|)"), "a number"),
    ("unit", re.compile(r"\s*(?P<unit>[A-Za-z]+)"), "a unit of time, such as 'second'"),
    ("end", re.compile(r"(?P<end>\s*)$"), "the end, or ';' before another rate"),
)

_UNITS = {
    spelling: milliseconds
    for spellings, milliseconds in (
        ("ms millisecond milliseconds", 1),
        ("s sec secs second seconds", Duration.SECOND.value),
        ("m min mins minute minutes", Duration.MINUTE.value),
        ("h hr hrs hour hours", Duration.HOUR.value),
        ("d day days", Duration.DAY.value),
        ("w week weeks", Duration.WEEK.value),
    )
    for spelling in spellings.split()
}


class RateItem:
    """One call to be limited.

    Args:
        name: what the call is for; buckets keep it with each unit.
        timestamp: milliseconds on the bucket's clock.
        weight: how many units it takes.
    """

    __module__ = "pyrate_limiter.abstracts.rate"

    __slots__ = ("name", "timestamp", "weight")

    def __init__(self, name: str, timestamp: int, weight: int = 1) -> None:
        self.name: str = name
        self.timestamp: int = timestamp
        self.weight: int = weight

    def __str__(self) -> str:
        return f"RateItem(name={self.name}, weight={self.weight}, timestamp={self.timestamp})"
