"""A log in a manager's list: one `RateItem` per unit, oldest first, as readers expect.

The last one also carries what else there is to know. One call reads what is new since the last
time, and one call writes. A hold stands behind the units; while it does, all is read and written.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.log.rules import LogRules
from pyrate_limiter.buckets.log.run_length import UnitLog
from pyrate_limiter.buckets.multiprocess.replica import note_time
from pyrate_limiter.buckets.multiprocess.session import Medium

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.managers import ListProxy

    from pyrate_limiter.buckets.multiprocess.replica import RecordingLog

# What leaves all units but the first and the last ones as they are in the list.
_AT_THE_ENDS = {"_append", "_drop_before", "_expect", "_go_on", "_heed"}

Rest = tuple[int, int, dict[int, int] | None, int, dict[int, int]]
"""The latest time, the steps back, the open reservations, how much the time is ahead of the clock,
and how far back programs look."""


class StoredUnit(RateItem):
    """One unit of an item.

    Attributes:
        end: the number that the item's last unit has in the log.
        edition: changes when the list was written anew.
        rest: what else there is to know; of the last unit alone.
    """

    def __init__(
        self, name: str, timestamp: int, end: int, edition: str, rest: Rest | None = None
    ) -> None:
        super().__init__(name, timestamp)
        self.end: int = end
        self.edition: str = edition
        self.rest: Rest | None = rest

    def with_rest(self, rest: Rest | None) -> StoredUnit:
        """The same unit, as the last one or as another."""
        return StoredUnit(self.name, self.timestamp, self.end, self.edition, rest)

    def __reduce__(self) -> tuple[type[StoredUnit], tuple[str, int, int, str, Rest | None]]:
        return type(self), (self.name, self.timestamp, self.end, self.edition, self.rest)


class StoredHold(RateItem):
    """What is held, until its timestamp.

    Attributes:
        length: how many ms it was to last.
    """

    def __init__(self, timestamp: int, length: int) -> None:
        super().__init__("", timestamp, 0)
        self.length: int = length

    def __reduce__(self) -> tuple[type[StoredHold], tuple[int, int]]:
        return type(self), (self.timestamp, self.length)


class LogList(Medium):
    """The medium of a log that is shared by a manager's list."""

    place = "a manager's list"

    def __init__(self, log: RecordingLog, items: ListProxy[RateItem]) -> None:
        self._log = log
        self._items = items
        self._length = 0  # of the list, when the replica was last up to date
        self._total = 0  # the number of its last unit then
        self._last: StoredUnit | None = None
        self._time = (0, 0)
        self._holds = False  # whether a hold is in the list

    def pull(self, fresh: bool) -> None:
        log = self._log
        log._records = []
        known = 0 if fresh or self._holds else self._length
        units = self._items[max(0, known - 1) :]
        if known and not self._goes_on(units):
            known, units = 0, self._items[:]
        last = units[-1] if units else None
        hold = (last.timestamp, last.length) if isinstance(last, StoredHold) else None
        self._holds = hold is not None
        if hold is not None:
            del units[-1]
        self._last = _last_of_ours(units)
        if not known:
            LogRules._clear(log)
            if self._last is not None:
                log._base = log._total = self._last.end - len(units)
        for unit in units[1:] if known else units:
            UnitLog._append(log, unit.name, 1, max(unit.timestamp, log._newest))
            log._full = None
        self._learn(units)
        if hold is not None:
            LogRules._keep_hold(log, hold)
        self._keep()

    def _goes_on(self, units: Sequence[RateItem]) -> bool:
        """Whether the first of these is the last that the replica has."""
        first, last = units[0] if units else None, self._last
        return (
            isinstance(first, StoredUnit)
            and last is not None
            and (first.edition, first.end) == (last.edition, self._total)
            and _last_of_ours(units) is not None
        )

    def _learn(self, units: Sequence[RateItem]) -> None:
        """What stands beside the last of these units."""
        log, rest = self._log, None if self._last is None else self._last.rest
        if not units:
            log._begin_notes()
        elif rest is None:  # filled by somebody else
            log._latest = log._newest
            log._records.append(("_clear", ()))
        else:
            log._latest, log._stepped, pending, log._ahead, lookbacks = rest
            if lookbacks != log._lookbacks:
                log._begin_notes(lookbacks)
            if pending != log._pending:
                log._pending, log._full = pending, None

    def push(self) -> None:
        log = self._log
        note_time(log, self._time)
        if not log._records:
            return
        stored, appended = log._total - log._base, log._total - self._total
        rest = log._latest, log._stepped, log._pending, log._ahead, log._lookbacks
        names = {name for name, _ in log._records}
        last = self._last
        if self._holds or not names <= _AT_THE_ENDS or last is None or appended >= stored:
            units = _units(log, log._base, token_hex(8))
            where = slice(None)
        else:
            units = [last.with_rest(None), *_units(log, self._total, last.edition)]
            where = slice(-1, None)
            dropped = self._length + appended - stored
            if dropped:
                del self._items[:dropped]
        if units:
            units[-1] = self._last = units[-1].with_rest(rest)
        hold = log._hold
        self._holds = hold is not None
        self._items[where] = units if hold is None else [*units, StoredHold(*hold)]
        log._records.clear()
        self._keep()

    def _keep(self) -> None:
        """Keep what the replica and the list have in common now."""
        log = self._log
        self._length, self._total = log._total - log._base, log._total
        self._time = log._latest, log._ahead


def _last_of_ours(units: Sequence[RateItem]) -> StoredUnit | None:
    """The last of the units, where all of them were written by a `LogList`."""
    ours = [unit for unit in units if isinstance(unit, StoredUnit)]
    return ours[-1] if ours and len(ours) == len(units) and ours[-1].rest is not None else None


def _units(log: RecordingLog, after: int, edition: str) -> list[StoredUnit]:
    """One for each unit behind the one of that number; those of one name and time are one item."""
    units: list[StoredUnit] = []
    unit = None
    for number in range(log._total, after, -1):
        name, stamp = log._name_of(number), log._stamp(number)
        if unit is None or unit.name != name or unit.timestamp != stamp:
            unit = StoredUnit(name, stamp, number, edition)
        units.append(unit)
    return units[::-1]
