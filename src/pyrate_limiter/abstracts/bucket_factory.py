"""What users subclass: a factory that routes items to buckets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter._core.leaker import Leaker
from pyrate_limiter._core.rate_list import shared_rates
from pyrate_limiter._core.validation import check_whole
from pyrate_limiter.abstracts.abstract_bucket import AbstractBucket
from pyrate_limiter.errors import InvalidBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.rate import RateItem

B = TypeVar("B", bound=AbstractBucket)


class BucketFactory(ABC):
    """Routes each item to its bucket.

    A subclass needs `wrap_item` and `get`, either of them sync or async. It need not call
    ``super().__init__()``.
    """

    __module__ = "pyrate_limiter.abstracts.bucket"

    _leaker: Leaker[AbstractBucket] | None = None
    _leak_interval: int = 10_000

    @property
    def leak_interval(self) -> int:
        """Milliseconds between two sweeps of the scheduled buckets."""
        return self._leak_interval if self._leaker is None else self._leaker.leak_interval

    @leak_interval.setter
    def leak_interval(self, value: int) -> None:
        value = check_whole("leak_interval", value, least=0, unit="milliseconds")
        self._leak_interval = value
        if self._leaker is not None:
            self._leaker.leak_interval = value
            self._leaker.start()

    @abstractmethod
    def wrap_item(self, name: str, weight: int = 1) -> RateItem | Awaitable[RateItem]:
        """Stamp a new item with the current time of the bucket that it will go to."""

    @abstractmethod
    def get(self, item: RateItem) -> AbstractBucket | Awaitable[AbstractBucket]:
        """The bucket of this item."""

    def _stamps_by_bucket(self) -> bool:
        """Whether `wrap_item` stamps with the time of the item's bucket, and does nothing else."""
        return False

    def _gets_at_once(self) -> bool:
        """Whether `get` may be called by several threads at the same time."""
        return False

    # What a class takes cannot be told from it: a subclass may take something else.
    def create(self, bucket_class: type[B], *args: Any, **kwargs: Any) -> B:
        """Build a bucket from the arguments of its class, and schedule its leak.

        A clock may stand before the class, as in 3.x; see `schedule_leak`.
        """
        if not isinstance(bucket_class, type):
            clock, bucket_class, *args = bucket_class, *args
            bucket = bucket_class(*args, **kwargs)
            self.schedule_leak(bucket, clock)
            return bucket
        schedules = getattr(self.schedule_leak, "__func__", None)
        is_plain = len(args) == 1 and not kwargs and schedules is BucketFactory.schedule_leak
        make: Callable[..., B] | None = getattr(bucket_class, "member", None)
        if is_plain and make is not None and "member" in vars(bucket_class):
            # There may be one for each of many names: such a bucket takes little memory.
            leaker = self._its_leaker()
            bucket = make(shared_rates(args[0]), leaker.lock)
            leaker.sweep_new(bucket)
            return bucket
        bucket = bucket_class(*args, **kwargs)
        self.schedule_leak(bucket)
        return bucket

    def _its_leaker(self) -> Leaker[AbstractBucket]:
        if self._leaker is None:
            self._leaker = Leaker(self._leak_interval)
        return self._leaker

    def schedule_leak(
        self, new_bucket: AbstractBucket, associated_clock: AbstractClock | None = None
    ) -> None:
        """Let the bucket be swept every `leak_interval`.

        Args:
            new_bucket: the bucket.
            associated_clock: becomes the bucket's clock, as programs for 3.x expect; None leaves
                the bucket its own.

        Raises:
            InvalidBucket: it is no bucket.
        """
        if not isinstance(new_bucket, AbstractBucket):
            raise InvalidBucket(new_bucket, "the bucket to leak")
        if associated_clock is not None:
            new_bucket.follow(associated_clock)
        leaker = self._its_leaker()
        leaker.register(new_bucket)
        leaker.start()

    def get_buckets(self) -> list[AbstractBucket]:
        """The buckets that are swept."""
        return [] if self._leaker is None else self._leaker.buckets()

    def owned_buckets(self) -> list[AbstractBucket]:
        """The buckets that `close` closes."""
        return self.get_buckets()

    def dispose(self, bucket: int | AbstractBucket) -> bool:
        """Stop sweeping a bucket, given itself or its ``id``; False if it was not scheduled.

        Raises:
            InvalidBucket: it is neither.
        """
        number = id_of(bucket)
        return self._leaker is not None and self._leaker.deregister(number)

    def close(self) -> None:
        """Stop sweeping, and release what the owned buckets opened. May be called again.

        Whoever still has a bucket that needs nothing of that kind, such as one in memory, goes on.
        """
        owned = self.owned_buckets()
        leaker, self._leaker = self._leaker, None
        if leaker is not None:
            leaker.close()
        for bucket in owned:
            bucket._let_go()

    def __getstate__(self) -> dict[str, object]:
        state = dict(self.__dict__)
        if state.pop("_leaker", None) is not None:
            state["_swept"] = self.get_buckets()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:  # what a subclass keeps, too
        swept = state.pop("_swept", ())
        self.__dict__.update(state)
        for bucket in swept:
            self.schedule_leak(bucket)


def id_of(bucket: int | AbstractBucket) -> int:
    """The ``id`` of a bucket, given that or itself."""
    if isinstance(bucket, int):
        return bucket
    if not isinstance(bucket, AbstractBucket):
        raise InvalidBucket(bucket, "the bucket to dispose of, unless it is an id,")
    return id(bucket)
