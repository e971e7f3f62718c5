"""One bucket for everything, and the factory for whatever a limiter is given."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._engine.first_try import FirstTry
from pyrate_limiter._engine.native import puts_at_once, unwrapped
from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.errors import InvalidBucket, InvalidLimiterArgument, InvalidRateList

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter._engine.first_try import Begun
    from pyrate_limiter._engine.locks import LockLike


class SingleBucketFactory(BucketFactory):
    """Routes every item to one bucket.

    Args:
        bucket: the bucket.
        schedule_leak: whether to sweep it every `leak_interval`. A clock, as in 3.x, is a yes, and
            becomes the bucket's.
    """

    def __init__(self, bucket: AbstractBucket, schedule_leak: bool | AbstractClock = True) -> None:
        if not isinstance(bucket, AbstractBucket):
            raise InvalidBucket(bucket, "the bucket of a SingleBucketFactory")
        self.bucket = bucket
        if not isinstance(schedule_leak, bool):
            self.clock = schedule_leak
            self.schedule_leak(bucket, schedule_leak)
        elif schedule_leak:
            self.schedule_leak(bucket)

    def wrap_item(self, name: str, weight: int = 1) -> RateItem | Awaitable[RateItem]:
        """Stamp an item with the bucket's time."""
        return then(self.bucket.stamp(), lambda now: RateItem(name, now, weight))

    def _stamps_by_bucket(self) -> bool:
        return type(self).wrap_item is SingleBucketFactory.wrap_item

    def _gets_at_once(self) -> bool:
        return type(self).get is SingleBucketFactory.get

    def get(self, _: RateItem) -> AbstractBucket:
        """The bucket."""
        return self.bucket

    def owned_buckets(self) -> list[AbstractBucket]:
        """The bucket, and what `create` made."""
        others = [bucket for bucket in self.get_buckets() if bucket is not self.bucket]
        return [self.bucket, *others]


class _OneForAllNames(SingleBucketFactory):
    """Routes each name to a view of the bucket: those who wait for it wait by themselves."""

    def __init__(self, bucket: AbstractBucket, view: Callable[[], AbstractBucket]) -> None:
        super().__init__(bucket)
        self._view = view
        self._views: WeakValueDictionary[str, AbstractBucket] = WeakValueDictionary()

    def _gets_at_once(self) -> bool:
        return True

    def get(self, item: RateItem) -> AbstractBucket:
        """The view of the item's name, which is there while somebody is at it."""
        name = str(item.name)
        view = self._views.get(name)
        return self._views.setdefault(name, self._view()) if view is None else view


def as_factory(argument: object) -> BucketFactory:
    """The factory for what `Limiter` was given."""
    if isinstance(argument, BucketFactory):
        return argument
    if isinstance(argument, AbstractBucket):
        view = getattr(argument, "of_a_name", None)
        return SingleBucketFactory(argument) if view is None else _OneForAllNames(argument, view)
    if isinstance(argument, Rate):
        argument = [argument]
    if not isinstance(argument, (list, tuple)):
        raise InvalidLimiterArgument(argument)
    if not argument:
        raise InvalidRateList(argument, "Rates must not be empty: give at least one Rate")
    if not all(isinstance(rate, Rate) for rate in argument):
        raise InvalidLimiterArgument(argument, "Not valid rates list")
    return SingleBucketFactory(InMemoryBucket(argument))


def only_bucket(factory: BucketFactory) -> AbstractBucket | None:
    """The bucket of all items, if there is just one, and the factory does nothing else."""
    return factory.bucket if type(factory) is SingleBucketFactory else None


def straight_path(
    factory: BucketFactory, lock: LockLike, *, awaited: bool = False
) -> Callable[[str, int], bool | Begun | None]:
    """The way of a first attempt without a generator: the factory's, its bucket's, or `FirstTry`.

    It takes a name and a weight, and answers None where nothing can be said at once. Where the
    answer is ``awaited`` in any case, a `BucketAsyncWrapper` around memory need not be. The
    ``lock`` is held while a user's factory is asked.
    """
    only = only_bucket(factory)
    straight = getattr(factory if only is None else only, "straight", None)
    path: Callable[[str, int], bool | None] | None = None if straight is None else straight()
    if path is not None:
        return path
    if only is None or puts_at_once(only) or (awaited and puts_at_once(unwrapped(only))):
        return FirstTry(factory, lock, awaited=awaited).take
    return lambda _name, _weight: None


def asking_path(factory: BucketFactory) -> Callable[[str, int], bool | None] | None:
    """The way of a call that does not wait, and whose one bucket asks a server: its `ask`.

    It takes a name and a weight, and answers None where the program has to be run.
    """
    asking = getattr(only_bucket(factory), "asking", None)
    path: Callable[[str, int], bool | None] | None = None if asking is None else asking()
    return path
