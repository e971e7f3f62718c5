"""How items are judged: by the server, by what it said just now, or by its stand-in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.validation import Unread
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.postgres.custom_algorithm import confirm_by_policy, reserve_by_policy
from pyrate_limiter.buckets.postgres.literals import unique
from pyrate_limiter.buckets.postgres.session import Session, uncancelled
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Ask, Busy, Steps, UnitsInDoubt
from pyrate_limiter.buckets.postgres.stored import Stored
from pyrate_limiter.buckets.remote.denials import Denial, LastDenial

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.postgres.clock import PostgresClock
    from pyrate_limiter.buckets.postgres.literals import Limits
    from pyrate_limiter.buckets.postgres.outage import PostgresOutage
    from pyrate_limiter.buckets.remote.fallback import FallbackUnits

_REMEMBERED_SECONDS = 0.05
_MOST_REMEMBERED = 10_000


class PostgresJudge(AbstractBucket):
    """What `PostgresBucket` does behind its methods."""

    failing_rate: Rate | None
    is_async: bool | None
    blocks: bool

    _keyed = False
    _fixed: bool  # whether windows are aligned to the clock
    _in_sql: bool  # whether the server judges
    _session: Session
    _steps: Steps
    _outage: PostgresOutage
    _own_clock: PostgresClock
    _limits: Limits
    _flushes: int
    _learnt: LastDenial | None
    _full: dict[str, Denial]  # by name

    def _answer(self, value: object) -> Any:
        return _ready(value) if self.is_async else value

    def _run(self, program: Program[object]) -> Any:
        run = self._session.run(program)
        return uncancelled(run) if self.is_async else run

    def _reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        store: bool = True,
        look: bool = True,
    ) -> Any:
        weight = item.weight
        for rate in self._rates:
            if weight > self._algorithm.max_weight(rate):
                if store:
                    self.failing_rate, self._learnt = rate, LastDenial(weight, None)
                return self._answer(Decision(rate))
        if store and item.timestamp.__class__ is Unread:
            refusal = self._recall(item, max_wait_ms)
            if refusal is not None:
                return self._answer(refusal)
        limit = max_wait_ms if limit_ms is None else limit_ms
        program = self._judge(item, max_wait_ms, buffer_ms, limit, store=store, look=look)
        if not self.is_async:
            return self._session.run(program)
        return uncancelled(self._session.run(program), self._undo if store else None)

    async def _undo(self, decision: Decision) -> None:
        if isinstance(decision, Reservation):
            cancelled: Any = self.cancel(decision)
            await cancelled

    def _recall(self, item: RateItem, max_wait_ms: int) -> Decision | None:
        """What a refusal of just now says about this item."""
        key = item.name if self._keyed else ""
        known = self._full.get(key)
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

    def _judge(
        self,
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int | None,
        limit_ms: int,
        *,
        store: bool,
        look: bool,
    ) -> Program[Decision]:
        program = self._judge_there(
            *(item, max_wait_ms, buffer_ms, limit_ms), store=store, look=look
        )
        outage = self._outage
        if outage.raises:
            return program
        return outage.guard(
            program, lambda: self._without(item, max_wait_ms, buffer_ms, store=store)
        )

    def _confirm(
        self, reservation: Reservation, time_of_item: int | None, max_wait_ms: int
    ) -> Program[Decision]:
        try:
            return (yield from self._confirm_there(reservation, time_of_item, max_wait_ms))
        except BaseException as error:
            if self._outage.failed(error):
                return reservation.with_wait()
            self._forsake(reservation)
            if isinstance(error, Busy):
                return Decision(self._rates[0], 0)
            raise

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
        return UnitsInDoubt(item.name, item.weight, stored.token, moment, moment, kept=kept)

    def _without(
        self, item: RateItem, max_wait_ms: int, buffer_ms: int | None, *, store: bool
    ) -> Program[Decision]:
        """Answer while the server is away."""
        outage, key = self._outage, item.name if self._keyed else ""
        max_wait_ms = max_wait_ms if store else -1
        decision, units = yield from outage.fallback.decide(
            self._rates, item, max_wait_ms, buffer_ms, outage.breaker.retry_ms(), key
        )
        item.timestamp = int(item.timestamp)
        if store:
            self.failing_rate, self._learnt = decision.failing_rate, None
        if units is None:
            return decision
        item.timestamp = units.reservation.item.timestamp
        return Reservation.of(item, decision, units)

    def _confirm_without(
        self, reservation: Reservation, units: FallbackUnits, max_wait_ms: int
    ) -> Program[Decision]:
        """Confirm what a fallback has stored."""
        decision = yield from units.confirm(max_wait_ms)
        return reservation.with_wait(decision.wait_ms) if decision.allowed else decision

    def _judge_there(
        self,
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int | None,
        limit_ms: int,
        *,
        store: bool,
        look: bool,
    ) -> Program[Decision]:
        now, clock = self._times(item.timestamp)
        token = unique()
        ask = Ask(
            item.name,
            item.weight,
            token,
            now,
            clock,
            max_wait_ms,
            limit_ms,
            buffer_ms,
            store,
            look,
        )
        try:
            if self._in_sql:
                answer: Any = yield from self._steps.reserve(self._limits, ask)
            else:
                answer = yield from reserve_by_policy(
                    self._steps, self._rates, self._algorithm, ask
                )
        except Busy:
            return Decision(self._rates[0], 0)
        return self._read(item, answer, token, store=store, own_time=now is None)

    def _times(self, stamp: int) -> tuple[int | None, int | None]:
        """The time of the item, and the reading of a clock that is not the server's."""
        clock = None
        if self._clock is not self._own_clock:
            reading: Any = self._clock.now()
            clock = None if is_awaitable(reading) else int(reading)
        return None if stamp.__class__ is Unread else int(stamp), clock

    def _read(
        self,
        item: RateItem,
        answer: Any,
        token: int,
        *,
        store: bool,
        own_time: bool,
    ) -> Decision:
        allowed, moment, failing, now, remaining, reset = answer[:6]
        if self._in_sql:
            self._steps.note_sweep(answer[6], now)
            held = 0 if answer[7] is None else answer[7] - now
            reset = None if remaining is None else max(held, self._reset_after(reset, now))
        received = time.monotonic()
        if not allowed:
            rate = self._rates[failing - 1]
            wait = None if moment is None else moment - now
            refusal = Decision(rate, wait, 0, remaining, reset)
            if own_time:
                item.timestamp = now
            if store:
                self.failing_rate, self._learnt = rate, LastDenial(item.weight, moment)
                if own_time and wait is not None:
                    self._remember(item, received, wait, rate, refusal)
            return refusal
        if store:
            self.failing_rate = None
            due = received + (moment - now) / 1000
            stored = Stored(token, due, self._flushes, int(item.weight))
            item.timestamp = moment
            return Reservation(item, max(0, moment - now), stored, remaining, reset)
        if own_time:
            item.timestamp = now
        return Decision(None, None, max(0, moment - now), remaining, reset)

    def _reset_after(self, newest: int | None, now: int) -> int:
        """Ms until the bucket is as good as new."""
        if newest is None:
            return 0
        if not self._fixed:
            return max(0, newest + self._rates.longest_ms + 1 - now)
        policy: Any = self._algorithm
        if newest < policy.window_start(self._rates[-1], now):
            return 0
        last = max(now, newest)
        resets: list[int] = [policy.retry_after(rate, last, newest) for rate in self._rates]
        return last - now + max(resets)

    def _remember(
        self, item: RateItem, received: float, wait: int, rate: Rate, refusal: Decision
    ) -> None:
        if len(self._full) >= _MOST_REMEMBERED:
            self._full = {}
        key = item.name if self._keyed else ""
        until = received + min(wait / 1000, _REMEMBERED_SECONDS)
        self._full[key] = Denial(
            *(until, received + wait / 1000, item.weight, self._rates, rate),
            *(refusal.remaining, refusal.reset_after_ms),
        )

    def _confirm_there(
        self, reservation: Reservation, time_of_item: int | None, max_wait_ms: int
    ) -> Program[Decision]:
        item, stored = reservation.item, reservation.handle
        layout = yield from self._steps.layout()
        terms: dict[str, Any] = {"now": time_of_item, "max_wait": max_wait_ms}
        found: Any
        if not layout.has_columns:  # it stores nothing ahead
            if stored.flushes == self._flushes:
                return reservation.with_wait()
            found = True, None, 0, int(item.timestamp)
        elif self._in_sql:
            units = item.name, item.weight, stored.token
            (found,) = yield from self._steps.confirm(self._limits, [units], **terms)
        else:
            found = yield from confirm_by_policy(
                self._steps, self._rates, self._algorithm, item, token=stored.token, terms=terms
            )
        allowed, moment, _, now = found[:4]
        if allowed and moment is None:  # flushed, or so late that it was cleaned away
            return (yield from self._anew(reservation, now, time_of_item, max_wait_ms))
        return self._confirmed(reservation, found)

    def _anew(
        self, reservation: Reservation, now: int, time_of_item: int | None, max_wait_ms: int
    ) -> Program[Decision]:
        """Reserve once more what is not there any more."""
        item, stored = reservation.item, reservation.handle
        self._full.pop(item.name if self._keyed else "", None)
        item.timestamp = Unread(now) if time_of_item is None else time_of_item
        limit = max(max_wait_ms, LEAST_MS)
        terms = item, max_wait_ms, None, limit
        decision = yield from self._judge(*terms, store=True, look=False)
        if not isinstance(decision, Reservation) or not isinstance(decision.handle, Stored):
            stored.is_gone = True
            return decision
        stored.become(decision.handle)
        return reservation.with_wait(decision.wait_ms)

    def _confirmed(self, reservation: Reservation, found: Any) -> Decision:
        """What the server says of a reservation that it has found."""
        item, stored = reservation.item, reservation.handle
        allowed, moment, failing, now = found[:4]
        if allowed and moment == item.timestamp:
            return reservation.with_wait()
        self._full.pop(item.name if self._keyed else "", None)
        if not allowed:
            self.failing_rate = self._rates[failing - 1]
            self._learnt = LastDenial(item.weight, moment)
            stored.is_gone = True
            return Decision(self.failing_rate, moment - now)
        wait = max(0, moment - now)
        item.timestamp, stored.flushes = moment, self._flushes
        stored.due = time.monotonic() + wait / 1000
        return reservation.with_wait(wait)


async def _ready(value: object) -> Any:
    return value
