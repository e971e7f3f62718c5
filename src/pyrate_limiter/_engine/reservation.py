"""What a shared bucket holds for a wait queue: units at moments to come."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import RateItem


class Reservation:
    """Units that the bucket holds for the queue. Whoever is at the front uses them.

    Args:
        item: as the bucket has stored it.
        decision: the bucket's.
        due: when they may be used, on the clock of ``time.monotonic``; long ago where the bucket
            has admitted them already.
        asked: when the bucket was asked, on that clock.
        made: when its answer was here.
        owner: the waiter under whose name they are stored, while it waits.
    """

    __slots__ = ("asked", "decision", "due", "item", "made", "owner")

    def __init__(
        self,
        item: RateItem,
        decision: Decision,
        due: float,
        asked: float,
        made: float,
        owner: Waiter | None = None,
    ) -> None:
        self.item = item
        self.decision = decision
        self.due = due
        self.asked = asked
        self.made = made
        self.owner = owner

    def __lt__(self, other: Reservation) -> bool:
        return self.due < other.due


class HeldReservations:
    """The reservations of a wait queue, in the order of their moments."""

    if not TYPE_CHECKING:
        __slots__ = ()  # the queue has them

    if TYPE_CHECKING:
        _lock: Any
        _unneeded: list[RateItem]
        _weights: dict[int, int]
        first: Waiter | None
        reservations: list[Reservation]
        size: int

    def wanting(self, most: int) -> list[Waiter]:
        """The first waiters that have no reservation, if there are less of those than waiters."""
        found: list[Waiter] = []
        with self._lock:
            most = min(most, self.lacking)
            waiter = self.first
            while waiter is not None and len(found) < most:
                if waiter.reservation is None:
                    found.append(waiter)
                waiter = waiter.next
        return found

    @property
    def lacking(self) -> int:
        """How many waiters have no reservation."""
        return self.size - len(self.reservations)

    @property
    def is_mixed(self) -> bool:
        """Whether the waiters are of different weights."""
        return len(self._weights) > 1

    def add(self, reservation: Reservation) -> None:
        """Hold a reservation for whoever is at the front when it is due."""
        with self._lock:
            insort(self.reservations, reservation)
            owner = reservation.owner
            if owner is not None and owner.queue is self:
                owner.reservation = reservation
            else:
                reservation.owner = None

    def take(self, waiter: Waiter) -> Reservation | None:
        """The first reservation, for a waiter at the front; None where it is not enough."""
        with self._lock:
            held = self.reservations
            if self.first is not waiter or not held or held[0].item.weight < waiter.weight:
                return None
            taken, own = held.pop(0), waiter.reservation
            waiter.reservation = None
            if own is not taken:
                self._exchange(taken, own, waiter)
            return taken

    @staticmethod
    def _exchange(taken: Reservation, own: Reservation | None, waiter: Waiter) -> None:
        """Let the owner of what was taken have the taker's own; or its name, to ask under that."""
        owner = taken.owner
        if own is not None:
            own.owner = owner
        if owner is not None:
            owner.reservation = own
            if own is None:
                owner.name, waiter.name = waiter.name, owner.name

    def trim(self) -> bool:
        """Set apart what is held and nobody in the queue can use; whether there is any.

        Reservations are given out in the order of arrival, and nobody may pass the front: one that
        is not enough for whoever is next is of no use to those behind; one that is more than enough
        is cut.
        """
        with self._lock:
            held, waiter = self.reservations, self.first
            fits = waiter is None or not held or held[0].item.weight == waiter.weight
            if self.is_mixed or len(held) > self.size or not fits:
                self.reservations = kept = []
                for reservation in held:
                    item = reservation.item
                    if waiter is None or item.weight < waiter.weight:
                        self._unneeded.append(item)
                        self._disown(reservation)
                        continue
                    if item.weight > waiter.weight:
                        self._unneeded.append(item.part(item.weight - waiter.weight))
                        item.weight = waiter.weight
                    kept.append(reservation)
                    waiter = waiter.next
            return bool(self._unneeded)

    def give_up_future(self) -> None:
        """Set apart what is held for moments to come, to be given back and asked for anew."""
        with self._lock:
            held, self.reservations = self.reservations, []
            for reservation in held:
                if reservation.decision.wait_ms:
                    self._unneeded.append(reservation.item)
                    self._disown(reservation)
                else:
                    self.reservations.append(reservation)

    def surplus(self) -> list[RateItem]:
        """Hand over what is held and nobody in the queue can use, to be given back."""
        with self._lock:
            self.trim()
            unneeded, self._unneeded = self._unneeded, []
        return unneeded

    def take_due(self, now: float, most: int) -> list[Reservation]:
        """The reservations that are due and still to be confirmed; not more than can be used."""
        with self._lock:
            due = []
            for reservation in self.reservations[: min(most, self.size)]:
                if reservation.due > now or not reservation.decision.wait_ms:
                    break
                due.append(reservation)
            del self.reservations[: len(due)]
        return due

    @staticmethod
    def _disown(reservation: Reservation) -> None:
        if reservation.owner is not None:
            reservation.owner.reservation = None

    def units_at_once(self) -> int:
        """How many units may be used without anything more."""
        units = 0
        with self._lock:
            for reservation in self.reservations:
                if reservation.decision.wait_ms:
                    break
                units += reservation.item.weight
        return units
