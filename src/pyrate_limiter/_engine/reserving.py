"""One call that waits at a bucket which can store the future."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._engine.steps import Park, Work, to_end
from pyrate_limiter._engine.wait_options import monotonic
from pyrate_limiter._engine.waiter import Held
from pyrate_limiter._engine.waiting import Waiting
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.algorithm import Decision

T = TypeVar("T")

MOST_ITEMS = 100
"""Reservations that are asked for in one call."""

_LEAST_PAUSE_SECONDS = 0.01  # between two calls for reservations that cannot be had yet
_FRESH_SECONDS = 0.005  # how old units may be that were stored to be used at once


class Reserving(Waiting):
    """A call that waits at a bucket that stores ahead.

    Where others use the bucket too, the front of the queue asks it for reservations: for itself and
    for those behind it, several in one call, not further ahead than the limiter looks. It asks for
    more when less than half of that is left. Whoever is at the front when a reservation is due uses
    it. A bucket that this process has for itself is tried again after each wait, until somebody
    reserves behind those who wait, and so for them.
    """

    __slots__ = ("_asked", "_asked_at", "_step", "_used")

    _stores_ahead = True

    def _brought(self, first: Decision | None) -> Held | None:
        # What the bucket is doing for this call, for which items, and since when.
        self._step: object = None
        self._asked: Sequence[RateItem] = ()
        self._asked_at = self._began
        self._used: list[Held] = []  # that it is about to use
        if first is None or not first.allowed:
            return None
        return self._held(self._item, first, self._waiter)

    def _begin(self, first: Decision | None) -> None:
        super()._begin(first)
        if first is not None and not first.allowed:
            self._ask_later(first)

    # Trying again after each wait -----------------------------------------------------------------

    def _stand(self, decision: Decision | None) -> Program[Decision]:
        if self._options.replaced or not self._access.reserves(self._bucket):
            return super()._stand(decision)
        return self._by_reservations()

    def _otherwise(self) -> Program[Decision] | None:
        reserved = self._queue.held and not self._options.replaced
        return self._by_reservations() if reserved else None

    def _try_now(self) -> Decision | None:
        waiter, bucket = self._waiter, self._bucket
        if self._slept_ms or not waiter.stamped_by_bucket or self._options.known:
            return None
        if bucket.blocks or bucket.is_async:
            return None
        now = bucket.stamp()
        if not isinstance(now, int):
            discard(now)
            return None
        return ADMITTED if bucket.put(RateItem(waiter.name, now, waiter.weight)) else None

    def _try(self) -> Program[Decision]:
        bucket = self._bucket
        self._item, slept = yield from self._stamped_anew()
        item = self._item
        lag = self._planned - item.timestamp if slept else 0
        if lag <= slept // 2:
            return (yield from self._call([item], bucket.reserve, item, 0, self._options.buffer_ms))
        # The clock stands still, as in tests: the sleep counts all the same.
        ahead_ms = max(lag, slept)  # the bucket may have read its clock later than the item's stamp
        decision = yield from self._call([item], bucket.reserve, item, ahead_ms, 0)
        if isinstance(decision, Reservation) and decision.wait_ms:
            now = yield from self._access.time(bucket, item)
            yield from self._call([item], bucket.confirm, decision, now, ahead_ms)
        return decision

    # Waiting for reservations ---------------------------------------------------------------------

    def _by_reservations(self) -> Program[Decision]:
        slept_for: object = None  # in full: then it is due, even if the clock stands still
        while True:
            if not self._waiter.is_first:
                refused = yield from self._reach_front()
                if refused is not None:
                    return refused
                slept_for = None
            if self._queue.trim():
                yield from self._give_back()
                continue
            goal, due = self._next_goal()
            if goal is not slept_for and due > monotonic():
                woken = yield from self._sleep_until(due)
                slept_for = None if woken else goal
                continue
            slept_for = None
            if goal is self._options:
                return (yield from self._last_look())
            outcome = yield from self._ask() if goal is self._queue else self._use()
            if outcome is not None:
                return outcome

    def _next_goal(self) -> tuple[object, float]:
        """What the front does next, and when.

        That is to use a reservation that is due; to ask for more, for the queue; or to give up, as
        the options of the caller want it. If there is nothing, it is the call itself.
        """
        queue, now, left = self._queue, monotonic(), self._options.seconds_left()
        goal: object = self
        due = math.inf
        if self._wanted():
            goal, due = queue, max(now, queue.ask_at)
        if queue.held and queue.held[0].due <= due:
            goal, due = queue.held[0], queue.held[0].due
        if left is not None and now + left < due:
            goal, due = self._options, now + left
        return goal, due

    def _sleep_until(self, due: float) -> Program[bool]:
        """Sleep until that moment; answered by whether it was woken before."""
        queue = self._queue
        queue.block()
        queue.due = due
        if self._options.may_fit_by_now():
            queue.look_again()
            return True
        woken: bool = yield Park(self._waiter, max(0.0, due - monotonic()))
        return woken

    def _wanted(self) -> list[Waiter]:
        """The waiters to ask for, from the front on: those without a reservation."""
        queue = self._queue
        if queue.lacking <= 0:
            return []
        wanting = queue.wanting(MOST_ITEMS)
        wanted = list(takewhile(lambda waiter: waiter.stamped_by_bucket, wanting))
        return wanted or ([] if queue.held else [self._waiter])

    def _ask(self) -> Program[Decision | None]:
        """Ask for reservations; answered by what this call gets, if that is known by now."""
        access, bucket, queue, options = self._access, self._bucket, self._queue, self._options
        wanted = self._wanted()
        mine = wanted[0] is self._waiter
        items = yield from access.items(bucket, wanted)
        max_wait_ms = self._reach_ms(wanted)
        queue.asking = True
        try:
            if len(items) == 1:
                call = self._call(items, access.ask, bucket, items[0], options, max_wait_ms)
                decisions = [(yield from call)]
            else:
                last = queue.last_moment if queue.is_mixed else None
                args = (max_wait_ms, options.buffer_ms, last, options.limit_ms())
                decisions = yield from self._call(items, bucket.reserve_several, items, *args)
        finally:
            queue.stop_asking(self._waiter)
        first, last_said = decisions[0], decisions[-1]
        goes = mine and first.allowed and not first.wait_ms
        used = 1 if goes else 0
        self._hold(items[used:], decisions[used:], wanted[used:])
        if not last_said.allowed:
            self._ask_later(last_said)
        elif queue.held:  # ask when less than half of the look-ahead is left
            queue.ask_at = queue.held[-1].due - access.ahead_ms / 2000
        if goes:
            self._leave(queue.units_at_once())
            return first
        return first if mine and not first.allowed and options.gives_up(first) else None

    def _reach_ms(self, waiters: Sequence[Waiter]) -> int:
        """How far ahead to reserve for these waiters."""
        longest = max(waiter.options.max_wait_ms() for waiter in waiters)
        return min(longest, self._access.ahead_ms)

    def _hold(
        self,
        items: Sequence[RateItem],
        decisions: Sequence[Decision],
        owners: Sequence[Waiter | None],
    ) -> None:
        for item, decision, owner in zip(items, decisions, owners):
            if decision.allowed:
                self._queue.add(self._held(item, decision, owner))
            elif owner is not None:
                owner.held = None

    def _held(self, item: RateItem, decision: Decision, owner: Waiter | None) -> Held:
        return Held.of(self._bucket, item, decision, self._asked_at, owner)

    def _may_use(self, held: Held, now: float) -> bool:
        """Whether what was stored to be used at once may still be.

        However long an answer takes: those who were in the queue when it was asked for have waited
        for it. For others the units are as old as the question.
        """
        since = held.made if self._began <= held.asked else held.asked
        return now - since <= _FRESH_SECONDS

    def _ask_later(self, refusal: Decision) -> None:
        ahead = self._access.ahead_ms
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
        max_wait_ms = self._reach_ms(queue.front(len(due)))
        self._used, queue.asking = due, True
        try:
            now = yield from self._access.time(bucket, items[0])
            if len(items) == 1:
                call = self._call(items, bucket.confirm, reservations[0], now, max_wait_ms)
                decisions = [(yield from call)]
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
        """The last try, at the end of the caller's time: take what is free now."""
        access, bucket, before = self._access, self._bucket, self._item
        self._options.blocking = False
        item = yield from access.item(bucket, before.name, before.weight)
        return (yield from self._call([item], access.ask, bucket, item, self._options, 0))

    # Giving back what is stored for a call that fails ---------------------------------------------

    def _call(
        self, items: Sequence[RateItem], call: Callable[..., T | Awaitable[T]], *args: object
    ) -> Program[T]:
        """Call the bucket for these items; see `_left_over` for a call that is interrupted."""
        self._asked, self._asked_at = items, monotonic()
        self._step = self._access.work(self._bucket, self._options, call, *args)
        answer: T = yield self._step
        self._asked = ()
        return answer

    def _keeps_something(self) -> bool:
        return bool(self._asked or self._used or self._queue.keeps_something)

    def _give_back(self, *, closed: bool = False) -> Program[None]:
        left = self._left_over() if self._keeps_something() else []
        if left and closed:
            discard(self._bucket.cancel_several(left))
        elif left:
            # What cannot be cancelled counts until it expires.
            with suppress(Exception):
                cancel = self._bucket.cancel_several
                yield to_end(self._access.work(self._bucket, None, cancel, left))

    def _left_over(self) -> list[Reservation]:
        """The units that are stored for this call or its queue, and that no waiter can use."""
        used, self._used = self._used, []
        items, self._asked = self._asked, ()
        step = self._step if items else None
        if not isinstance(step, Work):
            return self._unneeded(items, None, used)

        def undo_late(result: Decision | list[Decision]) -> None:
            left = self._unneeded(items, result, used)
            if left:
                self._bucket.cancel_several(left)

        late = step.afterwards(undo_late)
        return [] if late else self._unneeded(items, step.result, used)

    def _unneeded(
        self,
        items: Sequence[RateItem],
        result: Decision | list[Decision] | None,
        used: Sequence[Held],
    ) -> list[Reservation]:
        """Hold what the bucket has stored for the queue; what no waiter can use is returned."""
        queue, unneeded = self._queue, []
        if result:
            decisions = result if isinstance(result, list) else [result]
            owners = [held.owner for held in used] or [None] * len(items)
            self._hold(items, decisions, owners)
            used = used[len(decisions) :]
        elif used and not used[0].waits:
            unneeded = [used[0].reservation]
            used = ()
        for held in used:
            queue.add(held)
        unneeded += queue.surplus()
        queue.wake_front()
        return unneeded
