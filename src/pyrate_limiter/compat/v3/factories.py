"""The factories of 3.x: each bucket goes with a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter import BucketFactory as CurrentBucketFactory
from pyrate_limiter import SingleBucketFactory as CurrentSingleBucketFactory

if TYPE_CHECKING:
    from pyrate_limiter import AbstractBucket, AbstractClock

    B = TypeVar("B", bound=AbstractBucket)

__all__ = ["BucketFactory", "SingleBucketFactory"]


class BucketFactory(CurrentBucketFactory):
    """Routes each item to its bucket; see `pyrate_limiter.BucketFactory`."""

    def create(  # type: ignore[override] # as in 3.x
        self, clock: AbstractClock, bucket_class: type[B], *args: Any, **kwargs: Any
    ) -> B:
        """Build a bucket, give it a clock, and schedule its leak."""
        bucket = bucket_class(*args, **kwargs)
        self.schedule_leak(bucket, clock)
        return bucket


class SingleBucketFactory(BucketFactory, CurrentSingleBucketFactory):
    """Routes every item to one bucket, which tells the time by ``clock``."""

    clock: AbstractClock

    def __init__(self, bucket: AbstractBucket, clock: AbstractClock) -> None:
        CurrentSingleBucketFactory.__init__(self, bucket, clock)
