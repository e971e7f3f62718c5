"""Items, and where they go: what is asked of a factory, within the caller's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.worker_call import OutOfTime
from pyrate_limiter._engine.first_try import NOT_ASKED
from pyrate_limiter._engine.steps import Acquire, Within
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.errors import InvalidBucket, WrongType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.first_try import Begun
    from pyrate_limiter._engine.wait_options import Terms
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.bucket import BucketFactory


class Routing:
    """Stamps items, and finds their buckets.

    Args:
        factory: does both; a user's own may be slow, or have to be awaited.
        asking: held while a user's factory is asked for a bucket.
    """

    __slots__ = ("_asking", "factory", "stamps_by_bucket")

    def __init__(self, factory: BucketFactory, asking: Any) -> None:
        self.factory = factory
        # Whether items are stamped with the time of their bucket, and nothing else is done to them.
        self.stamps_by_bucket = factory._stamps_by_bucket()
        self._asking = asking

    def route(
        self, name: str, weight: int, terms: Terms, begun: Begun | None = None
    ) -> Program[tuple[RateItem, AbstractBucket]]:
        """An item, and the bucket that the factory has for it."""
        wrapped = self.factory.wrap_item(name, weight) if begun is None else begun.wrapped
        item = _checked((yield self._bounded(wrapped, terms)))
        found = NOT_ASKED if begun is None else begun.found
        if found is NOT_ASKED:
            found = yield from self._found(item, terms)
        bucket = yield self._bounded(found, terms)
        if not isinstance(bucket, AbstractBucket):
            where = f"Invalid bucket: item: {name}: what the factory's get returns"
            raise InvalidBucket(bucket, where)
        return item, bucket

    def _found(self, item: RateItem, terms: Terms) -> Program[Any]:
        """What the factory's `get` returns. A user's is called by one thread at a time."""
        if self.factory._gets_at_once():
            return self.factory.get(item)
        if not (yield Acquire(self._asking, terms.lock_seconds(), contended=True)):
            raise OutOfTime
        try:
            return self.factory.get(item)
        finally:
            self._asking.release()

    def item(
        self, bucket: AbstractBucket, name: str, weight: int, terms: Terms | None = None
    ) -> Program[RateItem]:
        """An item of this moment, on the clock that this limiter's items are stamped by."""
        if self.stamps_by_bucket:
            now = yield self._bounded(bucket.stamp(), terms)
            return RateItem(name, now, weight)
        return _checked((yield self._bounded(self.factory.wrap_item(name, weight), terms)))

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
    def _bounded(value: Any, terms: Terms | None) -> Any:
        """The value; or, if it has to be awaited, a step that takes no longer than the caller."""
        if terms is None or terms.at_once or not is_awaitable(value):
            return value
        seconds = terms.seconds_left()
        return value if seconds is None else Within(value, seconds)


def _checked(item: RateItem | None) -> RateItem:
    if item is None:
        raise WrongType("what the factory's wrap_item returns", item, "a RateItem")
    return item
