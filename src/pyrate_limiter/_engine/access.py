"""How a limiter finds its buckets and calls them, within the time of its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.first_try import NOT_ASKED
from pyrate_limiter._engine.native import takes_limit, unwrapped
from pyrate_limiter._engine.steps import ON_LOOP, Acquire, Within, Work, to_end
from pyrate_limiter._engine.wait_queue import queue_at
from pyrate_limiter.abstracts.algorithm import Decision, SlidingWindowLog, StateAlgorithm
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.errors import BucketRetired, InvalidBucket, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.first_try import Begun
    from pyrate_limiter._engine.locks import LockLike
    from pyrate_limiter._engine.steps import Step
    from pyrate_limiter._engine.wait_options import WaitOptions
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.bucket import BucketFactory
    from pyrate_limiter.abstracts.rate import Rate

T = TypeVar("T")


class BucketAccess:
    """Stamps items, finds their buckets and calls those, for all acquisitions of one limiter.

    Args:
        factory: stamps and finds; a user's own may be slow, or have to be awaited.
        lock: held while a user's own bucket is asked.
        asking: held while a user's own factory is asked for a bucket.
        ahead_ms: how far ahead the front of a wait queue reserves; 0 is not at all.
    """

    __slots__ = ("_asking", "ahead_ms", "factory", "lock", "stamps_by_bucket")

    def __init__(
        self, factory: BucketFactory, lock: LockLike, asking: LockLike, ahead_ms: int
    ) -> None:
        self.factory = factory
        # Whether items are stamped with the time of their bucket, and nothing else is done to them.
        self.stamps_by_bucket = factory._stamps_by_bucket()
        self.lock = lock
        self._asking = asking
        self.ahead_ms = ahead_ms

    def route(
        self, name: str, weight: int, options: WaitOptions, begun: Begun | None = None
    ) -> Program[tuple[RateItem, AbstractBucket]]:
        """An item, and the bucket that the factory has for it."""
        wrapped = self.factory.wrap_item(name, weight) if begun is None else begun.wrapped
        item = _checked((yield self.bounded(wrapped, options)))
        found = NOT_ASKED if begun is None else begun.found
        if found is NOT_ASKED:
            found = yield from self._found(item, options)
        bucket = yield self.bounded(found, options)
        if not isinstance(bucket, AbstractBucket):
            where = f"Invalid bucket: item: {name}: what the factory's get returns"
            raise InvalidBucket(bucket, where)
        return item, bucket

    def _found(
        self, item: RateItem, options: WaitOptions
    ) -> Program[AbstractBucket | Awaitable[AbstractBucket]]:
        """What the factory's `get` returns. A user's is called by one thread at a time."""
        if self.factory._gets_at_once():
            return self.factory.get(item)
        if not (yield Acquire(self._asking, options.lock_seconds(), contended=True)):
            raise OutOfTime
        try:
            return self.factory.get(item)
        finally:
            self._asking.release()

    def visit(
        self,
        name: str,
        weight: int,
        options: WaitOptions,
        use: Callable[[RateItem, AbstractBucket], Program[T]],
        *,
        looks: bool = False,
    ) -> Program[T]:
        """The result of ``use`` for an item and its bucket (without a `BucketAsyncWrapper`).

        For one who only ``looks``, a keyed factory makes no bucket that lasts.
        """
        keyed = getattr(self.factory, "look", None) if looks and self.stamps_by_bucket else None
        while True:
            if keyed is None:
                item, bucket = yield from self.route(name, weight, options)
            else:
                bucket = keyed(name)
                item = yield from self.item(bucket, name, weight)
            try:
                if bucket.is_async:
                    yield ON_LOOP
                return (yield from use(item, unwrapped(bucket)))
            except BucketRetired:  # dropped by its factory after we got it
                continue

    def item(
        self, bucket: AbstractBucket, name: str, weight: int, options: WaitOptions | None = None
    ) -> Program[RateItem]:
        """An item of this moment, on the clock that this limiter's items are stamped by."""
        if self.stamps_by_bucket:
            now: int = yield self.bounded(bucket.stamp(), options)
            return RateItem(name, now, weight)
        return _checked((yield self.bounded(self.factory.wrap_item(name, weight), options)))

    def items(self, bucket: AbstractBucket, waiters: Sequence[Waiter]) -> Program[list[RateItem]]:
        """An item for each waiter."""
        items: list[RateItem] = []
        for waiter in waiters:
            item = yield from self.item(bucket, waiter.name, waiter.weight)
            items.append(item)
        return items

    def time(self, bucket: AbstractBucket, item: RateItem) -> Program[int]:
        """What that clock says now."""
        return (yield from self.item(bucket, item.name, item.weight)).timestamp

    @staticmethod
    def bounded(value: T | Awaitable[T], options: WaitOptions | None) -> Step[T]:
        """The value; or, if it has to be awaited, a step that takes no longer than the caller."""
        if options is None or options.at_once or not is_awaitable(value):
            return value
        seconds = options.seconds_left()
        return value if seconds is None else Within(value, seconds)

    def look(self, name: str, weight: int, options: WaitOptions) -> Program[Decision]:
        """What the item's bucket would say, without taking anything."""

        def use(item: RateItem, bucket: AbstractBucket) -> Program[Decision]:
            queue = queue_at(bucket)
            if queue is not None and weight:
                return (yield from self.behind(bucket, queue.units, item, options))
            decision: Decision = yield self.work(bucket, None, bucket.check, item)
            return decision

        return self.visit(name, weight, options, use, looks=True)

    def reserves(self, bucket: AbstractBucket) -> bool:
        """Whether waiters at a bucket that stores ahead reserve: others use it too."""
        return self.ahead_ms > 0 and (bucket.blocks or bucket.is_async is True)

    def behind(
        self, bucket: AbstractBucket, before: int, item: RateItem, options: WaitOptions
    ) -> Program[Decision]:
        """A refusal for somebody who stands behind ``before`` units of others.

        One who wants to know is told when the item fits at the earliest. ``retry_after_ms`` is a
        lower bound: others may still come from other processes. In every interval no more than
        ``limit`` units pass. So where more are wanted than the bucket ever admits at once, the
        bucket is asked about what is left of them when whole intervals are taken off.
        """
        rates, algorithm = bucket.rates, bucket._algorithm
        if not options.known:
            return Decision(rates[0], 0)
        most = min(algorithm.max_weight(rate) for rate in rates)
        units = before + item.weight
        asked = units
        if item.weight <= most < units:
            asked = (units - 1) % most + 1 if isinstance(algorithm, SlidingWindowLog) else most
        look = yield from self.item(bucket, item.name, asked)
        said: Decision = yield self.work(bucket, None, bucket.check, look)
        failing_rate = said.failing_rate or rates[0]
        if item.weight > most:
            return Decision(failing_rate, None, 0, said.remaining, said.reset_after_ms)
        further = max(_further_ms(algorithm, rate, units - asked) for rate in rates)
        retry = max(1, (said.retry_after_ms or 0) + further)
        return Decision(failing_rate, retry, 0, 0, said.reset_after_ms)

    def ask(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        options: WaitOptions,
        max_wait_ms: int | None = None,
    ) -> Decision | Awaitable[Decision]:
        """The bucket's decision on the item.

        Args:
            bucket: one that stores ahead.
            item: the item.
            options: the caller's.
            max_wait_ms: how far ahead it may be stored; None is as far as this limiter looks.
        """
        if max_wait_ms is None:
            ahead_ms = self.ahead_ms if self.reserves(bucket) and not options.replaced else 0
            max_wait_ms = min(options.max_wait_ms(), ahead_ms)
        if not takes_limit(bucket.__class__):
            return bucket.reserve(item, max_wait_ms, options.buffer_ms)
        reserve: Callable[..., Decision | Awaitable[Decision]] = bucket.reserve
        more = {"limit_ms": options.limit_ms(), "brief": not options.known}
        return reserve(item, max_wait_ms, options.buffer_ms, **more)

    def first(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        options: WaitOptions,
        max_wait_ms: int | None = None,
    ) -> Program[Decision]:
        """The first try at a bucket that stores ahead, at which nobody waits; see `ask`."""
        return self.told(bucket, options, self.ask, bucket, item, options, max_wait_ms)

    def work(
        self,
        bucket: AbstractBucket,
        options: WaitOptions | None,
        call: Callable[..., T],
        *args: object,
    ) -> Step[T]:
        """A step that calls a bucket, within the caller's time where ``options`` are given."""
        if not bucket.blocks:
            return call(*args)
        seconds = None if options is None or options.at_once else options.seconds_left()
        return Work(seconds, bucket, call, *args)

    def told(
        self,
        bucket: AbstractBucket,
        options: WaitOptions,
        call: Callable[..., T | Awaitable[T]],
        *args: object,
    ) -> Program[T]:
        """A bucket's answer. What it has stored is cancelled if the caller is interrupted."""
        step = self.work(bucket, options, call, *args)
        try:
            answer: T = yield step
        except BaseException:
            # Cancelled while a worker thread makes the call: nobody will use what that stores.
            if isinstance(step, Work) and not step.afterwards(lambda it: _cancel_made(bucket, it)):
                made = _made_by(step.result)
                if made:
                    yield to_end(self.work(bucket, None, bucket.cancel_several, made))
            raise
        return answer


def _checked(item: RateItem | None) -> RateItem:
    if item is None:
        raise WrongType("what the factory's wrap_item returns", item, "a RateItem")
    return item


def _further_ms(algorithm: object, rate: Rate, units: int) -> int:
    """How much later so many more units fit, at least."""
    if isinstance(algorithm, SlidingWindowLog):
        return units // rate.limit * (rate.interval + 1)
    flow = units * rate.interval // rate.limit
    # A log of another kind may admit one limit more across the edge of a window.
    return flow if isinstance(algorithm, StateAlgorithm) else max(0, flow - rate.interval)


def _made_by(answer: object) -> list[Reservation]:
    """The reservations in what a bucket has answered, if it has."""
    answers = answer if isinstance(answer, list) else [answer]
    return [each for each in answers if isinstance(each, Reservation)]


def _cancel_made(bucket: AbstractBucket, answer: object) -> list[bool] | Awaitable[list[bool]]:
    """Cancel what was stored for a caller that has gone."""
    made = _made_by(answer)
    return bucket.cancel_several(made) if made else []
