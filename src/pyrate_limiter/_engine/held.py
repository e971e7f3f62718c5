"""The reservations that a wait queue holds for its waiters."""

from __future__ import annotations

import threading
from itertools import islice, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrate_limiter._engine.waiter import Held, Waiter
    from pyrate_limiter.abstracts.reservation import Reservation


class HeldReservations:
    """The reservations of a wait queue, in the order of their moments."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._weights: dict[int, int] = {}
        """How many waiters there are of each weight."""
        self.first: Waiter | None = None
        self.size = 0
        self.held: list[Held] = []
        self._unneeded: list[Reservation] = []

    def _waiters(self) -> Iterator[Waiter]:
        """The waiters from the front on; the lock is held."""
        waiter = self.first
        while waiter is not None:
            yield waiter
            waiter = waiter.next

    def front(self, most: int) -> list[Waiter]:
        """The waiters from the front on; not more than that."""
        with self._lock:
            return list(islice(self._waiters(), most))

    def wanting(self, most: int) -> list[Waiter]:
        """The first waiters without a reservation; no more than there are reservations too few."""
        with self._lock:
            most = max(0, min(most, self.lacking))
            return list(islice((each for each in self._waiters() if each.held is None), most))

    @property
    def lacking(self) -> int:
        """How many reservations there are too few."""
        return self.size - len(self.held)

    @property
    def last_moment(self) -> int | None:
        """That of the last reservation, on the bucket's clock, if there is one."""
        return self.held[-1].reservation.item.timestamp if self.held else None

    @property
    def is_mixed(self) -> bool:
        """Whether the waiters are of different weights."""
        return len(self._weights) > 1

    @property
    def keeps_something(self) -> bool:
        """Whether anything is held, or still to be cancelled."""
        return bool(self.held or self._unneeded)

    def take(self, waiter: Waiter) -> Held | None:
        """The first reservation, for a waiter at the front; None where it is not enough."""
        with self._lock:
            held = self.held
            if self.first is not waiter or not held or held[0].weight < waiter.weight:
                return None
            taken, own = held.pop(0), waiter.held
            waiter.held = None
            if own is not taken:
                self._exchange(taken, own, waiter)
            return taken

    @staticmethod
    def _exchange(taken: Held, own: Held | None, waiter: Waiter) -> None:
        """Give the owner of what was taken the taker's reservation; or its name, to ask with."""
        owner = taken.owner
        if own is not None:
            own.owner = owner
        if owner is not None:
            owner.held = own
            if own is None:
                owner.name, waiter.name = waiter.name, owner.name

    def trim(self) -> bool:
        """Set apart what no waiter can use; answered by whether there is any.

        Reservations are given out in the order of arrival, and nobody may pass the front: one that
        is not enough for whoever is next is of no use to those behind; one that is more than enough
        is cut.
        """
        with self._lock:
            held, waiter = self.held, self.first
            fits = waiter is None or not held or held[0].weight == waiter.weight
            if self.is_mixed or len(held) > self.size or not fits:
                self.held = kept = []
                for one in held:
                    if waiter is None or one.weight < waiter.weight:
                        self._set_apart(one)
                        continue
                    if one.weight > waiter.weight:
                        self._unneeded.append(one.reservation.part(one.weight - waiter.weight))
                        one.reservation.item.weight = waiter.weight
                    kept.append(one)
                    waiter = waiter.next
            return bool(self._unneeded)

    def give_up_future(self) -> None:
        """Set apart what is held for moments to come, to be cancelled and asked for anew."""
        with self._lock:
            held, self.held = self.held, [one for one in self.held if not one.waits]
            for one in held:
                if one.waits:
                    self._set_apart(one)

    def surplus(self) -> list[Reservation]:
        """What no waiter can use: the caller cancels it."""
        with self._lock:
            self.trim()
            unneeded, self._unneeded = self._unneeded, []
        return unneeded

    def take_due(self, now: float, most: int) -> list[Held]:
        """The reservations that are due and still to be confirmed; not more than can be used."""
        with self._lock:
            usable = self.held[: min(most, self.size)]
            due = list(takewhile(lambda one: one.due <= now and one.waits, usable))
            del self.held[: len(due)]
            return due

    def _set_apart(self, held: Held) -> None:
        self._unneeded.append(held.reservation)
        if held.owner is not None:
            held.owner.held = None

    def units_at_once(self) -> int:
        """How many units are confirmed, from the first reservation on."""
        with self._lock:
            return sum(one.weight for one in takewhile(lambda one: not one.waits, self.held))
