"""One call that waits: what it does in the wait queue, until it is admitted or its time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.driver import Sleep
from pyrate_limiter._core.validation import Unread, pad_ms
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.steps import ON_LOOP, Acquire, Park
from pyrate_limiter._engine.wait_options import monotonic
from pyrate_limiter._engine.wait_queue import join
from pyrate_limiter._engine.waiter import Waiter
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, StateAlgorithm
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.access import BucketAccess
    from pyrate_limiter._engine.wait_options import WaitOptions
    from pyrate_limiter._engine.wait_queue import WaitQueue
    from pyrate_limiter._engine.waiter import Held
    from pyrate_limiter.abstracts.bucket import AbstractBucket

    # What `put` says, and `waiting` if that is a refusal.
    Said = tuple[bool | Awaitable[bool], int | Awaitable[int]]


class Waiting:
    """A call that waits at a user's own bucket, which cannot store the future.

    Whoever is at the front of the queue tries. If that is refused it sleeps, and tries again.

    Args:
        access: stamps its items, and calls the bucket.
        bucket: where it waits; without its `BucketAsyncWrapper`.
        item: its item, as of the first attempt.
        options: how long it waits.
        ticket: its place in the order of arrival.
    """

    __slots__ = (
        "_access",
        "_began",
        "_bucket",
        "_item",
        "_options",
        "_planned",
        "_queue",
        "_slept_ms",
        "_waiter",
    )

    _stores_ahead = False
    """Whether the bucket can store the future; then one waiter may reserve for others too."""

    def __init__(
        self,
        access: BucketAccess,
        bucket: AbstractBucket,
        item: RateItem,
        options: WaitOptions,
        ticket: int,
    ) -> None:
        self._access = access
        self._bucket = bucket
        self._item = item
        self._options = options
        self._began = monotonic()
        by_bucket = self._stores_ahead and access.stamps_by_bucket
        self._waiter = Waiter(item.name, item.weight, options, ticket, stamped_by_bucket=by_bucket)
        self._queue: WaitQueue
        # When the last full sleep at the front was to end, on the items' clock, and its length.
        self._planned = 0
        self._slept_ms = 0

    def __del__(self) -> None:
        # An exception that comes from outside may strike between any two lines, and skip `run`'s.
        waiter: Waiter | None = getattr(self, "_waiter", None)
        if waiter is not None and waiter.queue is not None:
            waiter.queue.leave(waiter)

    def run(self, first: Decision | None) -> Program[Decision]:
        """Wait; ``first`` is what the bucket has said already, if anything."""
        self._queue = join(self._bucket, self._waiter, self._brought(first))
        try:
            self._begin(first)
            decision = yield from self._stand(first)
        except BaseException as error:
            self._leave()
            yield from self._give_back(closed=isinstance(error, GeneratorExit))
            if isinstance(error, OutOfTime):
                return Decision(self._bucket.rates[0], 0)
            raise
        self._leave()
        # An admitted caller goes at once: the next waiter gives back what is too much.
        if self._keeps_something() and not (decision.allowed and self._queue.first is not None):
            yield from self._give_back()
        if not self._options.known or not decision.allowed:
            return decision
        fresh = decision
        if decision.remaining is None:
            look = yield from self._access.item(self._bucket, self._item.name, 0)
            fresh = yield self._access.work(self._bucket, None, self._bucket.check, look)
        return _told(decision, round((monotonic() - self._began) * 1000), fresh)

    # What `Reserving` does otherwise --------------------------------------------------------------

    def _brought(self, first: Decision | None) -> Held | None:
        """The reservation in the bucket's first answer, if there is one."""
        del first
        return None

    def _begin(self, first: Decision | None) -> None:
        if first is not None:
            self._queue.block()

    def _otherwise(self) -> Program[Decision] | None:
        """What to do instead of trying, if reservations are held for the queue; else None."""
        return None

    def _try_now(self) -> Decision | None:
        """`_try` without a program, the shortest way; None where that does not admit it."""
        return None

    def _keeps_something(self) -> bool:
        """Whether units are stored for this call or its queue that may have to be cancelled."""
        return False

    def _give_back(self, *, closed: bool = False) -> Program[None]:
        """Cancel them. A program that is being ``closed`` can yield nothing."""
        del closed
        yield from ()

    # ----------------------------------------------------------------------------------------------

    def _stand(self, decision: Decision | None) -> Program[Decision]:
        slept = False
        while True:
            waiter = self._waiter
            if not waiter.is_first:
                refused = yield from self._reach_front()
                if refused is not None:
                    return refused
                decision, slept = None, False
            otherwise = self._otherwise()
            if otherwise is not None:
                return (yield from otherwise)
            if decision is None:
                decision = self._try_now()
            if decision is None:
                decision = yield from self._try()
            if decision.allowed:
                # A waiter that has slept wakes all that fit; each of those only wakes the next.
                self._leave((decision.remaining or 0) if slept else 0)
                return decision
            pause = self._pause_ms(decision)
            if pause is None:
                return decision
            slept = yield from self._sleep(pause)
            self._slept_ms = pause if slept else 0
            decision = None

    def _try(self) -> Program[Decision]:
        """Ask whether it fits now."""
        item, slept = yield from self._stamped_anew()
        if item.timestamp >= self._item.timestamp:  # its sleep counts even if the clock stood still
            item.timestamp = max(item.timestamp, self._item.timestamp + slept)
        self._item = item
        self._queue.asking = True
        try:
            return (yield from self._put(item))
        finally:
            self._queue.stop_asking(self._waiter)

    def _stamped_anew(self) -> Program[tuple[RateItem, int]]:
        """An item of this moment, and how many ms were slept in full just before."""
        name, weight = self._item.name, self._item.weight
        item = yield from self._access.item(self._bucket, name, weight, self._options)
        slept, self._slept_ms = self._slept_ms, 0
        return item, slept

    def _put(self, item: RateItem) -> Program[Decision]:
        access, bucket, options = self._access, self._bucket, self._options
        busy = Decision(bucket.rates[0], 0)
        shared = bucket.limiter_lock()
        if shared is not None and not (yield Acquire(shared, options.lock_seconds())):
            return busy
        try:
            if not (yield Acquire(access.lock, options.lock_seconds())):
                return busy
            try:
                said = None if bucket.blocks else self._ask_now(item)
            finally:
                access.lock.release()
            if said is None:
                said = yield access.work(bucket, options, self._ask_locked, item)
            admitted, waiting = said
            if is_awaitable(admitted):
                self._queue.awaits = True
                admitted = yield access.bounded(admitted, options)
                if not admitted:
                    waiting = bucket.waiting(item)
            wait_ms: int = yield access.bounded(waiting, options)
        finally:
            if shared is not None:
                shared.release()
        if admitted:
            return ADMITTED
        failing_rate = bucket.failing_rate or bucket.rates[0]
        return Decision(failing_rate, None if wait_ms < 0 else wait_ms)

    def _ask_now(self, item: RateItem) -> Said:
        """What the bucket says. What is async runs when it is awaited."""
        admitted = self._bucket.put(item)
        refused = not is_awaitable(admitted) and not admitted
        return admitted, self._bucket.waiting(item) if refused else 0

    def _ask_locked(self, item: RateItem) -> Said:
        self._access.lock.acquire()
        try:
            return self._ask_now(item)
        finally:
            self._access.lock.release()

    def _pause_ms(self, decision: Decision) -> int | None:
        """How long to sleep before the next try; None to give up."""
        options, wait = self._options, decision.retry_after_ms
        if wait is None or options.gives_up(decision):
            return None
        max_wait = options.max_wait_ms()
        if wait > max_wait:
            options.blocking = False  # the last try is at the end of the caller's time
            return max_wait
        rate = decision.failing_rate
        pad = options.buffer_ms
        if pad is None and rate is not None:
            one_unit = isinstance(self._bucket._algorithm, StateAlgorithm)
            pad = pad_ms(rate.interval // rate.limit if one_unit else rate.interval)
        return min(max_wait, max(1, wait + (pad or 0)))

    def _sleep(self, pause_ms: int) -> Program[bool]:
        """Sleep at the front; False if somebody who came earlier has taken that place."""
        self._planned = self._item.timestamp + pause_ms
        seconds = pause_ms / 1000
        if self._waiter.stamped_by_bucket:
            moment = RateItem("", Unread(self._planned), 0)
            seconds = self._bucket.pause(Reservation(moment, pause_ms))
        if not self._options.blocking:  # to the end of the caller's time, not of a millisecond
            seconds = max(seconds, self._options.seconds_left() or 0.0)
        queue = self._queue
        queue.block()
        queue.due = end = monotonic() + seconds
        if self._options.may_fit_by_now():
            return False
        if self._options.replaced:
            yield Sleep(seconds)
            return True
        while self._waiter.is_first:
            if not (yield Park(self._waiter, max(0.0, seconds))):
                return True
            if queue.due < end:  # a hold was released: it may fit now
                return False
            seconds = end - monotonic()
        return False

    def _reach_front(self) -> Program[Decision | None]:
        """Wait until it is at the front; answered by a refusal where it does not get there."""
        waiter, options = self._waiter, self._options
        if options.known and options.blocking:
            refusal = yield from self._behind_others()
            if options.gives_up(refusal):
                return refusal
        in_time = True
        while not waiter.is_first:
            if waiter.queue is None:  # overtaken, while its event loop stood still
                self._queue = join(self._bucket, waiter)
                continue
            left = options.seconds_left()
            if not in_time or left == 0 or (not options.blocking and self._queue.blocked):
                return (yield from self._behind_others())
            if self._queue.awaits:  # perhaps by a task of this very thread
                yield ON_LOOP
            in_time = yield Park(waiter, left)
        return None

    def _behind_others(self) -> Program[Decision]:
        before = self._queue.units_before(self._waiter)
        return self._access.behind(self._bucket, before, self._item, self._options)

    def _leave(self, room: int = 0) -> None:
        if self._waiter.queue is not None:
            self._queue.leave(self._waiter, room)


def _told(decision: Decision, waited_ms: int, fresh: Decision) -> Decision:
    """The answer to a caller that has waited: what remains is as of now."""
    remaining, reset = fresh.remaining, fresh.reset_after_ms
    if isinstance(decision, Reservation):
        return Reservation(decision.item, waited_ms, decision.handle, remaining, reset)
    return Decision(None, None, waited_ms, remaining, reset)
