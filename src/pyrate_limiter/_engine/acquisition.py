"""An acquisition from its first step to its last, written once for both drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.driver import Sleep
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.first_try import Begun, FirstTry
from pyrate_limiter._engine.looking import outlook_behind
from pyrate_limiter._engine.native import (
    asks_in_turn,
    cancel_made,
    made_by,
    put_and_wait,
    reservation_of,
    stamped,
    stores_ahead,
    takes_limit,
    told,
)
from pyrate_limiter._engine.queues import queue_at, unwrapped
from pyrate_limiter._engine.reserving import Reserving
from pyrate_limiter._engine.routing import Routing
from pyrate_limiter._engine.steps import ON_LOOP, Acquire, Work, to_end
from pyrate_limiter._engine.waiter import tickets
from pyrate_limiter._engine.waiting import Waiting
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.wait_options import Terms
    from pyrate_limiter._engine.wait_queue import WaitQueue
    from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory

UNANSWERED = Decision(Rate(1, 1), 0)
"""For a caller whose time is up before the factory has named a bucket."""


class Acquisition(Routing):
    """What all acquisitions of one limiter share.

    Args:
        factory: finds the bucket of an item.
        lock: held while a user's own bucket is asked.
        asking: held while a user's own factory is asked for a bucket.
        ahead_ms: how far ahead the front of a wait queue reserves; 0 is not at all.
        only: the bucket of all items, if there is just one.
    """

    __slots__ = ("_first_try", "_lock", "_only", "ahead_ms")

    def __init__(
        self,
        factory: BucketFactory,
        lock: Any,
        asking: object,
        ahead_ms: int,
        only: AbstractBucket | None = None,
    ) -> None:
        super().__init__(factory, asking)
        self._lock = lock
        self.ahead_ms = ahead_ms
        self._first_try = FirstTry(factory, asking, awaited=True)
        self._only = only if only is not None and stores_ahead(only) else None

    def acquire(
        self, name: str, weight: int, terms: Terms, begun: Begun | None = None
    ) -> Program[Decision]:
        """Find the item's bucket, and admit it there."""
        try:
            while True:
                item, bucket = yield from self.route(name, weight, terms, begun)
                begun = None
                try:
                    return (yield from self.at_bucket(bucket, item, terms))
                except BucketRetired:  # dropped by its factory after we got it
                    continue
        except OutOfTime:
            return UNANSWERED

    def start(
        self, name: str, weight: int, terms: Terms, begun: bool | Begun | None
    ) -> Decision | Program[Decision]:
        """`acquire`, which asks at once where its bucket is called in this thread.

        Most calls that get here end with that one, and are spared the program.
        """
        if isinstance(begun, Begun):
            return self.acquire(name, weight, terms.since(begun.began), begun)
        bucket = self._only
        item = None if bucket is None else stamped(bucket, name, weight)
        if bucket is None or item is None:
            return self.acquire(name, weight, terms)
        if not bucket.blocks or id(bucket) in waited_for:
            return self.at_bucket(bucket, item, terms)
        ticket = next(tickets)
        return self._started(bucket, item, self.ask(bucket, item, terms), ticket, terms)

    async def start_async(
        self, name: str, weight: int, terms: Terms, begun: bool | Begun | None
    ) -> Decision | Program[Decision]:
        """`start` where the answer is awaited."""
        if isinstance(begun, Begun) and not (begun.refused or terms.bounds_steps):
            begun = await self._first_try.go_on(begun)
            if begun is True:
                return ADMITTED
        if isinstance(begun, Begun):
            return self.acquire(name, weight, terms.since(begun.began), begun)
        bucket = self._only
        item = None if bucket is None else stamped(bucket, name, weight)
        if bucket is None or item is None:
            return self.acquire(name, weight, terms)
        if not bucket.is_async or not bucket.answers_in_order or id(bucket) in waited_for:
            return self.at_bucket(bucket, item, terms)
        ticket = next(tickets)
        verdict = self.ask(bucket, item, terms)
        decision = await verdict if is_awaitable(verdict) else verdict
        return self._started(bucket, item, decision, ticket, terms)

    def _started(
        self, bucket: AbstractBucket, item: RateItem, first: Decision, ticket: int, terms: Terms
    ) -> Decision | Program[Decision]:
        if not first.wait_ms and (first.failing_rate is None or not terms.blocking):
            return first
        return self.at_bucket(bucket, item, terms, first, ticket)

    def at_bucket(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        terms: Terms,
        first: Decision | None = None,
        ticket: int | None = None,
    ) -> Program[Decision]:
        """Admit the item in its bucket, waiting as long as the terms allow.

        ``first`` is what the bucket has already said.
        """
        on_loop = terms.on_loop
        if bucket.is_async:
            yield ON_LOOP
            on_loop = True
        bucket = unwrapped(bucket)
        if ticket is None:
            ticket = next(tickets)
        if first is None:
            queue = queue_at(bucket)
            blocked = queue is not None and queue.blocked and not terms.replaced
            if queue is not None and blocked and item.weight and terms.max_wait_ms() == 0:
                return (yield from self.behind(bucket, queue.units, item, terms))
            if asks_in_turn(bucket, item.weight, terms, blocked=blocked, on_loop=on_loop):
                return (yield from self._wait(bucket, item, terms, ticket, None))
            first = yield from self.first(bucket, item, terms)
        if first.allowed and first.wait_ms and terms.replaced:
            return (yield from self.confirm(bucket, reservation_of(item, first), terms))
        if first.allowed and not first.wait_ms:
            return first
        retry, max_wait = first.retry_after_ms, terms.max_wait_ms()
        if not first.allowed and (
            retry is None or max_wait == 0 or (terms.known and retry > max_wait)
        ):
            return first
        return (yield from self._wait(bucket, item, terms, ticket, first))

    def behind(
        self, bucket: AbstractBucket, before: int, item: RateItem, terms: Terms
    ) -> Program[Decision]:
        """A refusal for somebody who stands behind ``before`` units of others."""
        if not terms.known:
            return Decision(bucket.rates[0], 0)
        return (yield from outlook_behind(self, bucket, before, item))

    def reserves(self, bucket: AbstractBucket) -> bool:
        """Whether waiters at a bucket that stores ahead reserve: others use it too."""
        return self.ahead_ms > 0 and (bucket.blocks or bucket.is_async is True)

    def ask(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        terms: Terms,
        max_wait_ms: int | None = None,
    ) -> Any:
        """What the bucket makes of the item, or an awaitable of it.

        Args:
            bucket: one that stores ahead.
            item: the item.
            terms: the caller's.
            max_wait_ms: how far ahead it may be stored; None is as far as this limiter looks.
        """
        if max_wait_ms is None:
            max_wait_ms = terms.max_wait_ms() if self.ahead_ms else 0
            if not terms.replaced:
                ahead_ms = self.ahead_ms if self.reserves(bucket) else 0
                max_wait_ms = min(max_wait_ms, ahead_ms)
        takes_time = bucket.blocks or bucket.is_async
        if not (takes_time and takes_limit(bucket.__class__)):
            return bucket.reserve(item, max_wait_ms, terms.buffer_ms)
        reserve: Callable[..., object] = bucket.reserve
        more = {"limit_ms": terms.limit_ms(), "brief": not terms.known}
        return reserve(item, max_wait_ms, terms.buffer_ms, **more)

    def work(
        self,
        bucket: AbstractBucket,
        terms: Terms | None,
        call: Callable[..., object],
        *args: object,
    ) -> Any:
        """A step that calls a bucket, within the caller's time where ``terms`` are given."""
        if not bucket.blocks:
            return call(*args)
        seconds = None if terms is None or terms.at_once else terms.seconds_left()
        return Work(seconds, bucket, call, *args)

    def confirm(
        self, bucket: AbstractBucket, reservation: Reservation, terms: Terms
    ) -> Program[Decision]:
        """Sleep until a reservation is due, and go at the true time: where sleeping is replaced."""
        item, waited, step = reservation.item, 0, None
        now = item.timestamp
        decision: Decision = reservation
        try:
            while isinstance(decision, Reservation) and decision.wait_ms:
                reservation = decision
                waited += decision.wait_ms
                step = None
                yield Sleep(bucket.pause(decision))
                now = yield from self.time(bucket, item)
                step = self.work(bucket, None, bucket.confirm, decision, now, terms.max_wait_ms())
                decision = yield step
        except GeneratorExit:
            discard(bucket.cancel(reservation))
            raise
        except BaseException:
            if not _left_to_thread(step, lambda confirmed: cancel_made(bucket, confirmed)):
                yield to_end(self.work(bucket, None, bucket.cancel, reservation))
            raise
        if terms.known and decision.allowed:
            look = RateItem(item.name, now, 0)
            fresh: Decision = yield self.work(bucket, None, bucket.check, look)
            return told(decision, waited, fresh)
        return decision

    def attempt(
        self, bucket: AbstractBucket, item: RateItem, terms: Terms, queue: WaitQueue
    ) -> Program[Decision]:
        """One try at a user's own bucket, by whoever is at the front of its queue."""
        shared = bucket.limiter_lock()
        if shared is not None and not (yield Acquire(shared, terms.lock_seconds())):
            return Decision(bucket.rates[0], 0)
        try:
            if not (yield Acquire(self._lock, terms.lock_seconds())):
                return Decision(bucket.rates[0], 0)
            try:
                answer = None if bucket.blocks else put_and_wait(bucket, item)
            finally:
                self._lock.release()
            if answer is None:
                answer = yield self.work(bucket, terms, self._put_locked, bucket, item)
            admitted, waiting = answer
            if is_awaitable(admitted):
                queue.awaits = True
                admitted = yield self._bounded(admitted, terms)
                if not admitted:
                    waiting = bucket.waiting(item)
            waiting = yield self._bounded(waiting, terms)
        finally:
            if shared is not None:
                shared.release()
        if admitted:
            return ADMITTED
        failing_rate = bucket.failing_rate or bucket.rates[0]
        return Decision(failing_rate, None if waiting < 0 else waiting)

    def _put_locked(self, bucket: AbstractBucket, item: RateItem) -> tuple[Any, Any]:
        with self._lock:
            return put_and_wait(bucket, item)

    def first(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        terms: Terms,
        max_wait_ms: int | None = None,
    ) -> Program[Decision]:
        """The first try at a bucket that stores ahead, at which nobody waits; see `ask`."""
        step = self.work(bucket, terms, self.ask, bucket, item, terms, max_wait_ms)
        decision: Decision = yield from self.told(bucket, step)
        return decision

    def told(self, bucket: AbstractBucket, step: object) -> Program[Any]:
        """What a bucket answers; what it has stored is cancelled if the caller is not told."""
        try:
            return (yield step)
        except BaseException:
            # Cancelled while a worker thread was at it: what it stores is nobody's.
            late = _left_to_thread(step, lambda answer: cancel_made(bucket, answer))
            made = [] if late or not isinstance(step, Work) else made_by(step.result)
            if made:
                yield to_end(self.work(bucket, None, bucket.cancel_several, made))
            raise

    def _wait(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        terms: Terms,
        ticket: int,
        first: Decision | None,
    ) -> Program[Decision]:
        """Stand in the bucket's queue; ``first`` is what the bucket has said already."""
        native = stores_ahead(bucket)
        kind = Reserving if native and not terms.replaced else Waiting
        return kind(self, bucket, item, terms, ticket, native=native).run(first)


def _left_to_thread(step: object, use: Callable[[object], object]) -> bool:
    """Leave the result of a step to the thread that is still at it, if one is."""
    return isinstance(step, Work) and step.afterwards(use)
