"""A state and the reservations on it: all that a state store has to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.timeline import Timeline
from pyrate_limiter.buckets.state.reservations import ReservationQueue

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import State
    from pyrate_limiter.buckets.state.reservations import QueueNumbers

    Numbers = tuple[int, int, State | None, QueueNumbers | None, tuple[int, int] | None]
    """A record as plain numbers: the latest time, by how much that is ahead of the clock, the
    state, the reservations, and the hold."""


class StateRecord(Timeline):
    """One state with its reservations, as data; `StateRules` says what is done with it."""

    __slots__ = ("_ahead", "_hold", "_latest", "_queue", "_state")

    _state: State | None
    _queue: ReservationQueue | None

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._state = None
        self._queue = None
        self._ahead = 0
        self._hold = None
        self._begin_time()

    def dump(self) -> Numbers:
        """The record as plain numbers in tuples and lists."""
        queue = None if self._queue is None else self._queue.dump()
        return self._latest, self._ahead, self._state, queue, self._hold

    def load(self, numbers: Numbers) -> None:
        """Make this the record that `dump` gave; lists, as JSON makes them, are tuples again."""
        self._latest, self._ahead, state, queue, hold = numbers
        self._state = None if state is None else tuple(state)
        self._queue = None if queue is None else ReservationQueue.restored(queue)
        self._hold = None if hold is None else (hold[0], hold[1])
