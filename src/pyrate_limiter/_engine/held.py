"""What a shared bucket holds for a wait queue: units at moments to come."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.reservation import Reservation


class Held:
    """A reservation that belongs to the queue. Whoever is at the front uses it.

    Args:
        reservation: the bucket's.
        due: when it may be used, on the clock of ``time.monotonic``; long ago where the bucket has
            admitted its item already.
        asked: when the bucket was asked, on that clock.
        made: when its answer was here.
        owner: the waiter under whose name it is stored, while it waits.
    """

    __slots__ = ("asked", "due", "made", "owner", "reservation")

    def __init__(
        self,
        reservation: Reservation,
        due: float,
        asked: float,
        made: float,
        owner: Waiter | None = None,
    ) -> None:
        self.reservation = reservation
        self.due = due
        self.asked = asked
        self.made = made
        self.owner = owner

    @property
    def weight(self) -> int:
        """Its units."""
        return self.reservation.item.weight

    @property
    def waits(self) -> bool:
        """Whether it is for a moment to come, and still to be confirmed."""
        return self.reservation.wait_ms > 0

    def __lt__(self, other: Held) -> bool:
        return self.due < other.due


class HeldReservations:
    """The reservations of a wait queue, in the order of their moments."""

    if not TYPE_CHECKING:
        __slots__ = ()  # the queue has them

    if TYPE_CHECKING:
        _lock: Any
        _unneeded: list[Reservation]
        _weights: dict[int, int]
        first: Waiter | None
        held: list[Held]
        size: int

    def wanting(self, most: int) -> list[Waiter]:
        """The first waiters that have no reservation, if there are less of those than waiters."""
        found: list[Waiter] = []
        with self._lock:
            most = min(most, self.lacking)
            waiter = self.first
            while waiter is not None and len(found) < most:
                if waiter.held is None:
                    found.append(waiter)
                waiter = waiter.next
        return found

    @property
    def lacking(self) -> int:
        """How many waiters have no reservation."""
        return self.size - len(self.held)

    @property
    def is_mixed(self) -> bool:
        """Whether the waiters are of different weights."""
        return len(self._weights) > 1

    @property
    def keeps_something(self) -> bool:
        """Whether anything is held, or still to be cancelled."""
        return bool(self.held or self._unneeded)

    def add(self, held: Held) -> None:
        """Hold a reservation for whoever is at the front when it is due."""
        with self._lock:
            insort(self.held, held)
            owner = held.owner
            if owner is not None and owner.queue is self:
                owner.held = held
            else:
                held.owner = None

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
        """Let the owner of what was taken have the taker's own; or its name, to ask under that."""
        owner = taken.owner
        if own is not None:
            own.owner = owner
        if owner is not None:
            owner.held = own
            if own is None:
                owner.name, waiter.name = waiter.name, owner.name

    def trim(self) -> bool:
        """Set apart what is held and nobody in the queue can use; whether there is any.

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
                    reservation = one.reservation
                    if waiter is None or one.weight < waiter.weight:
                        self._unneeded.append(reservation)
                        self._disown(one)
                        continue
                    if one.weight > waiter.weight:
                        self._unneeded.append(reservation.part(one.weight - waiter.weight))
                        reservation.item.weight = waiter.weight
                    kept.append(one)
                    waiter = waiter.next
            return bool(self._unneeded)

    def give_up_future(self) -> None:
        """Set apart what is held for moments to come, to be cancelled and asked for anew."""
        with self._lock:
            held, self.held = self.held, []
            for one in held:
                if one.waits:
                    self._unneeded.append(one.reservation)
                    self._disown(one)
                else:
                    self.held.append(one)

    def surplus(self) -> list[Reservation]:
        """Hand over what is held and nobody in the queue can use, to be cancelled."""
        with self._lock:
            self.trim()
            unneeded, self._unneeded = self._unneeded, []
        return unneeded

    def take_due(self, now: float, most: int) -> list[Held]:
        """The reservations that are due and still to be confirmed; not more than can be used."""
        with self._lock:
            due = []
            for one in self.held[: min(most, self.size)]:
                if one.due > now or not one.waits:
                    break
                due.append(one)
            del self.held[: len(due)]
        return due

    @staticmethod
    def _disown(held: Held) -> None:
        if held.owner is not None:
            held.owner.held = None

    def units_at_once(self) -> int:
        """How many units may be used without anything more."""
        units = 0
        with self._lock:
            for one in self.held:
                if one.waits:
                    break
                units += one.weight
        return units
