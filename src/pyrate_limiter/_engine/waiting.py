"""One call that waits: what it does in the wait queue, until it is admitted or its time is up."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.driver import Sleep
from pyrate_limiter._core.validation import Unread, pad_ms
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.native import cancel_made, made_by, reservation_of, told
from pyrate_limiter._engine.queues import join
from pyrate_limiter._engine.steps import ON_LOOP, Park, Work, to_end
from pyrate_limiter._engine.wait_options import ENDLESS_MS, monotonic
from pyrate_limiter._engine.waiter import Waiter
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, StateAlgorithm
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.acquisition import Acquisition
    from pyrate_limiter._engine.held import Held
    from pyrate_limiter._engine.wait_options import Terms
    from pyrate_limiter._engine.wait_queue import WaitQueue
    from pyrate_limiter.abstracts.bucket import AbstractBucket


class Waiting:
    """A call that waits at a bucket which this process has for itself, or which is a user's own.

    Whoever is at the front of the queue tries. If that is refused it sleeps, and tries again.

    Args:
        acquisition: what stamps its items, and asks the bucket.
        bucket: where it waits; without its `BucketAsyncWrapper`.
        item: its item, as of the first attempt.
        terms: how long it waits.
        ticket: its place in the order of arrival.
        native: whether the bucket stores ahead by itself.
    """

    __slots__ = (
        "_acquisition",
        "_asked",
        "_began",
        "_bucket",
        "_item",
        "_native",
        "_planned",
        "_queue",
        "_slept_ms",
        "_step",
        "_terms",
        "_waiter",
    )

    def __init__(
        self,
        acquisition: Acquisition,
        bucket: AbstractBucket,
        item: RateItem,
        terms: Terms,
        ticket: int,
        *,
        native: bool,
    ) -> None:
        self._acquisition = acquisition
        self._bucket = bucket
        self._item = item
        self._terms = terms
        self._native = native
        self._began = monotonic()
        by_bucket = native and acquisition.stamps_by_bucket
        self._waiter = Waiter(item.name, item.weight, terms, ticket, stamped_by_bucket=by_bucket)
        self._queue: WaitQueue
        # When the last full sleep at the front was to end, on the items' clock, and its length.
        self._planned = 0
        self._slept_ms = 0
        # What the bucket is doing for this call, and for which items.
        self._step: Any = None
        self._asked: Sequence[RateItem] = ()

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
        except GeneratorExit:
            self._leave()
            left = list(self._left_over())
            if left:
                discard(self._bucket.cancel_several(left))
            raise
        except BaseException as error:
            self._leave()
            yield from self._give_back()
            if isinstance(error, OutOfTime):
                return Decision(self._bucket.rates[0], 0)
            raise
        self._leave()
        # Whoever is admitted goes at once: the next in the queue gives back what is too much.
        if self._keeps_something() and not (decision.allowed and self._queue.first is not None):
            yield from self._give_back()
        if not self._terms.known or not decision.allowed:
            return decision
        outlook = decision
        if decision.remaining is None:
            look = yield from self._acquisition.item(self._bucket, self._item.name, 0)
            outlook = yield self._acquisition.work(self._bucket, None, self._bucket.check, look)
        return told(decision, round((monotonic() - self._began) * 1000), outlook)

    @property
    def _is_plain(self) -> bool:
        """Whether `put` is all that is needed to admit: the bucket answers at once, yes or no."""
        bucket = self._bucket
        return not (self._terms.known or bucket.blocks or bucket.is_async)

    @property
    def _waits_for_ever(self) -> bool:
        """Whether the call waits for ever, and does not want to know how long that is."""
        return not self._terms.known and self._terms.max_wait_ms() == ENDLESS_MS

    def _keeps_something(self) -> bool:
        return bool(self._asked)

    def _brought(self, first: Decision | None) -> Held | None:
        """What the bucket has reserved already, by what it has said first."""
        del first
        return None

    def _begin(self, first: Decision | None) -> None:
        if first is not None:
            self._queue.block()

    def _otherwise(self) -> Program[Decision] | None:
        """How it goes on where something is reserved for those who wait; None is as before."""
        return None

    def _stand(self, decision: Decision | None) -> Program[Decision]:  # noqa: C901 - each wait goes through it
        slept = False
        while True:
            waiter = self._waiter
            if not waiter.is_first and self._waits_for_ever:  # there is nothing to be looked after
                while waiter.queue is not None and not waiter.is_first:
                    yield Park(waiter, None)
                decision, slept = None, False
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
                # Whoever has slept wakes all that fit; those need only wake the next.
                self._leave((decision.remaining or 0) if slept else 0)
                return decision
            pause = self._pause_ms(decision)
            if pause is None:
                return decision
            slept = yield from self._sleep(pause)
            self._slept_ms = pause if slept else 0
            decision = None

    def _try_now(self) -> Decision | None:
        """`_try` with as little as possible around it, for those who are woken because they fit."""
        waiter, bucket = self._waiter, self._bucket
        if self._slept_ms or not waiter.stamped_by_bucket or not self._is_plain:
            return None
        now = bucket.stamp()
        if not isinstance(now, int):
            discard(now)
            return None
        return ADMITTED if bucket.put(RateItem(waiter.name, now, waiter.weight)) else None

    def _try(self) -> Program[Decision]:
        """Ask whether it fits now. Whoever has slept as long as told is taken at its word."""
        acquisition, bucket, before = self._acquisition, self._bucket, self._item
        name, weight = before.name, before.weight
        item = self._item = yield from acquisition.item(bucket, name, weight, self._terms)
        slept, self._slept_ms = self._slept_ms, 0
        if not self._native:
            if item.timestamp >= before.timestamp:
                item.timestamp = max(item.timestamp, before.timestamp + slept)
            self._queue.asking = True
            try:
                return (yield from acquisition.attempt(bucket, item, self._terms, self._queue))
            finally:
                self._queue.stop_asking(self._waiter)
        lag = self._planned - item.timestamp if slept else 0
        if lag <= slept // 2:
            ask = self._call([item], bucket.reserve, item, 0, self._terms.buffer_ms)
            return (yield from ask)  # type: ignore[no-any-return] # it is typed by what is called
        # The clock stands still, as in tests.
        decision: Decision = yield from self._call([item], bucket.reserve, item, lag, 0)
        if decision.wait_ms:
            now = yield from acquisition.time(bucket, item)
            reservation = reservation_of(item, decision)
            yield from self._call([item], bucket.confirm, reservation, now, lag)
        return decision

    def _pause_ms(self, decision: Decision) -> int | None:
        """How long to sleep before the next try; None to give up."""
        terms, wait = self._terms, decision.retry_after_ms
        max_wait = terms.max_wait_ms()
        if wait is None or max_wait == 0 or (wait > max_wait and terms.known):
            return None
        if wait > max_wait:
            terms.blocking = False  # the last try is at the end of the caller's time
            return max_wait
        rate = decision.failing_rate
        pad = terms.buffer_ms
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
        queue = self._queue
        queue.block()
        queue.due = end = monotonic() + seconds
        if self._terms.may_fit_by_now():
            return False
        if self._terms.replaced:
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
        waiter, terms = self._waiter, self._terms
        if terms.known and terms.blocking:
            refusal = yield from self._behind_others()
            if refusal.retry_after_ms is None or refusal.retry_after_ms > terms.max_wait_ms():
                return refusal
        in_time = True
        while not waiter.is_first:
            if waiter.queue is None:  # overtaken, while its event loop stood still
                self._queue = join(self._bucket, waiter)
                continue
            left = terms.seconds_left()
            if not in_time or left == 0 or (not terms.blocking and self._queue.blocked):
                return (yield from self._behind_others())
            if self._queue.awaits:  # perhaps by a task of this very thread
                yield ON_LOOP
            in_time = yield Park(waiter, left)
        return None

    def _behind_others(self) -> Program[Decision]:
        before = self._queue.units_before(self._waiter)
        return (yield from self._acquisition.behind(self._bucket, before, self._item, self._terms))

    def _leave(self, room: int = 0) -> None:
        if self._waiter.queue is not None:
            self._queue.leave(self._waiter, room)

    def _call(
        self, items: Sequence[RateItem], call: Callable[..., object], *args: object
    ) -> Program[Any]:
        """Have the bucket do something for these items, which is undone if nobody learns of it."""
        self._asked = items
        self._step = self._acquisition.work(self._bucket, self._terms, call, *args)
        answer = yield self._step
        self._asked = ()
        return answer

    def _left_over(self) -> Iterator[Reservation]:
        """What is stored for this call, and nobody needs."""
        items, self._asked = self._asked, ()
        step, bucket = self._step, self._bucket
        if items and isinstance(step, Work):
            late = step.afterwards(lambda decision: cancel_made(bucket, decision))
            yield from [] if late else made_by(step.result)

    def _give_back(self) -> Program[None]:
        left = list(self._left_over())
        if left:
            # What cannot be cancelled counts until it expires.
            with suppress(Exception):
                cancel = self._bucket.cancel_several
                yield to_end(self._acquisition.work(self._bucket, None, cancel, left))
