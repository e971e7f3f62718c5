"""An acquisition from its first step to its last, written once for both drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.access import BucketAccess
from pyrate_limiter._engine.factories import only_bucket
from pyrate_limiter._engine.first_try import Begun, FirstTry
from pyrate_limiter._engine.native import stores_ahead, unwrapped
from pyrate_limiter._engine.reserving import Reserving
from pyrate_limiter._engine.steps import ON_LOOP
from pyrate_limiter._engine.wait_queue import queue_at
from pyrate_limiter._engine.waiter import tickets
from pyrate_limiter._engine.waiting import Waiting
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.locks import LockLike
    from pyrate_limiter._engine.wait_options import WaitOptions
    from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory

UNANSWERED = Decision(Rate(1, 1), 0)
"""For a caller whose time is up before the factory has named a bucket."""


class Acquisition(BucketAccess):
    """All acquisitions of one limiter; see `BucketAccess` for what it is given."""

    __slots__ = ("_first_try", "_only")

    def __init__(
        self, factory: BucketFactory, lock: LockLike, asking: LockLike, ahead_ms: int
    ) -> None:
        super().__init__(factory, lock, asking, ahead_ms)
        self._first_try = FirstTry(factory, asking, awaited=True)
        only = only_bucket(factory)
        self._only = only if only is not None and stores_ahead(only) else None

    def acquire(
        self, name: str, weight: int, options: WaitOptions, begun: Begun | None = None
    ) -> Program[Decision]:
        """Find the item's bucket, and admit it there."""
        try:
            while True:
                item, bucket = yield from self.route(name, weight, options, begun)
                begun = None
                try:
                    return (yield from self.at_bucket(bucket, item, options))
                except BucketRetired:  # dropped by its factory after we got it
                    continue
        except OutOfTime:
            return UNANSWERED

    def start(
        self, name: str, weight: int, options: WaitOptions, begun: bool | Begun | None
    ) -> Decision | Program[Decision]:
        """`acquire`; or its decision, where one call of the bucket in this thread gives it.

        Most acquisitions end with that call, and are spared the program.
        """
        if isinstance(begun, Begun):
            return self.acquire(name, weight, options.since(begun.began), begun)
        bucket, item = self._only, self._stamped(name, weight)
        if bucket is None or item is None:
            return self.acquire(name, weight, options)
        if bucket.blocks and id(bucket) not in waited_for:
            ticket = next(tickets)
            first: Decision = self.ask(bucket, item, options)  # type: ignore[assignment] # what blocks is sync
            return self._started(bucket, item, first, ticket, options)
        return self.at_bucket(bucket, item, options)

    async def start_async(
        self, name: str, weight: int, options: WaitOptions, begun: bool | Begun | None
    ) -> Decision | Program[Decision]:
        """`start` for asyncio: one awaited call of the bucket may give the decision."""
        if isinstance(begun, Begun) and not (begun.refused or options.bounds_steps):
            begun = await self._first_try.go_on(begun)
            if begun is True:
                return ADMITTED
        if isinstance(begun, Begun):
            return self.acquire(name, weight, options.since(begun.began), begun)
        bucket, item = self._only, self._stamped(name, weight)
        if bucket is None or item is None:
            return self.acquire(name, weight, options)
        if not bucket.is_async or not bucket.answers_in_order or id(bucket) in waited_for:
            return self.at_bucket(bucket, item, options)
        ticket, first = next(tickets), self.ask(bucket, item, options)
        if not isinstance(first, Decision):
            first = await first
        return self._started(bucket, item, first, ticket, options)

    def _stamped(self, name: str, weight: int) -> RateItem | None:
        """An item for the only bucket; None if there is none, or its time has to be awaited."""
        now = None if self._only is None else self._only.stamp()
        if isinstance(now, int):
            return RateItem(name, now, weight)
        discard(now)
        return None

    def _started(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        first: Decision,
        ticket: int,
        options: WaitOptions,
    ) -> Decision | Program[Decision]:
        if not first.wait_ms and (first.failing_rate is None or not options.blocking):
            return first
        return self.at_bucket(bucket, item, options, first, ticket)

    def at_bucket(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        options: WaitOptions,
        first: Decision | None = None,
        ticket: int | None = None,
    ) -> Program[Decision]:
        """Admit the item in its bucket, waiting as long as the options allow.

        ``first`` is what the bucket has already said.
        """
        on_loop = options.on_loop
        if bucket.is_async:
            yield ON_LOOP
            on_loop = True
        bucket = unwrapped(bucket)
        if ticket is None:
            ticket = next(tickets)
        native = stores_ahead(bucket)
        if first is None:
            queue = queue_at(bucket)
            blocked = queue is not None and queue.blocked and not options.replaced
            if queue is not None and blocked and item.weight and options.max_wait_ms() == 0:
                return (yield from self.behind(bucket, queue.units, item, options))
            if native and not _asks_in_turn(bucket, item.weight, options, blocked, on_loop):
                first = yield from self.first(bucket, item, options)
        if first is not None and not first.wait_ms and (first or options.gives_up(first)):
            return first
        kind = Reserving if native else Waiting
        return (yield from kind(self, bucket, item, options, ticket).run(first))


def _asks_in_turn(
    bucket: AbstractBucket, weight: int, options: WaitOptions, blocked: bool, on_loop: bool
) -> bool:
    """Whether the first try too is made from the front of the queue, in the order of arrival."""
    if weight != 1 and (
        not weight or any(weight > bucket._algorithm.max_weight(rate) for rate in bucket.rates)
    ):
        return False  # whether it fits does not depend on others: it never does, or always
    if blocked:
        return True
    if options.replaced or options.max_wait_ms() == 0:
        return False
    return not bucket.answers_in_order if bucket.is_async else bucket.blocks and on_loop
