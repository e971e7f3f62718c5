"""A log in a file that processes map: what happened, one record after the other.

Each process keeps a replica of the log in its own memory and does to it what the others have
recorded since it last looked. When the records outweigh the log itself, whoever writes next puts
the whole log beside them as a snapshot, and begins anew: so a process that was away for long reads
a snapshot and a bounded number of records.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from pyrate_limiter._core.validation import BEGINNING
from pyrate_limiter.buckets.log.array_log import ArrayLog
from pyrate_limiter.buckets.log.lookback import AGAIN_MS, FRESH_MS, STANDS_MS, looks_back_ms
from pyrate_limiter.buckets.multiprocess.file import pack, room_beside, unpack
from pyrate_limiter.buckets.multiprocess.session import Medium

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.multiprocess.file import SharedFile

P = ParamSpec("P")
R = TypeVar("R")
Record = tuple[str, tuple[object, ...]]
"""What was done to a log: the name of a method of `RecordingLog`, and its arguments."""

ROOM = 1 << 16  # bytes of records at the least between two snapshots
_LENGTH = 4  # bytes before each frame of records
APPEND = "_append"
_METHODS: dict[str, Callable[..., object]] = {}
_UNITS = ("_base", "_total", "_newest", "_name", "_names", "_sweep_at")
_BESIDE = ("_latest", "_stepped", "_ahead", "_hold", "_pending", "_lookbacks")
_ARRAYS = ("_stamps", "_ends", "_name_ends")


def _recorded(
    method: Callable[Concatenate[RecordingLog, P], R],
) -> Callable[Concatenate[RecordingLog, P], R]:
    """The method, and a note of each call of it that has changed something."""
    name = method.__name__
    _METHODS[name] = method

    def record(self: RecordingLog, /, *args: P.args, **kwargs: P.kwargs) -> R:
        done = method(self, *args, **kwargs)
        if done is None or done:  # else it was no unit, or it was not there
            self._records.append((name, args))
        return done

    return record


class RecordingLog(ArrayLog):
    """A log that notes in ``_records`` what is done to it, for others to do alike."""

    if not TYPE_CHECKING:
        __slots__ = ()

    _records: list[Record]
    _noted: bool
    # How far back programs look, in ms, and until when, in ms of the log's time, that is heeded;
    # and when this one has to note it again.
    _lookbacks: dict[int, int]
    _note_at: int

    _append = _recorded(ArrayLog._append)
    _add = _recorded(ArrayLog._add)
    _drop_before = _recorded(ArrayLog._drop_before)
    _clear = _recorded(ArrayLog._clear)
    _remove = _recorded(ArrayLog._remove)
    _move = _recorded(ArrayLog._move)
    _expect = _recorded(ArrayLog._expect)
    _keep_hold = _recorded(ArrayLog._keep_hold)
    _move_back = _recorded(ArrayLog._move_back)

    @_recorded
    def _go_on(self, latest: int, ahead: int) -> None:
        """Have it be as late as that, and as much ahead of the clock."""
        self._latest, self._ahead = latest, ahead

    @_recorded
    def _heed(self, back: int, until: int, now: int) -> None:
        kept = {other: end for other, end in self._lookbacks.items() if end > now}
        self._lookbacks = {**kept, back: until}

    def _begin_notes(self, known: dict[int, int] | None = None) -> None:
        """These are the notes; whether this program's own is among them is yet to be seen."""
        self._lookbacks = known or {}
        self._note_at = BEGINNING

    def _note(self, now: int) -> None:
        """Note how far back this program looks, unless that has been done just now."""
        self._note_at = now + AGAIN_MS
        back = looks_back_ms(self._algorithm, self._rates)
        if self._lookbacks.get(back, BEGINNING) < now + back + FRESH_MS:
            self._heed(back, now + back + STANDS_MS, now)

    def _rates_changed(self) -> None:
        super()._rates_changed()
        self._note_at = BEGINNING

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
            self._records.append((APPEND, (name, weight, now)))
        return admitted

    def _store(self, name: str, weight: int, moment: int, now: int) -> None:
        self._noted = True
        if now >= self._note_at:
            self._note(now)
        super()._store(name, weight, moment, now)


