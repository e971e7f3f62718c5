"""The first try at a bucket, without the program of an acquisition: most calls need no more."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from pyrate_limiter._core.awaitables import is_awaitable
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._engine.native import puts_as_known, puts_at_once, unwrapped
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.errors import BucketRetired

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyrate_limiter._engine.locks import LockLike
    from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory

    Found = AbstractBucket | Awaitable[AbstractBucket]

_AT_ONCE = (False,)


class _NotAsked(Enum):
    """In place of a bucket; nothing that a user's factory may return."""

    NOT_ASKED = 0


NOT_ASKED: Final = _NotAsked.NOT_ASKED


class Begun:
    """A first try that the rest of its acquisition goes on from. It is false where it was refused.

    Args:
        began: when, on the clock of callers' deadlines.
        wrapped: what the factory's `wrap_item` has returned.
        found: what its `get` has, if it was asked.
        refused: whether the bucket was asked too, and has refused.
    """

    __slots__ = ("began", "found", "refused", "wrapped")

    def __init__(
        self,
        began: float,
        wrapped: RateItem | Awaitable[RateItem],
        found: Found | _NotAsked = NOT_ASKED,
        *,
        refused: bool = False,
    ) -> None:
        self.began = began
        self.wrapped = wrapped
        self.found = found
        self.refused = refused

    def __bool__(self) -> bool:
        return not self.refused


def bind_sweeper(factory: BucketFactory) -> None:
    """Let async buckets be swept by the running event loop."""
    leaker = getattr(factory, "_leaker", None)
    if leaker is not None and leaker.async_buckets:
        leaker.bind()


class FirstTry:
    """Asks a factory for the bucket of an item, and the bucket for its answer.

    Args:
        factory: any; what it has to have awaited is left to the program.
        lock: held while its `get` is called; where that takes waiting, so is that.
        awaited: whether the answer is awaited in any case. Then a `BucketAsyncWrapper` need not be.
    """

    __slots__ = ("_awaited", "_factory", "_lock")

    def __init__(self, factory: BucketFactory, lock: LockLike, *, awaited: bool = False) -> None:
        self._factory = factory
        self._lock = lock
        self._awaited = awaited

    def take(self, name: str, weight: int) -> bool | Begun | None:
        """True where it is admitted at once, else what was done so far.

        None: the bucket was dropped by its factory after we got it, and all begins anew.
        """
        began, factory = time.monotonic(), self._factory
        item: Any = factory.wrap_item(name, weight)  # `__class__` is the quickest to ask for
        if item.__class__ is not RateItem:
            return Begun(began, item)
        found = self._found(item)
        return Begun(began, item) if found is NOT_ASKED else self._at(began, item, found)

    def _found(self, item: RateItem) -> Found | _NotAsked:
        """What `get` returns; `NOT_ASKED` where another thread is asking."""
        taken: list[bool] = []
        try:
            # Nothing comes between the lock and the note of it: that is not a call of Python.
            taken[:] = map(self._lock.acquire, _AT_ONCE)
            return self._factory.get(item) if taken[0] else NOT_ASKED
        finally:
            if taken and taken[0]:
                self._lock.release()

    def _at(self, began: float, item: RateItem, found: Found) -> bool | Begun | None:
        bucket: Any = found  # to ask whether it is a bucket takes as long as all the rest
        if not (puts_as_known(bucket.__class__) and bucket.puts_at_once):
            bucket = self._inside(bucket)
        if bucket is None or (waited_for and id(bucket) in waited_for):
            return Begun(began, item, found)
        try:
            admitted = bucket.put(item)
        except BucketRetired:
            return None
        return True if admitted is True else Begun(began, item, found, refused=admitted is False)

    def _inside(self, found: AbstractBucket) -> AbstractBucket | None:
        """The bucket in memory that is inside a `BucketAsyncWrapper`; None where there is none."""
        bucket = unwrapped(found) if self._awaited else found
        if bucket is found or not puts_at_once(bucket):
            return None
        bind_sweeper(self._factory)
        return bucket

    async def go_on(self, begun: Begun) -> bool | Begun | None:
        """`take` with what it has begun, and what has to be awaited for it."""
        began, item = begun.began, begun.wrapped
        if type(item) is not RateItem and is_awaitable(item):
            item = await item
        if type(item) is not RateItem:
            return Begun(began, item)
        found = self._found(item) if begun.found is NOT_ASKED else begun.found
        if found is NOT_ASKED:
            return Begun(began, item)
        return self._at(began, item, await found if is_awaitable(found) else found)
