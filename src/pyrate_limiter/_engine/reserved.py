"""Moments that are reserved for callers who come back by themselves."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from pyrate_limiter._core.validation import check_weight
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.acquisition import UNANSWERED
from pyrate_limiter._engine.answers import RunsPrograms
from pyrate_limiter._engine.native import stores_ahead
from pyrate_limiter._engine.reserving import MOST_ITEMS
from pyrate_limiter._engine.steps import ON_LOOP, to_end
from pyrate_limiter._engine.wait_options import check_seconds, monotonic
from pyrate_limiter._engine.wait_queue import queue_at
from pyrate_limiter._engine.waiter import Held, tickets
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.access import BucketAccess
    from pyrate_limiter._engine.acquisition import Acquisition
    from pyrate_limiter._engine.wait_options import WaitOptions
    from pyrate_limiter._engine.wait_queue import WaitQueue
    from pyrate_limiter._engine.waiter import Waiter

_set = object.__setattr__


class Reserves(RunsPrograms):
    """The methods of `Limiter` that reserve."""

    def reserve(
        self, name: str = "pyrate", weight: int = 1, *, max_wait: float | None = None
    ) -> Reserved:
        """Reserve the moment at which a call may run, and do not sleep until then.

        It is for schedulers and task queues, which run the call later by themselves. Its place is
        behind those who wait already. The units are stored at once, and are taken to be used at
        that moment: if nobody uses them, they expire with their window.

        Args:
            name: what the call is for.
            weight: how many units it takes; 0 may run now.
            max_wait: how many seconds ahead the moment may be, from this call on; None is however
                far. 0 reserves only what is free now.

        Returns:
            When it may run, and how to cancel that; or a refusal, which is false and says why. A
            bucket of the user's own that has no `AbstractBucket.reserve` cannot store the future:
            it admits now, or refuses.

        Raises:
            InvalidWeight: the weight is negative.
            WrongType: ``max_wait`` is no number, or the weight no whole one.
            OutOfRange: ``max_wait`` is negative.
            AsyncBucketInSyncCode: the bucket, its clock or the factory is async.
        """
        return self._now(self._reserve(name, weight, max_wait, on_loop=False), "reserve")

    async def reserve_async(
        self, name: str = "pyrate", weight: int = 1, *, max_wait: float | None = None
    ) -> Reserved:
        """`reserve` for asyncio, over sync and async buckets."""
        return await self._run(self._reserve(name, weight, max_wait, on_loop=True))

    def _reserve(
        self, name: str, weight: int, max_wait: object, *, on_loop: bool
    ) -> Program[Reserved]:
        weight = check_weight(weight)
        expected = "a number of seconds, 0 or more, or None"
        seconds = -1 if max_wait is None else check_seconds("max_wait", max_wait, expected)
        options = self._options(True, seconds, known=True, on_loop=on_loop)

        def use(item: RateItem, bucket: AbstractBucket) -> Program[Reserved]:
            decision = yield from _ahead(self._acquisition, bucket, item, options)
            if isinstance(decision, Reservation) and decision.wait_ms:
                decision = yield from self._detached(bucket, decision)
            return Reserved(decision, item, self, bucket)

        try:
            return (yield from self._acquisition.visit(name, weight, options, use))
        except OutOfTime:
            return Reserved(UNANSWERED, RateItem(name, 0, weight), self)

    def _detached(self, bucket: AbstractBucket, reservation: Reservation) -> Program[Reservation]:
        """A reservation whose holder does not come back; cancelled if the bucket is not told."""
        if type(bucket).detach is AbstractBucket.detach:
            return reservation
        try:
            work = self._acquisition.work(bucket, None, bucket.detach, reservation)
            detached: Reservation = yield to_end(work)
        except BaseException:
            yield from self._cancel(bucket, reservation)
            raise
        return detached

    def _cancel(self, bucket: AbstractBucket, reservation: Reservation) -> Program[bool]:
        """Give units back, and let those have them who wait here."""
        work = self._acquisition.work(bucket, None, bucket.cancel, reservation)
        cancelled: bool = yield to_end(work)
        queue = queue_at(bucket)
        if cancelled and queue is not None:
            queue.look_again()
        return bool(cancelled)


class Reserved(Reservation):
    """What `Limiter.reserve` answers: true where a moment is reserved, false where not.

    It is a `Decision`, and has all that one has: a refusal says which rate is short, and after how
    many milliseconds it may be tried again. What comes out of a pickle can be looked at, and not be
    cancelled.
    """

    __module__ = "pyrate_limiter.limiter"

    __slots__ = ("_limiter", "_stored")

    _limiter: Reserves
    _stored: list[tuple[AbstractBucket, Reservation]]

    def __init__(
        self,
        decision: Decision,
        item: RateItem,
        limiter: Reserves,
        bucket: AbstractBucket | None = None,
    ) -> None:
        handle = getattr(decision, "handle", None)
        wait, remaining, reset = decision.wait_ms, decision.remaining, decision.reset_after_ms
        super().__init__(item, wait, handle, remaining, reset)
        _set(self, "failing_rate", decision.failing_rate)
        _set(self, "retry_after_ms", decision.retry_after_ms)
        _set(self, "_limiter", limiter)
        stored = bucket is not None and isinstance(decision, Reservation)
        _set(self, "_stored", [(bucket, decision)] if stored else [])

    def cancel(self) -> bool:
        """Give the units back: the call will not run. Those who wait here may have them.

        Returns:
            False if there is nothing to be given back: that was done already, nothing was stored,
            or it has expired.

        Raises:
            AsyncBucketInSyncCode: the bucket is async.
        """
        return self._limiter._now(self._give_back(), "cancel")

    async def cancel_async(self) -> bool:
        """`cancel` for asyncio, over sync and async buckets."""
        return await self._limiter._run(self._give_back())

    def _give_back(self) -> Program[bool]:
        if self._stored and self._stored[0][0].is_async:
            yield ON_LOOP
        try:
            stored = self._stored.pop()
        except IndexError:  # there is nothing, or another thread has done so meanwhile
            return False
        try:
            return (yield from self._limiter._cancel(*stored))
        except Exception:
            self._stored.append(stored)
            raise

    def __repr__(self) -> str:
        if self.failing_rate is None:
            return f"Reserved({self.item}, wait={self.wait})"
        refusal = Decision(self.failing_rate, self.retry_after_ms)
        return f"Reserved({self.item}, {refusal})"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        item, remaining, reset = self.item, self.remaining, self.reset_after_ms
        if self.failing_rate is None:
            return Reservation, (item, self.wait_ms, None, remaining, reset)
        return Decision, (self.failing_rate, self.retry_after_ms, 0, remaining, reset)


def _ahead(
    acquisition: Acquisition, bucket: AbstractBucket, item: RateItem, options: WaitOptions
) -> Program[Decision]:
    """The bucket's answer to somebody who stands behind those who wait at it."""
    if not stores_ahead(bucket):
        options.blocking, options.at_once = False, True
        decision = yield from acquisition.at_bucket(bucket, item, options)
        return ADMITTED if decision.allowed else decision
    queue = queue_at(bucket)
    if queue is None or not queue.blocked or not item.weight:
        return (yield from acquisition.first(bucket, item, options, options.max_wait_ms()))
    refusal = yield from acquisition.behind(bucket, queue.units, item, options)
    retry = refusal.retry_after_ms
    if retry is None or retry > options.max_wait_ms():
        return refusal
    return (yield from _reserve_behind(acquisition, bucket, queue, item, options, retry))


