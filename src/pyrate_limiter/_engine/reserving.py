"""One call that waits at a bucket which other processes use too."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pyrate_limiter._engine.held import Held
from pyrate_limiter._engine.native import reservation_of
from pyrate_limiter._engine.steps import Park, Work
from pyrate_limiter._engine.wait_options import monotonic
from pyrate_limiter._engine.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.abstracts.reservation import Reservation

MOST_ITEMS = 100
"""Reservations that are asked for in one call."""

_LEAST_PAUSE_SECONDS = 0.01  # between two calls for reservations that cannot be had yet
_FRESH_SECONDS = 0.005  # how old units may be that were stored to be used at once


def held_by_queue(
    bucket: AbstractBucket,
    item: RateItem,
    decision: Decision,
    asked: float,
    owner: Waiter | None,
) -> Held:
    """What a bucket has stored for an item, as the wait queue keeps it; see `Held`."""
    reservation = reservation_of(item, decision)
    wait, now = -math.inf, monotonic()
    if reservation.wait_ms:
        wait = bucket.pause(reservation)
    return Held(reservation, now + wait, asked, now, owner)


class Reserving(Waiting):
    """A call that waits at a bucket that stores ahead.

    Where others use the bucket too, the front of the queue asks it for reservations: for itself and
    for those behind it, several in one call, not further ahead than the limiter looks. It asks for
    more when less than half of that is left. Whoever is at the front when a reservation is due uses
    it. A bucket that this process has for itself is tried again after each wait, until somebody
    reserves behind those who wait, and so for them.
    """

    __slots__ = ("_asked_at", "_used")

    def _brought(self, first: Decision | None) -> Held | None:
        self._used: list[Held] = []  # that it is about to use
        self._asked_at = self._began  # when the bucket was asked last
        if first is None or not first.allowed:
            return None
        return self._held(self._item, first, self._waiter)

    def _begin(self, first: Decision | None) -> None:
        super()._begin(first)
        if first is not None and not first.allowed:
            self._ask_later(first)

    def _stand(self, decision: Decision | None) -> Program[Decision]:
        if not self._acquisition.reserves(self._bucket):
            return (yield from super()._stand(decision))
        return (yield from self._by_reservations())

    def _otherwise(self) -> Program[Decision] | None:
        return self._by_reservations() if self._queue.held else None

    def _by_reservations(self) -> Program[Decision]:
        slept_for: object = None
        while True:
            if not self._waiter.is_first:
                refused = yield from self._reach_front()
                if refused is not None:
                    return refused
                slept_for = None
            if self._queue.trim():
                yield from self._give_back()
                continue
            step = self._next_step(slept_for)
            if step is not None:
                slept_for = None
                outcome = yield from step
                if outcome is not None:
                    return outcome
                continue
            slept_for = yield from self._sleep_for_more()
            if slept_for is self._terms:
                return (yield from self._last_look())

    def _next_step(self, slept_for: object) -> Program[Decision | None] | None:
        """What the front does now, if there is anything; answered by what the caller gets.

        ``slept_for`` is what it has slept for in full. It is taken at its word, for in tests time
        may stand still.
        """
        queue, now = self._queue, monotonic()
        held = queue.held[0] if queue.held else None
        if held is not None and (held.due <= now or held is slept_for):
            return self._use()
        wanted = self._wanted()
        if wanted and (queue.ask_at <= now or slept_for is queue):
            return self._ask(wanted)
        return None

    def _sleep_for_more(self) -> Program[object]:
        """Sleep until there is something to do; answered by what was slept for, if in full.

        That is a reservation that is due; the queue, which needs more of them; or the terms, if the
        caller's time is up.
        """
        queue, now, left = self._queue, monotonic(), self._terms.seconds_left()
        goal: object = queue
        due = queue.ask_at if self._wanted() else math.inf
        if queue.held and queue.held[0].due <= due:
            goal, due = queue.held[0], queue.held[0].due
        if left is not None and now + left < due:
            goal, due = self._terms, now + left
        queue.block()
        queue.due = due
        if self._terms.may_fit_by_now():
            queue.look_again()
            return None
        woken = yield Park(self._waiter, max(0.0, due - now))
        return None if woken else goal

    def _wanted(self) -> list[Waiter]:
        """Whom to ask for, from the front on: those that no reservation is there for."""
        queue = self._queue
        if queue.lacking <= 0:
            return []
        wanting = queue.wanting(MOST_ITEMS)
        wanted = list(takewhile(lambda waiter: waiter.stamped_by_bucket, wanting))
        return wanted or ([] if queue.held else [self._waiter])

    def _ask(self, wanted: list[Waiter]) -> Program[Decision | None]:
        """Ask for reservations; answered by what this call gets, if that is known by now."""
        acquisition, bucket, queue = self._acquisition, self._bucket, self._queue
        mine = wanted[0] is self._waiter
        items = yield from acquisition.items(bucket, wanted)
        max_wait_ms = max(waiter.terms.max_wait_ms() for waiter in wanted)
        max_wait_ms = min(max_wait_ms, acquisition.ahead_ms)
        queue.asking = True
        try:
            if len(items) == 1:
                terms = (self._terms, max_wait_ms)
                answer = yield from self._call(items, acquisition.ask, bucket, items[0], *terms)
                decisions = [answer]
            else:
                last = queue.held[-1].reservation.item.timestamp if queue.held else None
                decisions = yield from self._call(
                    items,
                    bucket.reserve_several,
                    items,
                    max_wait_ms,
                    self._terms.buffer_ms,
                    last if queue.is_mixed else None,
                    self._terms.limit_ms(),
                )
        finally:
            queue.stop_asking(self._waiter)
        first, last_said = decisions[0], decisions[-1]
        if mine and first.allowed and not first.wait_ms:
            self._hold(items[1:], decisions[1:], wanted[1:])
            self._plan(last_said)
            self._leave(queue.units_at_once())
            return first  # type: ignore[no-any-return]
        self._hold(items, decisions, wanted)
        self._plan(last_said)
        retry = first.retry_after_ms
        if not mine or first.allowed:
            return None
        max_wait = self._terms.max_wait_ms()
        if retry is None or max_wait == 0 or (self._terms.known and retry > max_wait):
            return first  # type: ignore[no-any-return]
        return None

    def _hold(
        self,
        items: Sequence[RateItem],
        decisions: Sequence[Decision],
        owners: Sequence[Waiter | None] = (),
    ) -> None:
        owners = owners or [None] * len(items)
        for item, decision, owner in zip(items, decisions, owners):
            if decision.allowed:
                self._queue.add(self._held(item, decision, owner))
            elif owner is not None:
                owner.held = None

    def _held(self, item: RateItem, decision: Decision, owner: Waiter | None) -> Held:
        return held_by_queue(self._bucket, item, decision, self._asked_at, owner)

    def _call(
        self, items: Sequence[RateItem], call: Callable[..., object], *args: object
    ) -> Program[Any]:
        self._asked_at = monotonic()
        return super()._call(items, call, *args)

    def _may_use(self, held: Held, now: float) -> bool:
        """Whether what was stored to be used at once may still be.

        However long an answer takes: those who were in the queue when it was asked for have waited
        for it. For others the units are as old as the question.
        """
        since = held.made if self._began <= held.asked else held.asked
        return now - since <= _FRESH_SECONDS

    def _plan(self, last: Decision) -> None:
        """When to ask for more."""
        if not last.allowed:
            self._ask_later(last)
        elif self._queue.held:
            half = self._acquisition.ahead_ms / 2000
            self._queue.ask_at = self._queue.held[-1].due - half

    def _ask_later(self, refusal: Decision) -> None:
        ahead = self._acquisition.ahead_ms
        seconds = ((refusal.retry_after_ms or 0) - ahead / 2) / 1000
        self._queue.ask_at = monotonic() + max(_LEAST_PAUSE_SECONDS, seconds)

    def _use(self) -> Program[Decision | None]:
        """Go, with a reservation that is due; None where that has to be tried again.

        Reservations are confirmed at the true time before anybody goes. One that has to wait on,
        because others before it came late, stays with the queue, as do those that become free.
        """
        queue, now = self._queue, monotonic()
        soonest = queue.held[0]
        if soonest.waits:
            yield from self._confirm(queue.take_due(max(now, soonest.due), MOST_ITEMS))
            return None
        held = queue.take(self._waiter)
        if held is None:
            return None
        self._used = [held]
        if not self._may_use(held, now):
            yield from self._give_back()
            self._waiter.name = held.reservation.item.name  # that it takes the place of
            queue.ask_at = now  # there is room by now
            return None
        self._used = []
        self._leave(queue.units_at_once())
        return held.reservation

    def _confirm(self, due: list[Held]) -> Program[None]:
        bucket, queue = self._bucket, self._queue
        reservations = [held.reservation for held in due]
        items = [reservation.item for reservation in reservations]
        max_wait_ms = max(waiter.terms.max_wait_ms() for waiter in queue.front(len(due)))
        max_wait_ms = min(max_wait_ms, self._acquisition.ahead_ms)
        self._used, queue.asking = due, True
        try:
            now = yield from self._acquisition.time(bucket, items[0])
            if len(items) == 1:
                one = self._call(items, bucket.confirm, reservations[0], now, max_wait_ms)
                decisions = [(yield from one)]
            else:
                several = bucket.confirm_several, reservations, now, max_wait_ms
                decisions = yield from self._call(items, *several)
        finally:
            queue.stop_asking(self._waiter)
        self._used = []
        for held in due[len(decisions) :]:
            queue.add(held)
        self._hold(items, decisions, [held.owner for held in due])

    def _last_look(self) -> Program[Decision]:
        """At the end of the caller's time: take what is free now, and is nobody's."""
        bucket, before = self._bucket, self._item
        self._terms.blocking = False
        item = yield from self._acquisition.item(bucket, before.name, before.weight)
        ask = self._acquisition.ask
        decision: Decision = yield from self._call([item], ask, bucket, item, self._terms, 0)
        return decision

    def _keeps_something(self) -> bool:
        return bool(self._asked or self._used or self._queue.keeps_something)

    def _left_over(self) -> Iterator[Reservation]:
        if not self._keeps_something():
            return
        used, self._used = self._used, []
        items, self._asked = self._asked, ()
        step = self._step if items else None
        late = isinstance(step, Work) and step.afterwards(
            lambda result: self._undo_late(items, result, used)
        )
        if not late:
            yield from self._undo(items, step.result if isinstance(step, Work) else None, used)

    def _undo_late(self, items: Sequence[RateItem], result: object, used: Sequence[Held]) -> None:
        left = list(self._undo(items, result, used))
        if left:
            self._bucket.cancel_several(left)

    def _undo(
        self, items: Sequence[RateItem], result: Any, used: Sequence[Held]
    ) -> Iterator[Reservation]:
        """Leave to those who wait what the bucket has stored; what they do not need is yielded."""
        queue = self._queue
        if result:
            decisions = result if isinstance(result, list) else [result]
            self._hold(items, decisions, [held.owner for held in used])
            used = used[len(decisions) :]
        elif used and not used[0].waits:
            yield used[0].reservation
            used = ()
        for held in used:
            queue.add(held)
        yield from queue.surplus()
        queue.wake_front()
