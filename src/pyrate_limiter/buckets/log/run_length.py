"""A log of units in flat arrays: run lengths instead of an object per unit.

Units are numbered from 1 in the order of the log, and the numbers never change meaning: ``_base``
units have been dropped at the front, ``_total`` were ever stored. A *run* is the units of one
timestamp; run ``k`` ends with unit number ``_ends[k]`` and has timestamp ``_stamps[k]``. The
newest run is still open and lies outside the arrays: it has timestamp ``_newest`` and ends with
``_total``. Names are kept the same way, in runs of their own: most logs have one.

A signal handler, a ``__del__`` or a fork may come between any two calls. So an array is only ever
appended to, or replaced as a whole; ``_ends`` says how many runs there are, and ``_stamps`` may be
longer by an entry that does not count. Whoever reads takes both arrays at once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from pyrate_limiter._core.validation import BEGINNING
from pyrate_limiter.buckets.log.storage import LogStorage

SLACK = 1024  # runs that may lie expired before the log drops them by itself
MANY = 1 << 60  # units that were ever stored, when it is time to number them anew
_STRIDE = 8  # how far the run that decides moves between two looks, as a rule

# Most keys never need more than the open run: they share these, which nobody changes.
_NO_NUMBERS = array("q")
_NO_NAMES: list[str] = []

Run = tuple[int, str, int]  # timestamp, name, units


class UnitLog(LogStorage):
    """The storage of a log in this process's memory.

    What appends or drops is whole wherever it is interrupted. What moves, removes or shifts units
    is undone by its user then.
    """

    __slots__ = (
        "_base",
        "_ends",
        "_hint",
        "_name",
        "_name_ends",
        "_names",
        "_newest",
        "_stamps",
        "_sweep_at",
        "_total",
    )

    _stamps: array[int]
    _ends: array[int]
    _name: str
    _names: list[str]
    _name_ends: array[int]
    _hint: int
    _sweep_at: int

    def _empty(self) -> None:
        self._newest = BEGINNING
        self._base = self._total = self._hint = 0
        self._stamps = self._ends = self._name_ends = _NO_NUMBERS
        self._names = _NO_NAMES
        self._name = ""
        self._sweep_at = SLACK

    def _append(self, name: str, weight: int, stamp: int) -> None:
        if stamp != self._newest:
            if self._total > self._base:
                self._seal()
            self._newest = stamp
        if name is not self._name and name != self._name:
            self._seal_name()
            self._name = name
        self._total += weight

    def _seal(self) -> int:
        """Close the open run, and say how many there were: the next unit begins another."""
        stamps, ends, total = self._stamps, self._ends, self._total
        runs = len(ends)
        if ends is _NO_NUMBERS:
            self._stamps, self._ends = stamps, ends = array("q"), array("q")
        if len(stamps) > runs:
            stamps[runs] = self._newest
        else:
            stamps.append(self._newest)
        if self._total != total or self._ends is not ends:  # a call came in between
            if self._total > self._base:
                self._seal()
        elif not runs or ends[-1] != total:
            ends.append(total)
        return runs

    def _seal_name(self) -> None:
        names, name_ends, total = self._names, self._name_ends, self._total
        if total <= (name_ends[-1] if name_ends else self._base):
            return
        if name_ends is _NO_NUMBERS:
            self._names, self._name_ends = names, name_ends = [], array("q")
        runs = len(name_ends)
        if len(names) == runs:
            names.append("")
        if self._name_ends is not name_ends or self._total != total:
            self._seal_name()
        else:
            names[runs] = self._name
            name_ends.append(total)

    def _stamp(self, number: int) -> int:
        stamps, ends, newest = self._stamps, self._ends, self._newest
        k, last = self._hint, len(ends)
        high = min(k + _STRIDE, last)
        if k < high and ends[high - 1] >= number and (k == 0 or ends[k - 1] < number):
            k = bisect_left(ends, number, k, high)
        else:
            k = bisect_left(ends, number)
        self._hint = k
        return stamps[k] if k < last else newest

    def _before(self, stamp: int) -> int:
        if self._newest < stamp:
            return self._total
        stamps, ends, base = self._stamps, self._ends, self._base
        k = bisect_left(stamps, stamp, 0, len(ends))
        return ends[k - 1] if k else base

    def _name_of(self, number: int) -> str:
        j = bisect_left(self._name_ends, number)
        return self._names[j] if j < len(self._name_ends) else self._name

    def _drop_before(self, stamp: int) -> int:
        while True:
            total, base, ends, name_ends = self._total, self._base, self._ends, self._name_ends
            keep = self._before(stamp)
            if keep == base:
                return 0
            k = len(ends) if keep == total else bisect_right(ends, keep)
            j = len(name_ends) if keep == total else bisect_right(name_ends, keep)
            rest = (self._stamps[k:], ends[k:], self._names[j:], name_ends[j:])
            if self._total == total and self._ends is ends and self._name_ends is name_ends:
                break  # no call came in between
        self._base = keep
        self._stamps, self._ends = rest[0] or _NO_NUMBERS, rest[1] or _NO_NUMBERS
        self._names, self._name_ends = rest[2] or _NO_NAMES, rest[3] or _NO_NUMBERS
        self._hint = 0
        return keep - base

    def _has_grown(self) -> bool:
        return len(self._stamps) >= self._sweep_at or self._total > MANY

    def _trim(self, bound: int) -> None:
        """Drop all that is older; the next time is when the log has doubled."""
        self._drop_before(bound)
        self._sweep_at = max(SLACK, 2 * len(self._stamps))
        if self._total > MANY:
            self._renumber()

    def _renumber(self) -> None:
        """Let the numbers begin at 1 again: an array has no room for numbers without end."""
        total, base, ends, name_ends = self._total, self._base, self._ends, self._name_ends
        fewer = [array("q", [end - base for end in each]) for each in (ends, name_ends)]
        if self._total == total and self._ends is ends and self._name_ends is name_ends:
            self._ends, self._name_ends = fewer[0] or _NO_NUMBERS, fewer[1] or _NO_NUMBERS
            self._total -= base
            self._base = 0

    def _shift(self, milliseconds: int, after: int, floor: int) -> None:
        if self._newest <= after:
            return
        self._newest = newest = max(floor, self._newest - milliseconds)
        if not self._stamps:
            return
        k = bisect_right(self._stamps, after, 0, len(self._ends))
        stamps, ends = self._stamps[:k], self._ends[:k]
        for stamp, end in zip(self._stamps[k:], self._ends[k:]):
            moved = max(floor, stamp - milliseconds)
            if stamps and stamps[-1] == moved:
                ends[-1] = end
            else:
                stamps.append(moved)
                ends.append(end)
        if stamps and stamps[-1] == newest:
            stamps.pop()
            ends.pop()
        self._stamps, self._ends = stamps, ends

    def _remove(self, stamp: int, name: str, weight: int) -> bool:
        return self._edit(stamp, stamp, name, weight, 0)

    def _move(self, stamp: int, name: str, weight: int, later: int) -> bool:
        return self._edit(stamp, later, name, weight, weight)

    def _add(self, name: str, weight: int, stamp: int) -> None:
        self._edit(stamp, stamp, name, 0, weight)

    def _edit(self, stamp: int, later: int, name: str, taken: int, given: int) -> bool:
        """Take so many units out at ``stamp`` and give as many to ``later``, or do nothing."""
        if self._total == self._base:
            return False
        self._open()
        low, high = bisect_left(self._stamps, stamp), bisect_right(self._stamps, later)
        runs = self._decode(low, high)
        found = _take_out(runs, stamp, name, taken)
        if found:
            if given:
                runs.append((later, name, given))
            self._encode(low, high, runs, given - taken)
        self._close()
        return found

    def _take_out_newest(self, units: dict[int, int]) -> None:
        """Take out so many units of each of these times, the newest ones, whatever their names."""
        self._open()
        runs = self._decode(0, len(self._stamps))
        self._drop_arrays()
        self._name, self._newest, self._total = "", BEGINNING, self._base
        left = dict(units)
        kept = []
        for stamp, name, count in reversed(runs):
            taken = min(count, left.get(stamp, 0))
            if taken:
                left[stamp] -= taken
            if count > taken:
                kept.append((stamp, name, count - taken))
        for stamp, name, count in reversed(kept):
            self._append(name, count, stamp)

    def _open(self) -> None:
        """Have all runs in arrays, and leave those of before to whoever may go back to them."""
        self._stamps, self._ends = self._stamps[: len(self._ends)], self._ends[:]
        self._names, self._name_ends = self._names[: len(self._name_ends)], self._name_ends[:]
        self._seal()
        self._seal_name()

    def _close(self) -> None:
        """Have the newest run outside the arrays again."""
        self._hint = 0
        if self._stamps:
            self._newest = self._stamps.pop()
            self._ends.pop()
            self._name = self._names.pop()
            self._name_ends.pop()
        else:
            self._newest = BEGINNING
            self._drop_arrays()

    def _drop_arrays(self) -> None:
        self._stamps = self._ends = self._name_ends = _NO_NUMBERS
        self._names = _NO_NAMES
        self._hint = 0

    def _decode(self, low: int, high: int) -> list[Run]:
        """The units of runs ``low`` to ``high`` by time and name. All is sealed."""
        runs: list[Run] = []
        number = self._ends[low - 1] if low else self._base
        j = bisect_right(self._name_ends, number)
        for k in range(low, high):
            while number < self._ends[k]:
                end = min(self._ends[k], self._name_ends[j])
                runs.append((self._stamps[k], self._names[j], end - number))
                number = end
                j += number == self._name_ends[j]
        return runs

    def _encode(self, low: int, high: int, runs: list[Run], shift: int) -> None:
        """Replace runs ``low`` to ``high`` by ``runs``; later numbers move by ``shift``."""
        start = self._ends[low - 1] if low else self._base
        finish = self._ends[high - 1] if high else start
        if shift or len(self._names) > 1:
            self._encode_names(start, finish, runs, shift)
        stamps, ends = array("q"), array("q")
        number = start
        for stamp, _, units in runs:
            number += units
            if stamps and stamps[-1] == stamp:
                ends[-1] = number
            else:
                stamps.append(stamp)
                ends.append(number)
        if shift:
            for k in range(high, len(self._ends)):
                self._ends[k] += shift
            self._total += shift
        self._stamps[low:high], self._ends[low:high] = stamps, ends

    def _encode_names(self, start: int, finish: int, runs: list[Run], shift: int) -> None:
        first = bisect_right(self._name_ends, start)
        last = bisect_left(self._name_ends, finish)
        number = self._name_ends[first - 1] if first else self._base
        pieces = [(self._names[first], start - number)]
        pieces += [(name, units) for _, name, units in runs]
        pieces.append((self._names[last], self._name_ends[last] - finish))
        names: list[str] = []
        ends = array("q")
        for name, units in pieces:
            number += units
            if names and names[-1] == name:
                ends[-1] = number
            elif units:
                names.append(name)
                ends.append(number)
        if shift:
            for j in range(last + 1, len(self._name_ends)):
                self._name_ends[j] += shift
        self._names[first : last + 1], self._name_ends[first : last + 1] = names, ends


def _take_out(runs: list[Run], stamp: int, name: str, weight: int) -> bool:
    """Take ``weight`` units of that time and name out of ``runs``, the newest first."""
    if sum(units for when, who, units in runs if when == stamp and who == name) < weight:
        return False
    for k in range(len(runs) - 1, -1, -1):
        when, who, units = runs[k]
        if when == stamp and who == name:
            taken = min(units, weight)
            weight -= taken
            runs[k] = (when, who, units - taken)
    runs[:] = [run for run in runs if run[2]]
    return True
