"""What every built-in bucket checks and computes the same way."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from pyrate_limiter._core.value_errors import InvalidTimestamp, InvalidWeight, OutOfRange, WrongType

if TYPE_CHECKING:
    from typing import Protocol

    class Item(Protocol):
        """What is checked of a `RateItem`."""

        weight: int
        timestamp: int


LARGEST_PAD_MS = 50
PADS_IN_INTERVAL = 20
BEGINNING = -(1 << 62)
"""Before every timestamp that can be stored, in ms."""
FOREVER = 1 << 62
"""After every timestamp that can be stored, in ms."""


class Unread(int):
    """A time that was read early: the step that admits the item reads it itself."""

    __slots__ = ()


def check_item(item: Item) -> None:
    """Refuse what cannot be stored, before anything is changed.

    Numbers of other types, such as numpy's, become plain ones in the item.

    Raises:
        InvalidWeight: the weight is negative.
        InvalidTimestamp: the timestamp is no number of ms, or out of all bounds.
        WrongType: the weight is no whole number.
    """
    weight, stamp = item.weight, item.timestamp
    if weight.__class__ is not int or weight < 0:
        item.weight = check_weight(weight)
    if not isinstance(stamp, int):
        item.timestamp = stamp = check_timestamp(stamp)
    if not BEGINNING < stamp < FOREVER:
        raise InvalidTimestamp(stamp)


def check_weight(weight: object) -> int:
    """The weight as an ``int``; refuses one that is negative or no whole number."""
    number = whole_number(weight)
    if number is None:
        raise WrongType("item's weight", weight, "a whole number")
    if number < 0:
        raise InvalidWeight(weight)
    return number


def check_clock(clock: object) -> None:
    """Refuse what tells no time; a class that was not called does not either."""
    if isinstance(clock, type) or not callable(getattr(clock, "now", None)):
        raise WrongType("clock", clock, "a clock with now(), such as WallClock()")


def check_timestamp(stamp: object) -> int:
    """A timestamp as an ``int``, fractions of a ms dropped; refuses what is no number."""
    try:
        if isinstance(stamp, float):  # such as time.time() * 1000
            return int(stamp)
        if hasattr(stamp, "__index__"):
            return operator.index(stamp)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidTimestamp(stamp)


def whole_number(value: object) -> int | None:
    """The whole number that a value of any numeric type is; None if it is none."""
    if isinstance(value, int):
        return int(value)
    try:
        if hasattr(value, "__index__"):
            return operator.index(value)
        number = int(value) if hasattr(value, "__int__") else None
    except (TypeError, ValueError, OverflowError):  # an array, a NaN, an infinity
        return None
    return number if number == value else None


def name_text(name: object) -> str:
    """A name as a text that every store can keep: halves of surrogate pairs become escapes.

    A name should be a text; programs also use numbers, enumerations and None.
    """
    if name.__class__ is str and name.isascii():
        return name
    text = str.__str__(name) if isinstance(name, str) else str(name)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_whole(field: str, value: object, *, least: int, unit: str = "") -> int:
    """An argument that has to be a whole number, as an ``int``.

    Args:
        field: what the argument is called.
        value: what was given.
        least: the smallest value that makes sense.
        unit: such as ``"milliseconds"``.

    Raises:
        WrongType: it is no whole number.
        OutOfRange: it is below ``least``.
    """
    expected = f"a whole number{unit and f' of {unit}'}, {least} or more"
    number = whole_number(value)
    if number is None:
        raise WrongType(field, value, expected)
    if number < least:
        raise OutOfRange(field, value, expected)
    return number


def check_seconds(field: str, value: object) -> float | None:
    """An argument that has to be a number of seconds above 0, or None.

    Raises:
        WrongType: it is no number.
        OutOfRange: it is not above 0.
    """
    if value is None:
        return None
    expected = "a number of seconds above 0, or None"
    seconds = number_of(value)
    if seconds is None:
        raise WrongType(field, value, expected)
    if not seconds > 0:
        raise OutOfRange(field, value, expected)
    return seconds


def number_of(value: object) -> float | None:
    """The number that a value of any numeric type is; None if it is none, or too large a one."""
    try:
        if hasattr(value, "__float__"):  # a text has none: it can be read as a number, and is none
            return float(value)
        return float(operator.index(value)) if hasattr(value, "__index__") else None
    except (TypeError, ValueError, OverflowError):
        return None


def pad_ms(interval_ms: int) -> int:
    """What is kept clear after the earliest moment of a wait, unless the caller chose it.

    5 % of the failing interval, at most 50 ms: enough to stay clear of a server's edge at 1 s, and
    not more than a short interval can bear.
    """
    return min(LARGEST_PAD_MS, interval_ms // PADS_IN_INTERVAL)
