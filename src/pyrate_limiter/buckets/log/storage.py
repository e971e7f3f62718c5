"""What a log asks of the place in which its units are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING


class LogStorage(ABC):
    """Units in the order of their timestamps. A backend supplies these numbers and methods.

    All else that a log does is written once, in `LogRules` and `LogBucket`, which know the units by
    nothing else. Units are numbered without a gap, the oldest one first. Several with the same
    timestamp stand in the order in which they were stored. The caller holds the bucket's lock.
    """

    if not TYPE_CHECKING:
        __slots__ = ()

    _base: int
    """The number before that of the oldest unit."""

    _total: int
    """The number of the newest unit; `_base` where there is none."""

    _newest: int
    """The timestamp of the newest unit, in ms; `BEGINNING` before the first."""

    @abstractmethod
    def _empty(self) -> None:
        """Hold no units, as at the beginning."""

    @abstractmethod
    def _append(self, name: str, weight: int, stamp: int) -> None:
        """Store ``weight`` units as the newest. ``stamp`` is not before `_newest`."""

    @abstractmethod
    def _add(self, name: str, weight: int, stamp: int) -> None:
        """Store units in front of newer ones, behind all that are as old."""

    @abstractmethod
    def _stamp(self, number: int) -> int:
        """The timestamp of a unit that is in the log."""

    @abstractmethod
    def _name_of(self, number: int) -> str:
        """The name of a unit that is in the log."""

    @abstractmethod
    def _before(self, stamp: int) -> int:
        """The number of the last unit that is older than ``stamp``."""

    @abstractmethod
    def _drop_before(self, stamp: int) -> int:
        """Drop the units that are older, and say how many that were."""

    @abstractmethod
    def _remove(self, stamp: int, name: str, weight: int) -> bool:
        """Take ``weight`` units of that time and name out again; False if they are not there."""

    @abstractmethod
    def _move(self, stamp: int, name: str, weight: int, later: int) -> bool:
        """Give units another timestamp, behind all that have one as old; False as in `_remove`."""

    @abstractmethod
    def _shift(self, milliseconds: int, after: int, floor: int) -> None:
        """Move the timestamps after ``after`` back, ``floor`` at the most."""

    @abstractmethod
    def _has_grown(self) -> bool:
        """Whether it is time to look for expired units."""

    @abstractmethod
    def _trim(self, bound: int) -> None:
        """Drop units older than ``bound``, as many as is convenient. It may number units anew."""
