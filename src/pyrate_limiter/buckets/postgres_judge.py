"""How items are judged: by the server, by what it said just now, or by its stand-in."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, SlidingWindowLog
from pyrate_limiter.abstracts.awaiting import is_awaitable
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.postgres_link import Link, uncancelled
from pyrate_limiter.buckets.postgres_policy import claim_by_policy
from pyrate_limiter.buckets.postgres_steps import Busy, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.postgres_outage import PostgresOutage
    from pyrate_limiter.clocks import PostgresClock

_REMEMBERED_SECONDS = 0.05
_MOST_REMEMBERED = 10_000


class Unread(int):
    """An estimate of the server's time, which the step that admits the item reads itself."""


class Stamp(int):
    """The time at which an item's units are stored.

    Attributes:
        token: marks the units.
        due: the moment on the clock of ``time.monotonic``.
        slack: by how many ms the holder of the claim may be late.
        flushes: how often the bucket had been flushed by then.
    """

    token: int
    due: float
    slack: int
    flushes: int

    @classmethod
    def of(cls, moment: int, token: int, due: float, slack: int, flushes: int) -> Stamp:
        """All of it."""
        stamp = cls(moment)
        stamp.token, stamp.due, stamp.slack, stamp.flushes = token, due, slack, flushes
        return stamp


