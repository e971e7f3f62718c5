"""Where the wait queue of a bucket is found."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._engine.wait_queue import WaitQueue
from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._engine.held import Held
    from pyrate_limiter._engine.waiter import Waiter
    from pyrate_limiter.abstracts.bucket import AbstractBucket


def unwrapped(bucket: AbstractBucket) -> AbstractBucket:
    """The bucket inside its `BucketAsyncWrapper`, if it has one."""
    while type(bucket) is BucketAsyncWrapper:
        bucket = bucket.bucket
    return bucket


def queue_at(bucket: AbstractBucket) -> WaitQueue | None:
    """The queue of a bucket (without its wrapper), if anybody stands in it."""
    reference = waited_for.get(id(bucket))
    queue: WaitQueue | None = None if reference is None else reference()
    if queue is not None:
        front = queue.first
        while front is not None and front.loop is not None and front.loop.is_closed():
            queue.leave(front)
            front = queue.first
        if front is None:
            return None
    return queue


def join(bucket: AbstractBucket, waiter: Waiter, held: Held | None = None) -> WaitQueue:
    """Stand in the queue of a bucket (without its wrapper), see `WaitQueue.join`."""
    key = id(bucket)
    queue_at(bucket)  # forgets those whose event loop is closed
    while True:
        reference = waited_for.get(key)
        queue: WaitQueue | None = None if reference is None else reference()
        if queue is not None and queue.join(waiter, held):
            return queue
        # It was dissolved; or the call that was about to say so was struck down.
        if reference is not None and waited_for.get(key) is reference:
            waited_for.pop(key, None)
        queue = WaitQueue(bucket)
        waited_for.setdefault(key, weakref.ref(queue, _forget(key)))


def _forget(key: int) -> Callable[[object], None]:
    def forget(reference: object) -> None:
        if waited_for.get(key) is reference:
            del waited_for[key]

    return forget
