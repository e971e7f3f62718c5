"""What a row of the table is, and where all of them are."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.library import Library

ROWS: dict[str, Row] = {}


class WrongAnswer(Exception):
    """The library answered wrongly: its time does not count."""


@dataclass(frozen=True)
class Answer:
    """What one process measured.

    Attributes:
        value: in the row's unit; less is better.
        over: units beyond the limit in the worst window; None where the row cannot tell.
        detail: numbers behind the value, for the reader.
    """

    value: float
    over: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Target:
    """What ours has to reach.

    Attributes:
        times: how many times less than 4.5.1.
        at_most: in the row's unit, at the decimals that it is given with.
    """

    times: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        parts = []
        if self.times is not None:
            parts.append(f"{self.times:g}x")
        if self.at_most is not None:
            parts.append(f"<= {self.at_most:g}")
        return ", ".join(parts)

    def holds(self, ours: float, theirs: float | None) -> bool | None:
        """Whether it is reached; None where 4.5.1 has no value to compare with."""
        if self.at_most is not None and round(ours, _decimals(self.at_most)) > self.at_most:
            return False
        if self.times is not None:
            return None if theirs is None else theirs >= self.times * ours
        return True


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: by which it is chosen.
        title: what it says in the table.
        unit: of its values.
        target: None where there is none, and the row is for information.
        measure: does the work in a process of its own, with either library.
        floor: the same work with nothing of a library around it.
    """

    name: str
    title: str
    unit: str
    target: Target | None
    measure: Callable[[Library], Answer]
    floor: Callable[[], Answer] | None = None


def row(
    name: str,
    title: str,
    unit: str,
    target: Target | None = None,
    floor: Callable[[], Answer] | None = None,
) -> Callable[[Callable[[Library], Answer]], Callable[[Library], Answer]]:
    """Add a row, measured by the decorated function."""

    def add(measure: Callable[[Library], Answer]) -> Callable[[Library], Answer]:
        if name in ROWS:
            raise ValueError(f"two rows are named {name!r}")
        ROWS[name] = Row(name, title, unit, target, measure, floor)
        return measure

    return add


def load_rows() -> dict[str, Row]:
    """Import every module of `benchmarks.rows`, and return all rows in their order."""
    for module in pkgutil.iter_modules(rows.__path__):
        importlib.import_module(f"{rows.__name__}.{module.name}")
    return ROWS


def expect(condition: object, message: str) -> None:
    """Refuse a wrong answer."""
    if not condition:
        raise WrongAnswer(message)


def _decimals(number: float) -> int:
    return len(f"{number:g}".partition(".")[2])