class PostgresJudge(AbstractBucket):
    """What `PostgresBucket` does behind its methods."""

    failing_rate: Rate | None
    is_async: bool | None
    blocks: bool

    _keyed = False
    _link: Link
    _steps: Steps
    _outage: PostgresOutage | None
    _outages: tuple[type[BaseException], ...]
    _own_clock: PostgresClock
    _pads: str
    _flushes: int
    # The weight and the moment of the last refusal, None for never.
    _learnt: tuple[int, int | None] | None
    # By name: until when (monotonic seconds), for which weight, what is refused without a look.
    _full: dict[str, tuple[float, int, int, Decision]]
    _offset: float | None  # the server's ms less this process's, not too small

    def _answer(self, value: Any) -> Any:
        return _ready(value) if self.is_async else value

    def _claim(
        self,
        item: RateItem,
        patience_ms: int = 0,
        buffer_ms: int | None = None,
        *,
        store: bool = True,
        look: bool = True,
    ) -> Any:
        weight = item.weight
        for rate in self._rates:
            if weight > self._algorithm.max_weight(rate):
                if store:
                    self.failing_rate, self._learnt = rate, (weight, None)
                return self._answer(Decision(rate))
        if store and item.timestamp.__class__ is Unread:
            refusal = self._recall(item, patience_ms)
            if refusal is not None:
                return self._answer(refusal)
        program = self._judge(item, patience_ms, buffer_ms, store=store, look=look)
        if not self.is_async:
            return self._link.run(program)
        undo = self._undo(item) if store else None
        return uncancelled(self._link.run(program), undo)

    def _undo(self, item: RateItem) -> Any:
        async def undo(decision: Decision) -> None:
            if decision.allowed:
                released: Any = self.release(item)
                await released

        return undo

    def _recall(self, item: RateItem, patience_ms: int) -> Decision | None:
        """What a refusal of just now says about this item."""
        key = item.name if self._keyed else ""
        known = self._full.get(key)
        if known is None or known[1] != item.weight:
            return None
        until, _, moment, refusal = known
        left = moment - item.timestamp
        if time.monotonic() >= until or left <= patience_ms:
            return None
        self.failing_rate = refusal.failing_rate
        self._learnt = (item.weight, moment)
        item.timestamp = int(item.timestamp)
        return Decision(refusal.failing_rate, left, 0, refusal.remaining, refusal.reset_after_ms)

    def _judge(
        self,
        item: RateItem,
        patience_ms: int,
        buffer_ms: int | None,
        *,
        store: bool,
        look: bool,
    ) -> Program[Decision]:
        outage = self._outage
        if outage is not None and not outage.may_try():
            return self._judge_elsewhere(outage, item, patience_ms, buffer_ms, store=store)
        program = self._judge_there(item, patience_ms, buffer_ms, store=store, look=look)
        try:
            decision = yield from program
        except Busy:
            return Decision(self._rates[0], 0)
        except self._outages as error:
            if outage is None or _is_closed(error):
                raise
            outage.failed(error)
            return self._judge_elsewhere(outage, item, patience_ms, buffer_ms, store=store)
        if outage is not None:
            outage.answered()
        return decision

    def _guarded(self, program: Program[Any], instead: Any) -> Program[Any]:
        """The program's result, or ``instead`` where the server is away and `on_error` decides."""
        try:
            return (yield from program)
        except self._outages as error:
            if self._outage is None or _is_closed(error):
                raise
            self._outage.failed(error)
            return instead

    def _judge_elsewhere(
        self,
        outage: PostgresOutage,
        item: RateItem,
        patience_ms: int,
        buffer_ms: int | None,
        *,
        store: bool,
    ) -> Decision:
        decision = outage.decide(self._rates[0], item, patience_ms, buffer_ms, store=store)
        if store:
            self.failing_rate, self._learnt = decision.failing_rate, None
        return decision

    def _judge_there(
        self,
        item: RateItem,
        patience_ms: int,
        buffer_ms: int | None,
        *,
        store: bool,
        look: bool,
    ) -> Program[Decision]:
        now, clock = self._times(item.timestamp)
        token = int.from_bytes(os.urandom(8), "big") >> 1
        sent = time.monotonic()
        terms: dict[str, Any] = {
            "now": now,
            "clock": clock,
            "patience": patience_ms,
            "buffer": buffer_ms,
            "store": store,
            "pads": self._pads,
        }
        if self._algorithm.__class__ is SlidingWindowLog:
            answer = yield from self._steps.claim(
                self._rates, item.name, item.weight, token, look=look, **terms
            )
        else:
            answer = yield from claim_by_policy(
                self._steps, self._rates, self._algorithm, item, token=token, terms=terms
            )
        return self._read(item, answer, token, sent, store=store, own_time=now is None)

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
        answer: Sequence[Any],
        token: int,
        sent: float,
        *,
        store: bool,
        own_time: bool,
    ) -> Decision:
        allowed, moment, failing, now, slack, remaining, newest, *resets = answer
        received = time.monotonic()
        if own_time:
            self._offset = now - sent * 1000
        reset = None
        if resets:  # a policy of one's own knows it by itself
            reset = resets[0]
        elif remaining is not None:
            live = remaining < self._rates[-1].limit
            reset = max(0, newest + self._rates.longest_ms + 1 - now) if live else 0
        if not allowed:
            rate = self._rates[failing - 1]
            refusal = Decision(rate, moment - now, 0, remaining, reset)
            if own_time:
                item.timestamp = now
            if store:
                self.failing_rate, self._learnt = rate, (item.weight, moment)
                if own_time:
                    self._remember(item, received, moment, refusal)
            return refusal
        if store:
            self.failing_rate = None
            due = received + (moment - now) / 1000
            item.timestamp = Stamp.of(moment, token, due, slack, self._flushes)
        elif own_time:
            item.timestamp = now
        return Decision(None, None, max(0, moment - now), remaining, reset)

    def _remember(self, item: RateItem, received: float, moment: int, refusal: Decision) -> None:
        if len(self._full) >= _MOST_REMEMBERED:
            self._full = {}
        key = item.name if self._keyed else ""
        until = received + _REMEMBERED_SECONDS
        self._full[key] = (until, item.weight, moment, refusal)

    def _settle_there(
        self, item: RateItem, stamp: Stamp, time_of_item: int | None, patience_ms: int
    ) -> Program[Decision]:
        place = yield from self._steps.place()
        if place.has_columns and self._algorithm.__class__ is SlidingWindowLog:
            allowed, moment, failing, now, moved = yield from self._steps.settle(
                self._rates,
                item.name,
                item.weight,
                stamp.token,
                now=time_of_item,
                slack=stamp.slack,
                patience=patience_ms,
            )
        elif stamp.flushes == self._flushes:
            return ADMITTED
        else:
            allowed, moment, failing, now, moved = True, None, 0, int(stamp), False
        if allowed and moment is not None and not moved:
            return ADMITTED
        self._full.pop(item.name if self._keyed else "", None)
        if allowed and moment is None:  # flushed, or so late that it was cleaned away
            item.timestamp = Unread(now) if time_of_item is None else time_of_item
            return (yield from self._judge_there(item, patience_ms, None, store=True, look=False))
        if not allowed:
            self.failing_rate, self._learnt = self._rates[failing - 1], (item.weight, moment)
            item.timestamp = now
            return Decision(self.failing_rate, moment - now)
        wait = max(0, moment - now)
        due = time.monotonic() + wait / 1000
        item.timestamp = Stamp.of(moment, stamp.token, due, 0, self._flushes)
        return Decision(wait_ms=wait)


def _is_closed(error: BaseException) -> bool:
    """Whether the caller has closed the pool, or not opened it."""
    return type(error).__name__ == "PoolClosed"


async def _ready(value: Any) -> Any:
    return value
