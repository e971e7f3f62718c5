"""What the line of waiters asks for: several reservations at once, or to give them back."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.validation import Unread, check_item
from pyrate_limiter.buckets.postgres.decisions import PostgresJudge, Stored
from pyrate_limiter.buckets.postgres.exchange import driver
from pyrate_limiter.buckets.postgres.functions import MOST_ROWS
from pyrate_limiter.buckets.postgres.rows import Ask
from pyrate_limiter.buckets.postgres.statements import GIVING_SECONDS, LEAST_MS
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
_MOST_GIFTS = 64


class PostgresLine(PostgresJudge):
    """Reservations for the waiters of a line."""

    _giving: FairLock
    _gifts: deque[_Gift]

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
        return self._session.run(self._judge(several, ask), self._undo)

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
        gifts = [self._gift(reservation) for reservation in reservations]
        if not any(gifts):  # they were never judged, or have less
            return self._answer([False] * len(reservations))
        return self._session.run(self._cancel(gifts))

    def _gift(self, reservation: Reservation) -> _Gift | FallbackUnits | None:
        """What is given back of a reservation; None where that has not so many units."""
        stored, weight = reservation.handle, reservation.item.weight
        if isinstance(stored, FallbackUnits):
            return stored
        if not isinstance(stored, Stored) or stored.is_gone or weight > stored.kept:
            return None
        stored.kept -= weight
        return _Gift(self._held(reservation, stored.kept))

    def _cancel(self, gifts: Sequence[_Gift | FallbackUnits | None]) -> Program[list[bool]]:
        held = [gift for gift in gifts if isinstance(gift, _Gift)]
        if held:
            yield from self._give_back(held)
        answers = []
        for gift in gifts:
            if isinstance(gift, FallbackUnits):
                answers.append((yield from gift.cancel()))
            else:
                answers.append(gift is not None and bool(gift.units))
        return answers

    def _give_back(self, gifts: Sequence[_Gift]) -> Program[None]:
        """Give them back, together with what others give back while somebody is at it."""
        self._gifts.extend(gifts)
        try:
            yield from self._session.in_turn(
                self._giving, GIVING_SECONDS, lambda _: self._give(gifts)
            )
        except driver().Error:
            pass  # it comes in the place of another error or a cancellation, which has to be seen
        finally:
            for gift in gifts:
                if gift.units is None:
                    with suppress(ValueError):  # somebody else has it in hand
                        self._gifts.remove(gift)
                    self._steps.leave_in_doubt(gift.doubt)

    def _give(self, gifts: Sequence[_Gift]) -> Program[None]:
        while self._gifts and any(gift.units is None for gift in gifts):
            several = [self._gifts.popleft() for _ in range(min(_MOST_GIFTS, len(self._gifts)))]
            # What has nobody behind it leaves no gap.
            several.sort(key=lambda gift: gift.doubt.told.since, reverse=True)
            try:
                units = yield from self._steps.cancel([gift.doubt for gift in several])
            except BaseException:
                self._gifts.extend(several)
                raise
            for gift, count in zip(several, units):
                gift.units = count


class _Gift:
    """What is given back, and how many units that were, if it is done."""

    __slots__ = ("doubt", "units")

    def __init__(self, doubt: UnitsInDoubt) -> None:
        self.doubt: UnitsInDoubt = doubt
        self.units: int | None = None
