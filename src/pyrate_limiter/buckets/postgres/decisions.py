"""How items are judged: by the server, by a denial of just now, or by the fallback."""

from __future__ import annotations

import time
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.validation import Unread, check_timestamp
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.log.rules import reset_after_ms
from pyrate_limiter.buckets.postgres.custom_algorithm import confirm_by_policy, reserve_by_policy
from pyrate_limiter.buckets.postgres.literals import unique
from pyrate_limiter.buckets.postgres.rows import (
    Ask,
    CancelRequest,
    Confirmed,
    ConfirmRequest,
    Units,
)
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Steps, UnitsInDoubt
from pyrate_limiter.buckets.remote.denials import Denial, LastDenial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.postgres.clock import PostgresClock
    from pyrate_limiter.buckets.postgres.outage import PostgresOutage
    from pyrate_limiter.buckets.postgres.rows import Answer
    from pyrate_limiter.buckets.postgres.session import Session
    from pyrate_limiter.buckets.remote.fallback import FallbackUnits

T = TypeVar("T")

_REMEMBERED_SECONDS = 0.05
_MOST_REMEMBERED = 10_000


class Stored:
    """What the bucket knows of the units of a reservation.

    Args:
        token: marks the units.
        due: their moment on the clock of ``time.monotonic``.
        flushes: how often the bucket had been flushed by then.
        kept: how many of them are not cancelled.
    """

    __slots__ = ("due", "flushes", "is_gone", "kept", "token")

    def __init__(self, token: int, due: float, flushes: int, kept: int) -> None:
        self.token: int = token
        self.due: float = due
        self.flushes: int = flushes
        self.kept: int = kept
        self.is_gone: bool = False
        """Whether they are given back, or will be: they could not be confirmed."""

    def become(self, other: Stored) -> None:
        """Stand for the units that were stored in the place of these."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))


class PostgresDecisions(AbstractBucket):
    """What `PostgresBucket` does behind its methods."""

    failing_rate: Rate | None
    is_async: bool | None
    blocks: bool

    _keyed = False
    _in_sql: bool  # whether the server judges
    _session: Session
    _steps: Steps
    _outage: PostgresOutage
    _own_clock: PostgresClock
    _flushes: int
    _learnt: LastDenial | None
    _full: dict[str, Denial]  # by name

    def _answer(self, value: T) -> T | Awaitable[T]:
        return _ready(value) if self.is_async else value

    def _key(self, item: RateItem) -> str:
        return item.name if self._keyed else ""

    def _reserve(self, item: RateItem, ask: Ask) -> Decision | Awaitable[Decision]:
        weight = item.weight
        for rate in self._rates:
            if weight > self._algorithm.max_weight(rate):
                if ask.store:
                    self.failing_rate, self._learnt = rate, LastDenial(weight, None)
                return self._answer(Decision(rate))
        if ask.store and item.timestamp.__class__ is Unread:
            refusal = self._recall(item, ask.max_wait)
            if refusal is not None:
                return self._answer(refusal)
        return self._session.run(first_of(self._decide([item], ask)), lambda one: self._undo([one]))

    async def _undo(self, decisions: list[Decision]) -> None:
        stored = [it for it in decisions if isinstance(it, Reservation)]
        cancelled = self.cancel_several(stored)
        if not isinstance(cancelled, list):
            await cancelled

    def _recall(self, item: RateItem, max_wait_ms: int) -> Decision | None:
        """What a refusal of just now says about this item."""
        known = self._full.get(self._key(item))
        now = time.monotonic()
        if known is None or known.weight != item.weight or now >= known.until:
            return None
        refusal = known.again(now)
        left = refusal.retry_after_ms or 0
        if left <= max_wait_ms:
            return None
        self.failing_rate = refusal.failing_rate
        item.timestamp = int(item.timestamp)
        self._learnt = LastDenial(item.weight, item.timestamp + left)
        return refusal

    def _decide(self, items: Sequence[RateItem], ask: Ask) -> Program[list[Decision]]:
        """The decisions on items of one line, as far as one call takes them."""
        program = self._decide_there(items, ask)
        if self._outage.raises:
            return program
        return self._outage.guard(program, lambda: self._without(items[0], ask))

    def _decide_there(self, items: Sequence[RateItem], ask: Ask) -> Program[list[Decision]]:
        # A policy that runs in this process takes two round trips for each of them. Each goes
        # behind all that is stored, so also behind what the line holds.
        groups = [items] if self._in_sql else [[item] for item in items]
        decisions: list[Decision] = []
        for group in groups:
            now, clock = self._times(group[0].timestamp)
            asked = ask
            if now is not None or clock is not None:
                asked = ask._replace(now=now, clock=clock)
            units = [Units(item.name, item.weight, unique()) for item in group]
            try:
                if self._in_sql:
                    answers = yield from self._steps.reserve(asked, units)
                else:
                    answers = yield from reserve_by_policy(self._steps, asked, units[0])
            except self._steps.errors as error:
                if decisions:
                    break  # whoever asks next is told
                if self._steps.is_busy(error, ask.limit):
                    return [Decision(self._rates[0], 0)]
                raise
            decisions += [self._read(*found, asked) for found in zip(group, units, answers)]
            if not decisions[-1].allowed:
                break
        return decisions

    def _without(self, item: RateItem, ask: Ask) -> Program[list[Decision]]:
        """Answer while the server is away."""
        outage = self._outage
        max_wait_ms = ask.max_wait if ask.store else -1
        decision, units = yield from outage.fallback.decide(
            *(self._rates, item, max_wait_ms, ask.buffer, outage.breaker.retry_ms()),
            self._key(item),
        )
        item.timestamp = int(item.timestamp)
        if ask.store:
            self.failing_rate, self._learnt = decision.failing_rate, None
        if units is None:
            return [decision]
        item.timestamp = units.reservation.item.timestamp
        return [Reservation.of(item, decision, units)]

    def _times(self, stamp: int) -> tuple[int | None, int | None]:
        """The time of the item, and the reading of a clock that is not the server's."""
        clock = None
        if self._clock is not self._own_clock:
            reading: object = self._clock.now()
            if is_awaitable(reading):
                discard(reading)
            else:
                clock = check_timestamp(reading)
        return None if stamp.__class__ is Unread else int(stamp), clock

    def _read(self, item: RateItem, units: Units, answer: Answer, ask: Ask) -> Decision:
        failing, moment, now, remaining, newest, _, held, _ = answer
        own_time, reset = ask.now is None, None
        if remaining is not None:
            reset = max(0 if held is None else held - now, self._reset_after(newest, now))
        received = time.monotonic()
        if failing:
            rate = self._rates[failing - 1]
            wait = None if moment is None else moment - now
            refusal = Decision(rate, wait, 0, remaining, reset)
            if own_time:
                item.timestamp = now
            if ask.store:
                self.failing_rate, self._learnt = rate, LastDenial(item.weight, moment)
                if own_time and wait is not None:
                    self._remember(item, received, wait, rate, refusal)
            return refusal
        moment = now if moment is None else moment
        wait = max(0, moment - now)
        if ask.store:
            self.failing_rate = None
            item.timestamp = moment
            due = received + (moment - now) / 1000
            stored = Stored(units.token, due, self._flushes, item.weight)
            return Reservation(item, wait, stored, remaining, reset)
        if own_time:
            item.timestamp = now
        return Decision(None, None, wait, remaining, reset)

    def _reset_after(self, newest: int | None, now: int) -> int:
        """Ms until the bucket is as good as new."""
        policy, rates = self._algorithm, self._rates
        if newest is None or all(newest < policy.window_start(rate, now) for rate in rates):
            return 0
        return reset_after_ms(policy, rates, newest, now)

    def _remember(
        self, item: RateItem, received: float, wait: int, rate: Rate, refusal: Decision
    ) -> None:
        if len(self._full) >= _MOST_REMEMBERED:
            self._full = {}
        until = received + min(wait / 1000, _REMEMBERED_SECONDS)
        self._full[self._key(item)] = Denial(
            *(until, received + wait / 1000, item.weight, self._rates, rate),
            *(refusal.remaining, refusal.reset_after_ms),
        )

    def _confirm(
        self, reservations: Sequence[Reservation], time_of_items: int | None, max_wait_ms: int
    ) -> Program[list[Decision]]:
        """Confirm what is due together; see `AbstractBucket.confirm_several`."""
        try:
            return (yield from self._confirm_there(reservations, time_of_items, max_wait_ms))
        except BaseException as error:
            if self._outage.failed(error):
                return [reservation.with_wait() for reservation in reservations]
            for reservation in reservations:
                self._forsake(reservation)
            if self._steps.is_busy(error, max(max_wait_ms, LEAST_MS)):
                return [Decision(self._rates[0], 0)]
            raise

    def _confirm_there(
        self, reservations: Sequence[Reservation], time_of_items: int | None, max_wait_ms: int
    ) -> Program[list[Decision]]:
        head = reservations[0]
        units = [Units(one.item.name, one.item.weight, one.handle.token) for one in reservations]
        layout = yield from self._steps.layout()
        ask = ConfirmRequest(time_of_items, max_wait_ms)
        if not layout.has_columns:  # it stores nothing ahead
            if head.handle.flushes == self._flushes:
                return [head.with_wait()]
            answers = [Confirmed(0, None, int(head.item.timestamp), 0)]
        elif self._in_sql:
            answers = yield from self._steps.confirm(ask, units)
        else:
            answers = yield from confirm_by_policy(self._steps, ask, units[0])
        if not answers[0].failing and answers[0].moment is None:
            # Flushed, or so late that it was cleaned away.
            return [(yield from self._anew(head, answers[0].now, time_of_items, max_wait_ms))]
        found = takewhile(lambda answer: answer.moment is not None, answers)
        return [self._confirmed(*one) for one in zip(reservations, found)]

    def _anew(
        self, reservation: Reservation, now: int, time_of_item: int | None, max_wait_ms: int
    ) -> Program[Decision]:
        """Reserve once more what is not there any more."""
        item, stored = reservation.item, reservation.handle
        self._full.pop(self._key(item), None)
        item.timestamp = Unread(now) if time_of_item is None else time_of_item
        ask = Ask(max_wait_ms, max(max_wait_ms, LEAST_MS))
        (decision,) = yield from self._decide([item], ask)
        if not isinstance(decision, Reservation) or not isinstance(decision.handle, Stored):
            stored.is_gone = True
            return decision
        stored.become(decision.handle)
        return reservation.with_wait(decision.wait_ms)

    def _confirmed(self, reservation: Reservation, answer: Confirmed) -> Decision:
        """What the server says of a reservation that it has found."""
        item, stored = reservation.item, reservation.handle
        failing, moment = answer.failing, answer.now if answer.moment is None else answer.moment
        if not failing and moment == item.timestamp:
            return reservation.with_wait()
        self._full.pop(self._key(item), None)
        wait = max(0, moment - answer.now)
        if failing:
            self.failing_rate = self._rates[failing - 1]
            self._learnt = LastDenial(item.weight, moment)
            stored.is_gone = True
            return Decision(self.failing_rate, wait)
        item.timestamp, stored.flushes = moment, self._flushes
        stored.due = time.monotonic() + wait / 1000
        return reservation.with_wait(wait)

    def _forsake(self, reservation: Reservation) -> None:
        """Have a reservation given back when the server is not silent any more.

        `cancel`, which is called next, has nothing more to do then.
        """
        self._steps.leave_in_doubt(self._held(reservation))
        reservation.handle.is_gone = True

    @staticmethod
    def _held(reservation: Reservation, kept: int = 0) -> UnitsInDoubt:
        """What a reservation is found by, wherever it has moved since."""
        item, stored = reservation.item, reservation.handle
        moment = int(item.timestamp)
        units = Units(item.name, item.weight, stored.token)
        return UnitsInDoubt(units, CancelRequest(moment, moment, kept=kept))

    def _confirm_without(
        self, reservation: Reservation, units: FallbackUnits, max_wait_ms: int
    ) -> Program[Decision]:
        """Confirm what a fallback has stored."""
        decision = yield from units.confirm(max_wait_ms)
        return reservation.with_wait(decision.wait_ms) if decision.allowed else decision


async def _ready(value: T) -> T:
    return value


def first_of(program: Program[list[T]]) -> Program[T]:
    """What a program says of the first, or only, one."""
    return (yield from program)[0]
