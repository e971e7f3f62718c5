"""A log as the sequence of its units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from pyrate_limiter.abstracts.rate import RateItem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pyrate_limiter.buckets.log.run_length import UnitLog


class UnitsView(Sequence[RateItem]):
    """The units of a log, oldest first, one `RateItem` each, made as they are read."""

    __slots__ = ("_lock", "_log")

    def __init__(self, log: UnitLog, lock: AbstractContextManager[object]) -> None:
        self._log = log
        self._lock = lock

    def __len__(self) -> int:
        return self._log._total - self._log._base

    @overload
    def __getitem__(self, index: int) -> RateItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[RateItem]: ...
    def __getitem__(self, index: int | slice) -> RateItem | list[RateItem]:
        with self._lock:
            chosen = range(len(self))[index]
            if isinstance(chosen, range):
                return [self._unit(place) for place in chosen]
            return self._unit(chosen)

    def _unit(self, place: int) -> RateItem:
        log = self._log
        number = log._base + place + 1
        return RateItem(log._name_of(number), log._stamp(number))

    def __iter__(self) -> Iterator[RateItem]:
        return iter(self[:])

    def __repr__(self) -> str:
        return f"[{', '.join(map(str, self))}]"