def _reserve_behind(
    access: BucketAccess,
    bucket: AbstractBucket,
    queue: WaitQueue,
    item: RateItem,
    options: WaitOptions,
    at_least_ms: int,
) -> Program[Decision]:
    """Reserve for an item, which fits behind those in the queue in so many ms at the earliest.

    For each of them a moment is reserved too, unless that is done already: so nobody passes them.
    """
    ticket, bounded = next(tickets), False
    while True:
        waiters = [each for each in queue.wanting(MOST_ITEMS) if each.ticket < ticket]
        askable = list(takewhile(_is_askable, waiters))
        bounded = bounded or len(askable) < len(waiters)
        items = yield from access.items(bucket, askable)
        last = queue.last_moment
        if len(askable) < MOST_ITEMS:
            items.append(item)
            if bounded:  # nobody but they themselves can stamp an item for those
                last = max(last or 0, item.timestamp + at_least_ms)
        asked = monotonic()
        more = options.max_wait_ms(), options.buffer_ms, last, options.limit_ms()
        answers = yield from access.told(bucket, options, bucket.reserve_several, items, *more)
        for waiter, its, decision in zip(askable, items, answers):
            if decision.allowed:
                queue.add(Held.of(bucket, its, decision, asked, waiter))
        unneeded = queue.surplus()
        queue.due = 0.0  # the front sleeps for something else
        queue.wake_front()
        if unneeded:
            yield to_end(access.work(bucket, None, bucket.cancel_several, unneeded))
        if not answers[-1].allowed:
            queue.look_again()  # nobody has to reserve further ahead than usual
        if len(answers) > len(askable) or not answers[-1].allowed:
            return answers[-1]


def _is_askable(waiter: Waiter) -> bool:
    return waiter.stamped_by_bucket and not waiter.options.replaced
