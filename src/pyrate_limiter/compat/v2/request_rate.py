"""The rate of 2.x, in seconds."""

from __future__ import annotations

import math
from enum import Enum
from typing import NoReturn

from pyrate_limiter import Rate
from pyrate_limiter.abstracts.rate import Duration, Milliseconds
from pyrate_limiter.compat.exceptions import ImmutableClassProperty
from pyrate_limiter.errors import WrongType

__all__ = ["ImmutableClassProperty", "RequestRate", "ResetTypes"]


class ResetTypes(Enum):
    """What 2.x meant to offer; it never used it, and neither is it used here."""

    SCHEDULED = 1
    INTERVAL = 2


class RequestRate:
    """Fewer than or as many as ``limit`` calls in any ``interval``.

    Args:
        limit: calls per interval. A fraction is rounded up; 0 or less refuses every call.
        interval: seconds. A `Duration` of this release, or what arithmetic on one gives, is taken
            for the time that it stands for.
        reset: kept, and not used.

    Raises:
        WrongType: a value is no number.
    """

    def __init__(
        self,
        limit: float,
        interval: float | Duration,
        reset: ResetTypes = ResetTypes.INTERVAL,
    ) -> None:
        self._limit = _number("limit", limit)
        self._interval = _number("interval", seconds(interval))
        self._reset = reset

    @property
    def limit(self) -> float:
        """Calls per interval."""
        return self._limit

    @limit.setter
    def limit(self, _: object) -> NoReturn:
        raise ImmutableClassProperty(self, "limit")

    @property
    def interval(self) -> float:
        """Seconds."""
        return self._interval

    @interval.setter
    def interval(self, _: object) -> NoReturn:
        raise ImmutableClassProperty(self, "interval")

    def window(self) -> Rate | None:
        """The same as a `Rate`; None if it refuses every call, or none."""
        milliseconds = math.ceil(round(self.interval * 1000, 6))
        possible = self.limit > 0 and milliseconds > 0
        return Rate(math.ceil(self.limit), milliseconds) if possible else None

    def __str__(self) -> str:
        return f"{self.limit}/{self.interval}"


def seconds(time: float | Duration) -> float:
    """A time in seconds, also where it is a `Duration` of this release or made from some."""
    if isinstance(time, Duration):
        time = time + 0
    if not isinstance(time, Milliseconds):
        return time
    whole, rest = divmod(time - time.bare, 1000)
    return time.bare + (whole if rest == 0 else whole + rest / 1000)


def _number(field: str, value: float) -> float:
    if not isinstance(value, (int, float)) or math.isnan(value):
        raise WrongType(f"RequestRate's {field}", value, "a number")
    return value
