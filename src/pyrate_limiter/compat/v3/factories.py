"""The factories of 3.x: each bucket goes with a clock."""

# mypy: disable-error-code="override"
# The methods have the signatures of 3.x, of which today's know more.

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter import limiter as current

if TYPE_CHECKING:
    from pyrate_limiter import AbstractBucket, AbstractClock

    B = TypeVar("B", bound=AbstractBucket)

__all__ = ["BucketFactory", "SingleBucketFactory"]


class BucketFactory(current.BucketFactory):
    """Routes each item to its bucket; see `pyrate_limiter.BucketFactory`."""

    def create(
        self, clock: AbstractClock, bucket_class: type[B], *args: object, **kwargs: object
    ) -> B:
        """Build a bucket, give it a clock, and schedule its leak."""
        bucket = bucket_class(*args, **kwargs)
        self.schedule_leak(bucket, clock)
        return bucket


class SingleBucketFactory(BucketFactory, current.SingleBucketFactory):
    """Routes every item to one bucket, which tells the time by ``clock``."""

    clock: AbstractClock

    def __init__(self, bucket: AbstractBucket, clock: AbstractClock) -> None:
        current.SingleBucketFactory.__init__(self, bucket, clock)