def play(log: RecordingLog, records: list[Record]) -> None:
    """Do to a replica what was recorded elsewhere."""
    for name, arguments in records:
        _METHODS[name](log, *arguments)
        if name != APPEND:
            log._changed()
    if len(records) == 1 and records[0][0] == APPEND:  # it tells the time
        log._latest = max(log._latest, log._newest)


def note_time(log: RecordingLog, known: tuple[int, int]) -> None:
    """Record the time of an operation that changed something; the stamp of a single unit tells it.

    Args:
        log: it holds the lock.
        known: the latest time, and how much it was ahead of the clock, before the operation.
    """
    time, records = (log._latest, log._ahead), log._records
    if not records or time == known:
        return
    if len(records) > 1 or records[0][0] != APPEND or (log._newest, known[1]) != time:
        log._go_on(*time)


def dump(log: RecordingLog) -> tuple[list[object], list[bytes]]:
    """The whole log as plain values."""
    arrays = [bytes(array("q", getattr(log, name))) for name in _ARRAYS]
    return [getattr(log, name) for name in _UNITS + _BESIDE], arrays


def load(log: RecordingLog, values: list[object], arrays: list[bytes]) -> None:
    """Make this the log that `dump` gave."""
    log._drop_arrays()
    for name, value in zip(_UNITS + _BESIDE, values):
        setattr(log, name, value)
    for name, data in zip(_ARRAYS, arrays):
        if data:
            setattr(log, name, array("q", data))
    log._begin_notes(log._lookbacks)
    log._changed()


class LogFile(Medium):
    """The medium of a log that is shared by a file.

    A snapshot goes from ``snapshot`` to ``begin``. Behind it are the records, to ``end``, and room
    for more, to ``limit``. Each snapshot begins another generation.
    """

    def __init__(self, log: RecordingLog, file: SharedFile) -> None:
        self._log = log
        self._file = file
        self.place: str = file.path
        self._commits = -1
        self._header: tuple[int, ...] = (0, 0, 0, 0, 0)
        self._time = (0, 0)

    def pull(self, fresh: bool) -> None:
        log, file = self._log, self._file
        if file.commits == self._commits and not fresh:
            return
        known, _, _, seen, _ = self._header
        header = generation, snapshot, begin, end, _ = file.header()
        if fresh or generation != known:
            seen = begin
            if generation:
                load(log, *unpack(file.read(snapshot, begin)))
            else:
                ArrayLog._clear(log)
                log._begin_notes()
        log._records = []
        data = file.read(seen, end)
        place = 0
        while place < len(data):
            first = place + _LENGTH
            place = first + int.from_bytes(data[place:first], "little")
            play(log, unpack(data[first:place]))
        self._commits, self._header = file.commits, header
        self._time = log._latest, log._ahead

    def push(self) -> None:
        log, file = self._log, self._file
        note_time(log, self._time)
        records = log._records
        if not records:
            return
        generation, snapshot, begin, end, limit = self._header
        frame = pack(records)
        stop = end + _LENGTH + len(frame)
        if generation and stop <= limit:
            file.write(end, len(frame).to_bytes(_LENGTH, "little") + frame)
            header = (generation, snapshot, begin, stop, limit)
        else:
            whole = pack(dump(log))
            size = len(whole) + max(ROOM, len(whole))
            place = room_beside(snapshot, limit, size)
            file.write(place, whole)
            begin = place + len(whole)
            header = (generation + 1, place, begin, begin, place + size)
        self._commits, self._header = file.commit(header), header
        records.clear()
        self._time = log._latest, log._ahead
