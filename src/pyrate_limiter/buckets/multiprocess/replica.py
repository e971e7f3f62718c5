"""A log in a file that processes map: what happened, one record after the other.

Each process keeps a replica of the log in its own memory and does to it what the others have
recorded since it last looked. When the records outweigh the log itself, whoever writes next puts
the whole log beside them as a snapshot, and begins anew: so a process that was away for long reads
a snapshot and a bounded number of records.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.validation import BEGINNING
from pyrate_limiter.buckets.log.array_log import ArrayLog
from pyrate_limiter.buckets.log.lookback import AGAIN_MS, FRESH_MS, STANDS_MS, looks_back_ms
from pyrate_limiter.buckets.log.rules import LogRules
from pyrate_limiter.buckets.log.run_length import UnitLog
from pyrate_limiter.buckets.multiprocess.file import DATA, pack, unpack

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.multiprocess.file import SharedFile

ROOM = 1 << 16  # bytes of records at the least between two snapshots
_LENGTH = 4  # bytes before each frame of records

# The kinds of record, by what each does to a replica.
APPEND, DROP, CLEAR, REMOVE, MOVE, EXPECT, STEP_BACK, TIME, ADD, HOLD, NOTE = range(11)
_PLAY: tuple[Any, ...] = (
    None,  # see `play`
    UnitLog._drop_before,
    LogRules._clear,
    UnitLog._remove,
    UnitLog._move,
    LogRules._expect,
    LogRules._move_back,
    None,
    UnitLog._add,
    LogRules._keep_hold,
    lambda log, *note: log._heed(*note),
)
_FIELDS = (
    "_base",
    "_total",
    "_newest",
    "_name",
    "_sweep_at",
    "_latest",
    "_stepped",
    "_ahead",
    "_hold",
    "_lookbacks",
)


class RecordingLog(ArrayLog):
    """A log that notes in ``_records`` what is done to it, for others to do alike."""

    if not TYPE_CHECKING:
        __slots__ = ()

    _records: list[tuple[Any, ...]]
    _noted: bool
    # How far back programs look, in ms, and until when, in ms of the log's time, that is heeded;
    # and when this one has to note it again.
    _lookbacks: dict[int, int]
    _note_at: int

    def _begin_notes(self, known: dict[int, int] | None = None) -> None:
        """These are the notes; whether this program's own is among them is yet to be seen."""
        self._lookbacks = known or {}
        self._note_at = BEGINNING

    def _note(self, now: int) -> None:
        """Note how far back this program looks, unless that has been done just now."""
        self._note_at = now + AGAIN_MS
        back = looks_back_ms(self._algorithm, self._rates)
        if self._lookbacks.get(back, BEGINNING) < now + back + FRESH_MS:
            note = back, now + back + STANDS_MS, now
            self._records.append((NOTE, *note))
            self._heed(*note)

    def _rates_changed(self) -> None:
        super()._rates_changed()
        self._note_at = BEGINNING

    def _heed(self, back: int, until: int, now: int) -> None:
        kept = {other: end for other, end in self._lookbacks.items() if end > now}
        self._lookbacks = {**kept, back: until}

    def _leak_bound(self, now: int) -> int:
        if now >= self._note_at:
            self._note(now)
        back = looks_back_ms(self._algorithm, self._rates)
        beyond = back if back <= self._rates.longest_ms else 0  # else it is an estimate
        others = [
            now - other for other, end in self._lookbacks.items() if other > beyond and end > now
        ]
        return min([super()._leak_bound(now), *others])

    def _refuse(self, weight: int, moment: int, failing: Rate | None, now: int) -> None:
        if now >= self._note_at:
            self._note(now)
        super()._refuse(weight, moment, failing, now)

    def _put_now(self, name: str, weight: int, now: int) -> bool:
        if now >= self._note_at:
            self._note(now)
        self._noted = False
        admitted = super()._put_now(name, weight, now)
        if admitted and not self._noted:
            self._records.append((APPEND, name, weight, now))
        return admitted

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        self._noted = True
        if now >= self._note_at:
            self._note(now)
        super()._store(name, weight, moment, now)

    def _append(self, name: str, weight: int, stamp: int) -> None:
        self._records.append((APPEND, name, weight, stamp))
        super()._append(name, weight, stamp)

    def _add(self, name: str, weight: int, stamp: int) -> None:
        self._records.append((ADD, name, weight, stamp))
        super()._add(name, weight, stamp)

    def _drop_before(self, stamp: int) -> int:
        dropped = super()._drop_before(stamp)
        if dropped:
            self._records.append((DROP, stamp))
        return dropped

    def _clear(self) -> None:
        super()._clear()
        self._records.append((CLEAR,))

    def _remove(self, stamp: int, name: str, weight: int) -> bool:
        self._records.append((REMOVE, stamp, name, weight))
        return super()._remove(stamp, name, weight)

    def _move(self, stamp: int, name: str, weight: int, later: int) -> bool:
        self._records.append((MOVE, stamp, name, weight, later))
        return super()._move(stamp, name, weight, later)

    def _expect(self, moment: int, units: int, now: int) -> None:
        self._records.append((EXPECT, moment, units, now))
        super()._expect(moment, units, now)

    def _keep_hold(self, hold: tuple[int, int] | None) -> None:
        self._records.append((HOLD, hold))
        super()._keep_hold(hold)

    def _move_back(self, milliseconds: int, now: int, floor: int) -> None:
        self._records.append((STEP_BACK, milliseconds, now, floor))
        super()._move_back(milliseconds, now, floor)


