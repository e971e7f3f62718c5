"""The base of all errors, and the errors about values: rates, items, arguments.

They are public in `pyrate_limiter.errors`, which has the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SHOWN = 200  # characters of a value in a message


def shown(value: object) -> str:
    """A value as a message names it."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the value is wrong in any case, and has yet to be named
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _rebuild(
    cls: type[PyrateError], args: tuple[object, ...], data: dict[str, object]
) -> PyrateError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(data)
    return error


class PyrateError(Exception):
    """The base of the family."""

    def __reduce__(self) -> tuple[Callable[..., PyrateError], tuple[object, ...]]:
        """Pickle the message and the data, whatever the constructor looks like."""
        return _rebuild, (type(self), self.args, self.__dict__)


class _AboutArgument(Exception):
    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field} must be {expected}, got {shown(value)}")
        self.field: str = field
        self.value: object = value


class WrongType(_AboutArgument, PyrateError, TypeError):
    """An argument is of a type that cannot be used there.

    Attributes:
        field: what the argument is called.
        value: what was given.
    """


class OutOfRange(_AboutArgument, PyrateError, ValueError):
    """An argument is of the right type, and its value makes no sense there.

    Attributes:
        field: what the argument is called.
        value: what was given.
    """


class InvalidRate(PyrateError, ValueError, AssertionError):
    """A rate's limit, interval or burst is below 1."""

    def __init__(self, field: str, value: object) -> None:
        super().__init__(f"Rate's {field} must be >= 1, got {shown(value)}")
        self.field: str = field
        self.value: object = value


class InvalidRateText(PyrateError, ValueError):
    """A text such as ``"10/second"`` could not be read as a rate.

    Attributes:
        text: the whole text.
        position: index of the character at which reading stopped.
    """

    def __init__(self, text: str, position: int, expected: str) -> None:
        pointer = " " * position + "^"
        super().__init__(
            f"Cannot read {text!r} as a rate: expected {expected} at character {position}, "
            f"as in '10/second' or '100 per 15 minutes'\n  {text}\n  {pointer}"
        )
        self.text: str = text
        self.position: int = position


class InvalidRateList(PyrateError, ValueError, AssertionError):
    """A list of rates is empty, or some of its rates can never matter.

    Attributes:
        rates: the refused list, ordered by interval.
    """

    def __init__(
        self, rates: Sequence[object], message: str | None = None, *, reason: str | None = None
    ) -> None:
        super().__init__(
            message
            or f"Invalid rate list: {f'{reason}. Rates' if reason else 'rates'} must be non-empty "
            "and ordered by strictly increasing interval, with strictly increasing limits and "
            f"non-increasing density (limit/interval). Got: {list(rates)!r}"
        )
        self.rates: list[object] = list(rates)


class InvalidWeight(PyrateError, ValueError, AssertionError):
    """An item's weight is negative."""

    def __init__(self, weight: object) -> None:
        super().__init__(f"item's weight must be >= 0, got {shown(weight)}")
        self.weight: object = weight


class InvalidTimestamp(PyrateError, ValueError):
    """An item's timestamp is no number of milliseconds that can be stored."""

    def __init__(self, timestamp: object) -> None:
        super().__init__(
            f"item's timestamp must be a number of milliseconds within +/-2**62, "
            f"got {shown(timestamp)}"
        )
        self.timestamp: object = timestamp
