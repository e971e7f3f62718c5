"""What the line of waiters asks for: several claims at once, or to give them back."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.validation import Unread, check_item
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.buckets.postgres.decisions import PostgresJudge, Stamp
from pyrate_limiter.buckets.postgres.fair_lock import in_turn
from pyrate_limiter.buckets.postgres.functions import MOST_ROWS
from pyrate_limiter.buckets.postgres.literals import unique
from pyrate_limiter.buckets.postgres.session import driver, uncancelled
from pyrate_limiter.buckets.postgres.statements import GIVING_SECONDS, LEAST_MS, Ask, Busy

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.buckets.postgres.fair_lock import Turns
    from pyrate_limiter.buckets.postgres.statements import UnitsInDoubt

# Few enough that the bucket's lock is held for a few milliseconds, and that a session which does
# not live long still gets them done.
_MOST_AT_ONCE = 16  # claims
_MOST_SETTLED = 8
_MOST_ROWS_AT_ONCE = 500
_MOST_GIFTS = 64


class PostgresLine(PostgresJudge):
    """Claims for the waiters of a line."""

    _giving: Turns
    _gifts: deque[_Gift]

    def claim_several(
        self,
        items: Sequence[RateItem],
        patience_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> Any:
        """See `AbstractBucket.claim_several`: so many that it is over in a few milliseconds.

        The call itself may take ``limit_ms``; None is as long as the patience.
        """
        for item in items:
            check_item(item)
        several = self._at_once(items)
        if not several:  # it needs no look at the log
            decision: Any = self.claim(items[0], patience_ms, buffer_ms)
            return then(decision, lambda decision: [decision])
        if not self._in_sql:
            return self._run_all(
                self._judge_one_by_one(several, patience_ms, buffer_ms, limit_ms), several
            )
        program = self._judge_several(several, patience_ms, buffer_ms, not_before, limit_ms)
        outage = self._outage
        if not outage.raises:
            first = items[0]
            program = outage.guard(
                program, lambda: self._first_without(first, patience_ms, buffer_ms)
            )
        return self._run_all(program, several)

    def _first_without(
        self, item: RateItem, patience_ms: int, buffer_ms: int | None
    ) -> Program[list[Decision]]:
        return [(yield from self._without(item, patience_ms, buffer_ms, store=True))]

    def _run_all(self, program: Program[list[Decision]], items: Sequence[RateItem]) -> Any:
        """What a program says about the items; given back where its caller is cancelled."""
        if not self.is_async:
            return self._link.run(program)

        async def undo(decisions: list[Decision]) -> None:
            allowed = [item for item, decision in zip(items, decisions) if decision.allowed]
            if allowed:
                released: Any = self.release_several(allowed)
                await released

        return uncancelled(self._link.run(program), undo)

    def _judge_one_by_one(
        self,
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int | None,
        limit_ms: int | None,
    ) -> Program[list[Decision]]:
        """For a policy that runs in this process, which takes two round trips for each of them.

        Each goes behind all that is stored, so also behind what the line holds.
        """
        limit = max(patience_ms, LEAST_MS, limit_ms or 0)
        decisions: list[Decision] = []
        for item in items:
            terms = item, patience_ms, buffer_ms, limit
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
        patience_ms: int,
        buffer_ms: int | None,
        not_before: int | None,
        limit_ms: int | None,
    ) -> Program[list[Decision]]:
        now, clock = self._times(items[0].timestamp)
        (name, weight, token), *others = units = [
            (item.name, item.weight, unique()) for item in items
        ]
        limit = max(patience_ms, LEAST_MS, limit_ms or 0)
        ask = Ask(
            *(name, weight, token, now, clock, patience_ms, limit, buffer_ms, True, False),
            not_before,
        )
        try:
            answers = yield from self._steps.claim_several(self._limits, ask, *others)
        except Busy:
            return [Decision(self._rates[0], 0)]
        return [
            self._read(item, answer, token, store=True, own_time=now is None)
            for item, (_, _, token), answer in zip(items, units, answers)
        ]

    def settle_several(self, items: Sequence[RateItem], now: int, patience_ms: int = 0) -> Any:
        """`settle` for claims that are due together, in their order, in one round trip.

        It ends with the first that has to be settled by itself, and answers for one at the least.
        """
        several = []
        for item in items[:_MOST_SETTLED]:
            if not self._in_sql or not isinstance(item.timestamp, Stamp):
                break
            if self._keyed and item.name != items[0].name:
                break
            several.append(item)
        if len(several) < 2:  # noqa: PLR2004 - that is several
            decision: Any = self.settle(items[0], now, patience_ms)
            return then(decision, lambda decision: [decision])
        time_of_items = None if now.__class__ is Unread else int(now)
        return self._run(self._settle_several(several, time_of_items, patience_ms))

    def _settle_several(
        self, items: Sequence[RateItem], time_of_items: int | None, patience_ms: int
    ) -> Program[list[Decision]]:
        place = yield from self._steps.place()
        answers: list[Any] = []
        if place.has_columns:
            units = [(item.name, item.weight, item.timestamp.token) for item in items]  # type: ignore[attr-defined]
            try:
                answers = yield from self._steps.settle(
                    self._limits, units, now=time_of_items, patience=patience_ms
                )
            except BaseException as error:
                if self._outage.failed(error):
                    return [ADMITTED] * len(items)
                for item in items:
                    self._forsake(item)
                if isinstance(error, self._steps.busy):
                    return [Decision(self._rates[0], 0)]
                raise
        decisions = [
            self._settled(item, answer)
            for item, answer in zip(
                items, takewhile(lambda answer: not answer[0] or answer[1] is not None, answers)
            )
        ]
        if not decisions:  # what was forgotten is claimed anew
            first: Any = items[0].timestamp
            decisions = [(yield from self._settle(items[0], first, time_of_items, patience_ms))]
        return decisions

    def release(self, item: RateItem) -> Any:
        """See `AbstractBucket.release`."""
        return then(self.release_several([item]), _first)

    def release_several(self, items: Sequence[RateItem]) -> Any:
        """`release` for each of the items, in one round trip. Returns a list of what it would."""
        self._full.clear()
        gifts = [self._gift(item) for item in items]
        elsewhere = [getattr(item.timestamp, "units", None) for item in items]
        held = [gift for gift in gifts if gift is not None]
        if not held and not any(elsewhere):  # they were never judged, or have less
            return self._answer([False] * len(items))

        def release() -> Program[list[bool]]:
            given_back = iter((yield from self._release(held)) if held else ())
            answers: list[bool] = []
            for gift, units in zip(gifts, elsewhere):
                if gift is not None:
                    answers.append(next(given_back))
                else:
                    answers.append(units is not None and (yield from units.release()))
            return answers

        return self._run(release())

    def _gift(self, item: RateItem) -> _Gift | None:
        """What is given back of an item's claim; None where that has not so many units."""
        stamp = item.timestamp
        if not isinstance(stamp, Stamp) or item.weight > stamp.kept[0]:
            return None
        stamp.kept[0] -= int(item.weight)
        return _Gift(self._held(item, stamp, stamp.kept[0]))

    def _release(self, gifts: Sequence[_Gift]) -> Program[list[bool]]:
        """Give them back, together with what others give back while somebody is at it."""
        self._gifts.extend(gifts)
        try:
            late = self._link.late
            yield from in_turn(self._giving, GIVING_SECONDS, late, lambda _: self._give(gifts))
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
                units = yield from self._steps.release([gift.doubt for gift in several])
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