def play(log: RecordingLog, records: list[tuple[Any, ...]]) -> None:
    """Do to a replica what was recorded elsewhere."""
    for kind, *args in records:
        if kind == APPEND:
            name, weight, moment = args
            UnitLog._append(log, name, weight, moment)
            if moment > log._latest and len(records) == 1:
                log._latest = moment
        elif kind == TIME:
            log._latest, log._ahead = args
        else:
            _PLAY[kind](log, *args)
            log._changed()


def note_time(log: RecordingLog, known: tuple[int, int]) -> None:
    """Record the time of an operation that changed something; the stamp of a single unit tells it.

    Args:
        log: it holds the lock.
        known: the latest time, and how much it was ahead of the clock, before the operation.
    """
    time, records = (log._latest, log._ahead), log._records
    if not records or time == known:
        return
    only = records[0] if len(records) == 1 else None
    if only is None or only[0] != APPEND or (only[3], known[1]) != time:
        records.append((TIME, *time))


def dump(log: RecordingLog) -> tuple[Any, ...]:
    """The whole log as plain values."""
    pending = None if log._pending is None else list(log._pending.items())
    arrays = [bytes(array("q", part)) for part in (log._stamps, log._ends, log._name_ends)]
    return [getattr(log, name) for name in _FIELDS], pending, arrays, list(log._names)


def load(log: RecordingLog, values: tuple[Any, ...]) -> None:
    """Make this the log that `dump` gave."""
    fields, pending, arrays, names = values
    log._drop_arrays()
    for name, value in zip(_FIELDS, fields):
        setattr(log, name, value)
    log._begin_notes(log._lookbacks)
    log._pending = None if pending is None else dict(pending)
    if arrays[0]:
        log._stamps, log._ends = array("q", arrays[0]), array("q", arrays[1])
    if names:
        log._names, log._name_ends = names, array("q", arrays[2])
    log._changed()


class LogFile:
    """The medium of a log that is shared by a file."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self._commits = -1
        self._header: list[int] = []
        self._time = (0, 0)
        self._generation = -1
        self._read = 0  # bytes of the records that the replica has seen

    def pull(self, replica: RecordingLog, fresh: bool) -> None:
        """See `Medium`."""
        file = self._file
        if file.commits == self._commits and not fresh:
            return
        commits = file.commits
        self._header = file.header()
        generation, snapshot, begin, end, _, _ = self._header
        if not commits:
            LogRules._clear(replica)
            replica._begin_notes()
        elif fresh or generation != self._generation:
            load(replica, unpack(file.read(snapshot, begin)))
        if fresh or generation != self._generation:
            self._read = 0
        replica._records = []
        data = file.read(begin + self._read, end)
        place = 0
        while place < len(data):
            first = place + _LENGTH
            place = first + int.from_bytes(data[place:first], "little")
            play(replica, unpack(data[first:place]))
        self._generation, self._read, self._commits = generation, end - begin, commits
        self._time = replica._latest, replica._ahead

    def push(self, replica: RecordingLog) -> None:
        """See `Medium`."""
        note_time(replica, self._time)
        records = replica._records
        if not records:
            return
        file = self._file
        generation, snapshot, begin, end, limit, _ = self._header
        frame = pack(records)
        stop = end + _LENGTH + len(frame)
        if generation and stop <= limit:
            file.write(end, len(frame).to_bytes(_LENGTH, "little") + frame)
            header = [generation, snapshot, begin, stop, limit, 0]
        else:
            whole = pack(dump(replica))
            size = len(whole) + max(ROOM, len(whole))
            place = DATA if not generation or snapshot >= DATA + size else limit
            file.write(place, whole)
            begin = place + len(whole)
            header = [generation + 1, place, begin, begin, place + size, 0]
        records.clear()
        self._time = replica._latest, replica._ahead
        self._commits, self._header = file.commit(header), header
        self._generation, self._read = header[0], header[3] - header[2]
