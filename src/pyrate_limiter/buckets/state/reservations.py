"""Reservations on a state, kept until their holders have gone.

Units cannot be taken out of a state again. So a queue keeps the state without the reserved units,
and those beside it. Whoever goes is judged by that state; where the next units fit is found by
playing the reserved ones on top of it, in their order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort_right
from typing import TYPE_CHECKING

from pyrate_limiter._core.validation import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.abstracts.algorithm import Decision, State

    Step = Callable[[State, int, int], tuple[State, Decision]]
    """`StateAlgorithm.step` under the rates of the bucket."""

    QueueNumbers = tuple[State, bool, list[tuple[int, int, int]]]
    """A queue as plain numbers: the state of those who have gone, `ReservationQueue.is_played`, and
    moment, weight and kind of all units."""

ABANDONED_MS = 2000
"""So long after its moment a reservation counts as used that nobody has confirmed."""
HELD, FREE, DETACHED = range(3)
"""The kinds of reserved units: their holder comes to confirm them; they were given back; they count
as used when their moment comes, for their holder does not come back."""


class Units:
    """``weight`` units reserved for ``at`` ms."""

    __slots__ = ("at", "kind", "weight")

    def __init__(self, at: int, weight: int, kind: int = HELD) -> None:
        self.at: int = at
        self.weight: int = weight
        self.kind: int = kind


def _moment(units: Units) -> int:
    return units.at


def _after(state: State, at: int, weight: int, step: Step) -> State:
    """The state when units have gone: at that moment, or where they fit after that."""
    while True:
        state, decision = step(state, at, weight)
        if decision.retry_after_ms is None:
            return state
        at += max(1, decision.retry_after_ms)


class ReservationQueue:
    """The reserved units in the order of their moments. Its user holds the lock.

    What is given back in front of others stays in the queue, to be reserved again: the moments of
    the others do not change.

    Args:
        gone: the state of those who have gone.
    """

    __slots__ = ("_free", "_reserved", "gone", "is_played")

    def __init__(self, gone: State) -> None:
        self.gone: State = gone
        self.is_played: bool = True
        """Whether the user of the queue has the state after all units."""
        self._reserved: list[Units] = []
        self._free: list[Units] = []  # those of them that were given back, in order

    @property
    def newest(self) -> int:
        """The moment of the last units, long ago if there are none."""
        return self._reserved[-1].at if self._reserved else BEGINNING

    def add(self, moment: int, weight: int) -> None:
        """Reserve units for a moment, behind all that have the same one."""
        place = bisect_right(self._reserved, moment, key=_moment)
        if place < len(self._reserved):
            self.is_played = False
        self._reserved.insert(place, Units(moment, weight))

    def has(self, moment: int, weight: int) -> bool:
        """Whether so many units are reserved for that moment."""
        return sum(units.weight for units in self._of(moment)) >= weight

    def _of(self, moment: int) -> list[Units]:
        first = bisect_left(self._reserved, moment, key=_moment)
        last = bisect_right(self._reserved, moment, lo=first, key=_moment)
        return [units for units in self._reserved[first:last] if units.kind != FREE]

    def detach(self, moment: int, weight: int) -> bool:
        """Have units count as used when their moment comes; False if they are not there."""
        for units in self._of(moment):
            if units.kind == HELD and units.weight == weight:
                units.kind = DETACHED
                return True
        return False

    def take_out(self, moment: int, weight: int, kind: int = HELD) -> None:
        """Take units of a moment out. All that are of one kind are alike."""
        wanted = (kind, weight)
        for units in sorted(self._of(moment), key=lambda it: (it.kind, it.weight) != wanted):
            taken = min(weight, units.weight)
            units.weight -= taken
            weight -= taken
            if not units.weight:
                self._reserved.remove(units)
        self._trim()
        self.is_played = False

    def _trim(self) -> None:
        """Nobody is behind what was given back last: it need not be kept."""
        while self._reserved and self._reserved[-1].kind == FREE:
            self._free.remove(self._reserved.pop())

    def give_back(self, moment: int, weight: int, kind: int = HELD) -> None:
        """Free units of a moment, for others to reserve."""
        self.take_out(moment, weight, kind)
        free = Units(moment, weight, FREE)
        insort_right(self._reserved, free, key=_moment)
        insort_right(self._free, free, key=_moment)
        self._trim()

    def room(self, now: int, start: int, weight: int, step: Step) -> tuple[int, Units] | None:
        """The first moment from ``start`` on that was given back, and what was given back there.

        One that has passed may still serve ``start``. Where that is so, or somebody is late, nobody
        else may lack room for it. One that is still to come is there for others too.
        """
        late = self.is_late(now)
        for units in [it for it in self._free if it.weight >= weight]:
            at = max(units.at, start)
            if at == units.at and not late:
                return at, units
            if self._suits(now, Units(at, weight), step):
                return at, units
            if units.at < now:
                self._forget(units)
        return None

    def _forget(self, free: Units) -> None:
        self._reserved.remove(free)
        self._free.remove(free)

    def _suits(self, now: int, wanted: Units, step: Step) -> bool:
        state = self.gone
        for units in sorted([*self._reserved, wanted], key=_moment):
            if units.kind == FREE and units.at <= wanted.at:
                continue
            state, decision = step(state, max(units.at, now), units.weight)
            if decision.failing_rate is not None:
                return False
        return True

    def use(self, free: Units, weight: int) -> None:
        """So much of what was given back is reserved again."""
        free.weight -= weight
        if not free.weight:
            self._forget(free)
        self.is_played = False

    def fold(self, now: int, step: Step, abandoned_ms: int = ABANDONED_MS) -> bool:
        """Count the units as used that nobody will confirm any more; whether any are left."""
        due = bisect_right(self._reserved, now, key=_moment)
        late = []
        for units in self._reserved[:due]:
            if units.kind != DETACHED and units.at + abandoned_ms > now:
                late.append(units)
            elif units.kind != FREE:
                self.gone = _after(self.gone, units.at, units.weight, step)
        if len(late) < due:
            self._reserved[:due] = late
            self._free = [units for units in self._reserved if units.kind == FREE]
            self.is_played = False
        return bool(self._reserved)

    def is_late(self, now: int) -> bool:
        """Whether the moment of the first has passed: all the others wait for its holder."""
        return bool(self._reserved) and self._reserved[0].at < now

    def played(self, now: int, step: Step) -> State:
        """The state after all units, each at its moment, or where it fits after that.

        Those that are late are taken to go now.
        """
        state = self.gone
        for units in self._reserved:
            if units.kind == FREE and units.at < now:
                continue
            at = units.at if units.kind == DETACHED else max(units.at, now)
            state = _after(state, at, units.weight, step)
        self.is_played = not self.is_late(now)
        return state

    def dump(self) -> QueueNumbers:
        """The queue as plain numbers."""
        reserved = [(units.at, units.weight, units.kind) for units in self._reserved]
        return self.gone, self.is_played, reserved

    @classmethod
    def restored(cls, numbers: QueueNumbers) -> ReservationQueue:
        """The queue that `dump` gave."""
        gone, is_played, reserved = numbers
        queue = cls(tuple(gone))
        queue.is_played = is_played
        queue._reserved = [Units(*units) for units in reserved]
        queue._free = [units for units in queue._reserved if units.kind == FREE]
        return queue
