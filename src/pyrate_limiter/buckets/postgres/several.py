"""What the line of waiters asks for: several reservations at once, or to give them back."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.validation import Unread, check_item
from pyrate_limiter.buckets.postgres.decisions import PostgresDecisions, Stored
from pyrate_limiter.buckets.postgres.exchange import driver
from pyrate_limiter.buckets.postgres.functions import MOST_ROWS
from pyrate_limiter.buckets.postgres.rows import Ask
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, REFUND_SECONDS
from pyrate_limiter.buckets.remote.fallback import FallbackUnits

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.postgres.fair_lock import FairLock
    from pyrate_limiter.buckets.postgres.statements import UnitsInDoubt

# Few enough that the bucket's lock is held for a few milliseconds, and that a session which does
# not live long still gets them done.
_MOST_AT_ONCE = 16  # reservations
_MOST_CONFIRMED = 8
_MOST_ROWS_AT_ONCE = 500
_MOST_REFUNDS = 64


class PostgresLine(PostgresDecisions):
    """Reservations for the waiters of a line."""

    _refunding: FairLock
    _refunds: deque[_Refund]

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """See `AbstractBucket.reserve_several`: so many that it is over in a few milliseconds.

        The call itself may take ``limit_ms``; None is as long as the patience.
        """
        for item in items:
            check_item(item)
        several = self._at_once(items)
        if not several:  # it needs no look at the log
            return then(self.reserve(items[0], max_wait_ms, buffer_ms), lambda one: [one])
        limit = max(max_wait_ms, LEAST_MS, limit_ms or 0)
        ask = Ask(max_wait_ms, limit, buffer_ms, not_before=not_before)
        return self._session.run(self._decide(several, ask), self._undo)

    def _at_once(self, items: Sequence[RateItem]) -> list[RateItem]:
        """As many of them as one statement may take, which holds the bucket's lock."""
        several: list[RateItem] = []
        rows = 0
        for item in items[:_MOST_AT_ONCE]:
            weight = item.weight
            fits = all(weight <= self._algorithm.max_weight(rate) for rate in self._rates)
            rows += min(weight, MOST_ROWS)
            too_many = bool(several) and rows > _MOST_ROWS_AT_ONCE
            if not (weight and fits) or too_many or self._key(item) != self._key(items[0]):
                break
            several.append(item)
        return several

    def confirm_several(
        self, reservations: Sequence[Reservation], now: int, max_wait_ms: int = 0
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """`confirm` for what is due together, in its order, in one round trip.

        It ends with the first that has to be confirmed by itself, and answers for one at the least.
        """
        several = []
        for reservation in reservations[:_MOST_CONFIRMED]:
            stored, item = reservation.handle, reservation.item
            if not self._in_sql or not isinstance(stored, Stored) or stored.is_gone:
                break
            if self._key(item) != self._key(reservations[0].item):
                break
            several.append(reservation)
        if not several:
            return then(self.confirm(reservations[0], now, max_wait_ms), lambda one: [one])
        time_of_items = None if now.__class__ is Unread else int(now)
        return self._session.run(self._confirm(several, time_of_items, max_wait_ms))

    def cancel(self, reservation: Reservation) -> bool | Awaitable[bool]:
        return then(self.cancel_several([reservation]), lambda answers: answers[0])

    def cancel_several(
        self, reservations: Sequence[Reservation]
    ) -> list[bool] | Awaitable[list[bool]]:
        """`cancel` for each of the reservations, in one round trip."""
        self._full.clear()
        refunds = [self._refund(reservation) for reservation in reservations]
        if not any(refunds):  # they were never judged, or have less
            return self._answer([False] * len(reservations))
        return self._session.run(self._cancel(refunds))

    def _refund(self, reservation: Reservation) -> _Refund | FallbackUnits | None:
        """What is given back of a reservation; None where that has not so many units."""
        stored, weight = reservation.handle, reservation.item.weight
        if isinstance(stored, FallbackUnits):
            return stored
        if not isinstance(stored, Stored) or stored.is_gone or weight > stored.kept:
            return None
        stored.kept -= weight
        return _Refund(self._held(reservation, stored.kept))

    def _cancel(self, refunds: Sequence[_Refund | FallbackUnits | None]) -> Program[list[bool]]:
        held = [refund for refund in refunds if isinstance(refund, _Refund)]
        if held:
            yield from self._give_back(held)
        answers = []
        for refund in refunds:
            if isinstance(refund, FallbackUnits):
                answers.append((yield from refund.cancel()))
            else:
                answers.append(refund is not None and bool(refund.units))
        return answers

    def _give_back(self, refunds: Sequence[_Refund]) -> Program[None]:
        """Give them back, together with what others give back while somebody is at it."""
        self._refunds.extend(refunds)
        try:
            yield from self._session.in_turn(
                self._refunding, REFUND_SECONDS, lambda _: self._refund_queued(refunds)
            )
        except driver().Error:
            pass  # it comes in the place of another error or a refund, which has to be seen
        finally:
            for refund in refunds:
                if refund.units is None:
                    with suppress(ValueError):  # somebody else has it in hand
                        self._refunds.remove(refund)
                    self._steps.leave_in_doubt(refund.stored)

    def _refund_queued(self, refunds: Sequence[_Refund]) -> Program[None]:
        while self._refunds and any(refund.units is None for refund in refunds):
            several = [
                self._refunds.popleft() for _ in range(min(_MOST_REFUNDS, len(self._refunds)))
            ]
            # What has nobody behind it leaves no gap.
            several.sort(key=lambda refund: refund.stored.told.since, reverse=True)
            try:
                units = yield from self._steps.cancel([refund.stored for refund in several])
            except BaseException:
                self._refunds.extend(several)
                raise
            for refund, count in zip(several, units):
                refund.units = count


class _Refund:
    """What is given back, and how many units that were, if it is done."""

    __slots__ = ("stored", "units")

    def __init__(self, stored: UnitsInDoubt) -> None:
        self.stored: UnitsInDoubt = stored
        self.units: int | None = None
