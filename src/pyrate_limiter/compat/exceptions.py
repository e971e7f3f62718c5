"""The exceptions of 2.x and 3.x. One `BucketFullException` serves both, so that handlers meet."""

from __future__ import annotations

from typing import Any

from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.errors import PyrateError

__all__ = [
    "BucketFullException",
    "ImmutableClassProperty",
    "InvalidMaxDelay",
    "InvalidParams",
    "LimiterDelayException",
    "Rate",
    "RateItem",
]


class _Refusal(PyrateError):
    def __init__(self, error: str, **about: object) -> None:
        super().__init__(error)
        self.meta_info: dict[str, Any] = {"error": error, **about}  # of which programs know more


class BucketFullException(_Refusal):
    """A call was refused.

    Args:
        item: the `RateItem` of 3.x, or the identity of 2.x.
        rate: the rate that is short.
        remaining_time: seconds until it admits one more. It tells 2.x from 3.x unless ``item`` is
            a `RateItem`; there, None leaves it out of `meta_info`.

    Attributes:
        meta_info: 3.x: error, name, weight, rate, and remaining_time where it is known. 2.x: error,
            identity, rate, remaining_time.
        item: the item; 3.x only.
        rate: the rate; 3.x only.
    """

    def __init__(self, item: Any, rate: Any, remaining_time: float | None = None) -> None:
        if remaining_time is None or isinstance(item, RateItem):
            self.item: RateItem = item
            self.rate: Rate = rate
            error = f"Bucket for item={item.name} with Rate {rate} is already full"
            super().__init__(error, name=item.name, weight=item.weight, rate=str(rate))
        else:
            error = f"Bucket for {item} with Rate {rate} is already full"
            super().__init__(error, identity=item, rate=str(rate))
        if remaining_time is not None:
            self.meta_info["remaining_time"] = remaining_time


class LimiterDelayException(_Refusal):
    """The wait until an item fits is longer than the limiter's ``max_delay``.

    Attributes:
        item: the item.
        rate: the rate that is short.
        actual_delay: how long it would have to wait, in ms.
        max_delay: how long it may wait, in ms.
        meta_info: error, name, weight, rate, max_delay and actual_delay.
    """

    def __init__(self, item: RateItem, rate: Rate, actual_delay: int, max_delay: int) -> None:
        lines = (
            "",
            f"Actual delay exceeded allowance: actual={actual_delay}, allowed={max_delay}",
            f"Bucket for {item.name} with Rate {rate} is already full",
            "",
        )
        super().__init__(
            "\n        ".join(lines),  # programs read `actual=` out of this very text
            name=item.name,
            weight=item.weight,
            rate=str(rate),
            max_delay=max_delay,
            actual_delay=actual_delay,
        )
        self.item: RateItem = item
        self.rate: Rate = rate
        self.actual_delay: int = actual_delay
        self.max_delay: int = max_delay


class InvalidMaxDelay(PyrateError, ValueError, AssertionError):
    """A limiter's ``max_delay`` is negative or no number."""

    def __init__(self, value: object) -> None:
        super().__init__(
            f"Max-delay must not be negative: give milliseconds, a Duration, or None, got {value!r}"
        )
        self.value: object = value


class InvalidParams(PyrateError):
    """A limiter or bucket of 2.x was given parameters that make no sense.

    Attributes:
        message: the text.
    """

    def __init__(self, param_name: str) -> None:
        self.message: str = f"Parameters missing or invalid:{param_name}"
        super().__init__(self.message)


class ImmutableClassProperty(PyrateError):
    """A property of a `RequestRate` was assigned.

    Attributes:
        message: the text.
    """

    def __init__(self, class_instance: object, prop: str) -> None:
        self.message: str = f"{class_instance}.{prop} must not be mutated"
        super().__init__(self.message)
