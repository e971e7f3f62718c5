"""A log in a manager's list: one `RateItem` per unit, oldest first, as readers expect.

The last one also carries what else there is to know. One call reads what is new since the last
time, and one call writes. A hold stands behind the units; while it does, all is read and written.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.log.rules import LogRules
from pyrate_limiter.buckets.log.run_length import UnitLog
from pyrate_limiter.buckets.multiprocess.replica import (
    APPEND,
    CLEAR,
    DROP,
    EXPECT,
    NOTE,
    TIME,
    note_time,
)
from pyrate_limiter.errors import SharedStorageLost

if TYPE_CHECKING:
    from multiprocessing.managers import ListProxy
    from types import TracebackType

    from pyrate_limiter.buckets.multiprocess.replica import RecordingLog


class StoredUnit(RateItem):
    """One unit of an item.

    Attributes:
        end: the number that the item's last unit has in the log.
        edition: changes when the list was written anew.
        rest: of the last item: the latest time, the steps back, the open claims, how much the time
            is ahead of the clock, and how far back programs look.
    """

    def __init__(
        self,
        name: str,
        timestamp: int,
        end: int,
        edition: str,
        rest: tuple[object, ...] | None = None,
    ) -> None:
        super().__init__(name, timestamp)
        self.end: int = end
        self.edition: str = edition
        self.rest: tuple[Any, ...] | None = rest

    def __reduce__(self) -> tuple[Any, ...]:
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


class reaching:  # noqa: N801 - it is called as a function is
    """Turn what a dead manager causes into one typed error.

    A generator would hold the error in a cycle, with the driver's buffers in it: to collect those
    brings Python 3.12 down.
    """

    __slots__ = ("_place",)

    def __init__(self, place: object) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        is_lost = isinstance(error, (ConnectionError, EOFError, FileNotFoundError))
        if is_lost and not isinstance(error, SharedStorageLost):
            raise SharedStorageLost(repr(type(self._place).__name__)) from error


class LogList:
    """The medium of a log that is shared by a manager's list."""

    def __init__(self, items: ListProxy[Any]) -> None:
        self._items = items
        self._edition = ""
        self._length = 0  # of the list, when the replica was last up to date
        self._last: Any = None
        self._time = (0, 0)
        self._holds = False  # whether a hold is in the list

    def pull(self, replica: RecordingLog, fresh: bool) -> None:
        """See `Medium`."""
        replica._records = []
        with reaching(self._items):
            known = 0 if fresh or self._holds else self._length
            units = self._items[max(0, known - 1) :]
            if known and not self._goes_on(replica, units):
                known, units = 0, self._items[:]
        hold = units.pop() if units and isinstance(units[-1], StoredHold) else None
        self._holds = hold is not None
        if not known:
            LogRules._clear(replica)
            if units and _is_whole(units):
                replica._base = replica._total = units[-1].end - len(units)
        for unit in units[1:] if known else units:
            UnitLog._append(replica, unit.name, 1, max(unit.timestamp, replica._newest))
            replica._full = None
        self._length = replica._total - replica._base
        self._learn(replica, units)
        if hold is not None:
            LogRules._keep_hold(replica, (hold.timestamp, hold.length))
        self._time = replica._latest, replica._ahead

    def _learn(self, replica: RecordingLog, units: list[Any]) -> None:
        """What stands beside the last of these units."""
        if not units:
            replica._begin_notes()
        elif _is_whole(units):
            self._last = last = units[-1]
            self._edition = last.edition
            replica._latest, replica._stepped, pending, replica._ahead, notes = last.rest
            if notes != replica._lookbacks:
                replica._begin_notes(notes)
            if pending != replica._pending:
                replica._pending, replica._full = pending, None
        else:  # filled by somebody else
            replica._latest = replica._newest
            replica._records.append((CLEAR,))

    def _goes_on(self, replica: RecordingLog, units: list[object]) -> bool:
        """Whether the first of these is the last that the replica has."""
        if not units or not isinstance(units[0], StoredUnit):
            return False
        return (
            _is_whole(units)
            and units[0].edition == self._edition
            and units[0].end == replica._total
        )

    def push(self, replica: RecordingLog) -> None:
        """See `Medium`."""
        note_time(replica, self._time)
        records = replica._records
        if not records:
            return
        items = self._items
        stored = replica._total - replica._base
        time = replica._latest, replica._stepped, replica._pending, replica._ahead
        rest = (*time, replica._lookbacks)
        new: list[StoredUnit] = []
        with reaching(items):
            kinds = {record[0] for record in records}
            if self._holds or not kinds <= {APPEND, DROP, EXPECT, TIME, NOTE}:
                self._edition = token_hex(8)
                self._write(slice(None), _units(replica, self._edition), rest, replica._hold)
            else:
                end = replica._total - sum(r[2] for r in records if r[0] == APPEND)
                for _, name, weight, moment in (r for r in records if r[0] == APPEND):
                    end += weight
                    unit = StoredUnit(name, moment, end, self._edition)
                    new += [unit] * weight
                dropped = self._length + len(new) - stored
                if dropped:
                    del items[:dropped]
                if stored > len(new):
                    last = self._last
                    kept = StoredUnit(last.name, last.timestamp, last.end, last.edition)
                    self._write(slice(-1, None), [kept, *new], rest)
                else:
                    self._edition = self._edition or token_hex(8)
                    for unit in new:
                        unit.edition = self._edition
                    self._write(slice(None), new, rest)
        records.clear()
        self._time = replica._latest, replica._ahead
        self._length = stored

    def _write(
        self,
        where: slice,
        units: list[StoredUnit],
        rest: tuple[object, ...],
        hold: tuple[int, int] | None = None,
    ) -> None:
        self._holds = hold is not None
        if units:
            last = units[-1]
            units[-1] = StoredUnit(last.name, last.timestamp, last.end, last.edition, rest)
            self._last = units[-1]
        self._items[where] = units if hold is None else [*units, StoredHold(*hold)]


def _is_whole(units: list[Any]) -> bool:
    """Whether all that is there was written by `LogList`."""
    return all(isinstance(unit, StoredUnit) for unit in units) and units[-1].rest is not None


def _units(log: RecordingLog, edition: str) -> list[StoredUnit]:
    """One for each unit of the log; those of one name and time count as one item."""
    units: list[StoredUnit] = []
    unit = None
    for number in range(log._total, log._base, -1):
        name, stamp = log._name_of(number), log._stamp(number)
        if unit is None or unit.name != name or unit.timestamp != stamp:
            unit = StoredUnit(name, stamp, number, edition)
        units.append(unit)
    return units[::-1]
