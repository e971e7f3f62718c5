"""What the line of waiters asks for: several reservations at once, or to give them back."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.validation import Unread, check_item
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.postgres.decisions import PostgresJudge
from pyrate_limiter.buckets.postgres.fair_lock import locked
from pyrate_limiter.buckets.postgres.functions import MOST_ROWS
from pyrate_limiter.buckets.postgres.literals import unique
from pyrate_limiter.buckets.postgres.session import driver, uncancelled
from pyrate_limiter.buckets.postgres.statements import GIVING_SECONDS, LEAST_MS, Ask, Busy
from pyrate_limiter.buckets.postgres.stored import Stored
from pyrate_limiter.buckets.remote.fallback import FallbackUnits

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.rate import RateItem
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
    ) -> Any:
        """See `AbstractBucket.reserve_several`: so many that it is over in a few milliseconds.

        The call itself may take ``limit_ms``; None is as long as the patience.
        """
        for item in items:
            check_item(item)
        several = self._at_once(items)
        if not several:  # it needs no look at the log
            decision: object = self.reserve(items[0], max_wait_ms, buffer_ms)
            return then(decision, lambda decision: [decision])
        if not self._in_sql:
            return self._run_all(self._judge_one_by_one(several, max_wait_ms, buffer_ms, limit_ms))
        program = self._judge_several(several, max_wait_ms, buffer_ms, not_before, limit_ms)
        outage = self._outage
        if not outage.raises:
            first = items[0]
            program = outage.guard(
                program, lambda: self._first_without(first, max_wait_ms, buffer_ms)
            )
        return self._run_all(program)

    def _first_without(
        self, item: RateItem, max_wait_ms: int, buffer_ms: int | None
    ) -> Program[list[Decision]]:
        return [(yield from self._without(item, max_wait_ms, buffer_ms, store=True))]

    def _run_all(self, program: Program[list[Decision]]) -> Any:
        """What a program says about the items; given back where its caller is cancelled."""
        if not self.is_async:
            return self._session.run(program)

        async def undo(decisions: list[Decision]) -> None:
            stored = [it for it in decisions if isinstance(it, Reservation)]
            if stored:
                cancelled: Any = self.cancel_several(stored)
                await cancelled

        return uncancelled(self._session.run(program), undo)

    def _judge_one_by_one(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int,
        buffer_ms: int | None,
        limit_ms: int | None,
    ) -> Program[list[Decision]]:
        """For a policy that runs in this process, which takes two round trips for each of them.

        Each goes behind all that is stored, so also behind what the line holds.
        """
        limit = max(max_wait_ms, LEAST_MS, limit_ms or 0)
        decisions: list[Decision] = []
        for item in items:
            terms = item, max_wait_ms, buffer_ms, limit
            try:
                decision = yield from self._judge(*terms, store=True, look=False)
            except driver().Error:
                if decisions:
                    break  # whoever asks next is told
                raise
            decisions.append(decision)
            if not decision.allowed:
                break
        return decisions

    def _at_once(self, items: Sequence[RateItem]) -> list[RateItem]:
        """As many of them as one statement may take, which holds the bucket's lock."""
        several: list[RateItem] = []
        rows = 0
        for item in items[:_MOST_AT_ONCE]:
            weight = item.weight
            fits = all(weight <= self._algorithm.max_weight(rate) for rate in self._rates)
            rows += min(weight, MOST_ROWS)
            if not (weight and fits):
                break
            if several and (
                rows > _MOST_ROWS_AT_ONCE or (self._keyed and item.name != items[0].name)
            ):
                break
            several.append(item)
        return several

    def _judge_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int,
        buffer_ms: int | None,
        not_before: int | None,
        limit_ms: int | None,
    ) -> Program[list[Decision]]:
        now, clock = self._times(items[0].timestamp)
        (name, weight, token), *others = units = [
            (item.name, item.weight, unique()) for item in items
        ]
        limit = max(max_wait_ms, LEAST_MS, limit_ms or 0)
        ask = Ask(
            *(name, weight, token, now, clock, max_wait_ms, limit, buffer_ms, True, False),
            not_before,
        )
        try:
            answers = yield from self._steps.reserve_several(self._limits, ask, *others)
        except Busy:
            return [Decision(self._rates[0], 0)]
        return [
            self._read(item, answer, token, store=True, own_time=now is None)
            for item, (_, _, token), answer in zip(items, units, answers)
        ]

    def confirm_several(
        self, reservations: Sequence[Reservation], now: int, max_wait_ms: int = 0
    ) -> Any:
        """`confirm` for what is due together, in its order, in one round trip.

        It ends with the first that has to be confirmed by itself, and answers for one at the least.
        """
        several = []
        for reservation in reservations[:_MOST_CONFIRMED]:
            stored = reservation.handle
            if not self._in_sql or not isinstance(stored, Stored) or stored.is_gone:
                break
            if self._keyed and reservation.item.name != reservations[0].item.name:
                break
            several.append(reservation)
        if len(several) < 2:  # noqa: PLR2004 - that is several
            decision: Any = self.confirm(reservations[0], now, max_wait_ms)
            return then(decision, lambda decision: [decision])
        time_of_items = None if now.__class__ is Unread else int(now)
        return self._run(self._confirm_several(several, time_of_items, max_wait_ms))

    def _confirm_several(
        self, reservations: Sequence[Reservation], time_of_items: int | None, max_wait_ms: int
    ) -> Program[list[Decision]]:
        layout = yield from self._steps.layout()
        answers: list[Any] = []
        if layout.has_columns:
            units = [(it.item.name, it.item.weight, it.handle.token) for it in reservations]
            try:
                answers = yield from self._steps.confirm(
                    self._limits, units, now=time_of_items, max_wait=max_wait_ms
                )
            except BaseException as error:
                if self._outage.failed(error):
                    return [reservation.with_wait() for reservation in reservations]
                for reservation in reservations:
                    self._forsake(reservation)
                if isinstance(error, self._steps.busy):
                    return [Decision(self._rates[0], 0)]
                raise
        decisions = [
            self._confirmed(reservation, answer)
            for reservation, answer in zip(
                reservations,
                takewhile(lambda answer: not answer[0] or answer[1] is not None, answers),
            )
        ]
        if not decisions:  # what was forgotten is reserved anew
            decisions = [(yield from self._confirm(reservations[0], time_of_items, max_wait_ms))]
        return decisions

    def cancel(self, reservation: Reservation) -> Any:
        return then(self.cancel_several([reservation]), _first)

    def cancel_several(self, reservations: Sequence[Reservation]) -> Any:
        """`cancel` for each of the reservations, in one round trip."""
        self._full.clear()
        gifts = [self._gift(reservation) for reservation in reservations]
        handles = [reservation.handle for reservation in reservations]
        elsewhere = [it if isinstance(it, FallbackUnits) else None for it in handles]
        held = [gift for gift in gifts if gift is not None]
        if not held and not any(elsewhere):  # they were never judged, or have less
            return self._answer([False] * len(reservations))

        def cancel() -> Program[list[bool]]:
            given_back = iter((yield from self._cancel(held)) if held else ())
            answers: list[bool] = []
            for gift, units in zip(gifts, elsewhere):
                if gift is not None:
                    answers.append(next(given_back))
                else:
                    answers.append(units is not None and (yield from units.cancel()))
            return answers

        return self._run(cancel())

    def _gift(self, reservation: Reservation) -> _Gift | None:
        """What is given back of a reservation; None where that has not so many units."""
        stored, weight = reservation.handle, int(reservation.item.weight)
        if not isinstance(stored, Stored) or stored.is_gone or weight > stored.kept:
            return None
        stored.kept -= weight
        return _Gift(self._held(reservation, stored.kept))

    def _cancel(self, gifts: Sequence[_Gift]) -> Program[list[bool]]:
        """Give them back, together with what others give back while somebody is at it."""
        self._gifts.extend(gifts)
        try:
            late = self._session.late
            yield from locked(self._giving, GIVING_SECONDS, late, lambda _: self._give(gifts))
        except driver().Error:
            pass  # it comes in the place of another error or a cancellation, which has to be seen
        finally:
            for gift in gifts:
                if gift.units is None:
                    with suppress(ValueError):  # somebody else has it in hand
                        self._gifts.remove(gift)
                    self._steps.leave_in_doubt(gift.doubt)
        return [bool(gift.units) for gift in gifts]

    def _give(self, gifts: Sequence[_Gift]) -> Program[None]:
        while self._gifts and any(gift.units is None for gift in gifts):
            several = [self._gifts.popleft() for _ in range(min(_MOST_GIFTS, len(self._gifts)))]
            # What has nobody behind it leaves no gap.
            several.sort(key=lambda gift: gift.doubt.since, reverse=True)
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


def _first(answers: list[bool]) -> bool:
    return answers[0]
