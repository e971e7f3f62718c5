"""The limiter of 3.x: it raises, or answers False, where today's waits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter import (
    AbstractBucket,
    AbstractClock,
    Duration,
    Rate,
    RateItem,
)
from pyrate_limiter import (
    BucketFactory as CurrentBucketFactory,
)
from pyrate_limiter import (
    Limiter as CurrentLimiter,
)
from pyrate_limiter import (
    SingleBucketFactory as CurrentSingleBucketFactory,
)
from pyrate_limiter.compat.awaiting import run, run_async
from pyrate_limiter.compat.exceptions import (
    BucketFullException,
    InvalidMaxDelay,
    LimiterDelayException,
)
from pyrate_limiter.compat.v3.acquisition import acquire, delay, put
from pyrate_limiter.compat.v3.buckets import InMemoryBucket
from pyrate_limiter.compat.v3.clocks import TimeClock
from pyrate_limiter.compat.v3.decorator import Decorator
from pyrate_limiter.compat.v3.factories import BucketFactory, SingleBucketFactory
from pyrate_limiter.errors import InvalidWeight, WrongType
from pyrate_limiter.limiter import combined_lock as current_combined_lock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import ParamSpec

    from pyrate_limiter.limiter import LockLike

    P = ParamSpec("P")
    R = TypeVar("R")
    Verdict = bool | Awaitable[bool]

__all__ = [
    "AbstractBucket",
    "AbstractClock",
    "BucketFactory",
    "BucketFullException",
    "Duration",
    "InMemoryBucket",
    "Limiter",
    "LimiterDelayException",
    "Rate",
    "RateItem",
    "SingleBucketFactory",
    "TimeClock",
    "combined_lock",
]

_CLOCK = TimeClock()


class Limiter(CurrentLimiter):
    """Lets calls through at a rate; the others wait for `max_delay` at the most, or are refused.

    All arguments but the first two are attributes that are read at each call, and may be assigned.

    Args:
        argument: a rate or a list of rates, for one bucket in memory; or a bucket; or a factory.
        clock: gives the time to the bucket of ``argument``. A bucket that has a clock with the same
            zero, as those on servers have, keeps it unless another kind of clock is given.
        raise_when_fail: whether a refusal is an exception; otherwise it is the answer False.
        max_delay: how long a call may wait, in ms or as a `Duration`; None is not at all.
        retry_until_max_delay: whether a call that was overtaken while it waited until its time was
            up ends with `LimiterDelayException` instead of `BucketFullException`.
        buffer_ms: added to each wait.

    Raises:
        InvalidLimiterArgument: ``argument`` is nothing of the above.
        InvalidMaxDelay: ``max_delay`` is negative or no number.
        WrongType: ``clock`` has no ``now()``.
    """

    __factory: Any = None

    def __init__(
        self,
        argument: CurrentBucketFactory | AbstractBucket | Rate | list[Rate],
        clock: AbstractClock = _CLOCK,
        raise_when_fail: bool = True,
        max_delay: float | Duration | None = None,
        retry_until_max_delay: bool = False,
        buffer_ms: int = 50,
    ) -> None:
        if isinstance(clock, type) or not callable(getattr(clock, "now", None)):
            raise WrongType("clock", clock, "a clock with now(); several rates go into one list")
        super().__init__(_with_clock(argument, clock), buffer_ms)
        self.raise_when_fail: bool = raise_when_fail
        self.max_delay = max_delay
        self.retry_until_max_delay: bool = retry_until_max_delay
        bucket = getattr(self.bucket_factory, "bucket", None)
        shared = bucket.limiter_lock() if isinstance(bucket, AbstractBucket) else None
        if shared is not None:
            self.lock: Any = (shared, self.lock)  # as programs read it; the engine has its own hold

    @property
    def max_delay(self) -> float | None:
        """How long a call may wait, in ms; None is not at all."""
        return self.__max_delay

    @max_delay.setter
    def max_delay(self, value: float | Duration | None) -> None:
        milliseconds = value.value if isinstance(value, Duration) else value
        if milliseconds is not None and not (
            isinstance(milliseconds, (int, float)) and milliseconds >= 0
        ):
            raise InvalidMaxDelay(value)
        self.__max_delay: float | None = milliseconds

    @property
    def bucket_factory(self) -> CurrentBucketFactory:
        """Finds the bucket of each item; may be assigned."""
        factory: CurrentBucketFactory = self.__factory
        return factory

    @bucket_factory.setter
    def bucket_factory(self, factory: CurrentBucketFactory) -> None:
        before, self.__factory = self.__factory, factory
        if before is not None and before is not factory:
            super().__init__(factory, self.buffer_ms)  # the engine has its own hold on it

    def try_acquire(self, name: str, weight: int = 1) -> Verdict:  # type: ignore[override] # as in 3.x
        """Admit ``weight`` units under ``name``, waiting for `max_delay` at the most.

        Returns:
            True, or False where it is refused and `raise_when_fail` is false. An awaitable of it,
            where the bucket, its clock or the factory is async.

        Raises:
            BucketFullException: it is refused: there is no `max_delay`, the weight can never fit,
                or others took the room while it waited.
            LimiterDelayException: the wait is longer than `max_delay`. Nothing is taken.
            InvalidWeight: it is negative.
        """
        if _is_nothing(weight):
            return True
        first: Verdict | None = None
        if type(self.bucket_factory) is CurrentSingleBucketFactory:
            first = super().try_acquire(name, weight, False)  # the shortest way to the bucket
            if first is True:
                return True
        return run(acquire(self, name, weight, False, first))

    async def try_acquire_async(self, name: str, weight: int = 1) -> bool:  # type: ignore[override] # as in 3.x
        """`try_acquire` for asyncio, over sync and async buckets."""
        if _is_nothing(weight):
            return True
        first = None
        if type(self.bucket_factory) is CurrentSingleBucketFactory:
            first = await super().try_acquire_async(name, weight, False)
        return bool(first) or await run_async(acquire(self, name, weight, True, first))

    def handle_bucket_put(  # type: ignore[override] # as in 3.x
        self, bucket: AbstractBucket, item: RateItem, _force_async: bool = False
    ) -> Verdict:
        """Put a stamped item into its bucket; what is refused there goes to `delay_or_raise`."""
        return run(put(self, bucket, item, _force_async))

    def delay_or_raise(
        self, bucket: AbstractBucket, item: RateItem, _force_async: bool = False
    ) -> Verdict:
        """Wait until an item that was refused fits, if `max_delay` allows; else refuse it.

        Where `pyrate_limiter.limiter.Limiter.delay_or_raise` is replaced, as tests do, that
        decides.
        """
        replaced = super().delay_or_raise
        if replaced is not None:
            return replaced(bucket, item)  # type: ignore[no-any-return] # as what replaces it
        return run(delay(self, bucket, item, _force_async))

    def as_decorator(self) -> Callable[[Callable[..., tuple[str, int]]], Decorator]:  # type: ignore[override] # as in 3.x
        """Make each call of a function pass through the limiter.

        Returns:
            What takes a mapping: it is called with the function's arguments, and returns the name
            and the weight of the call. What that returns takes the function, sync or async.

        Raises:
            BucketFullException: at a call that is refused, also where `raise_when_fail` is false.
            LimiterDelayException: at a call that would have to wait too long.
        """
        return partial(Decorator, self)


def combined_lock(
    locks: LockLike | Sequence[LockLike], timeout_sec: float | None = None
) -> AbstractContextManager[None]:
    """Hold several locks, taken in order and released in reverse.

    Raises:
        TimeoutError: one of them could not be had within ``timeout_sec``. Then none is held.
    """
    return current_combined_lock(locks, True, -1 if timeout_sec is None else timeout_sec)


def _with_clock(argument: Any, clock: AbstractClock) -> Any:
    if isinstance(argument, Rate):
        argument = [argument]
    if (
        isinstance(argument, (list, tuple))
        and argument
        and all(isinstance(one, Rate) for one in argument)
    ):
        argument = InMemoryBucket(argument)
    if isinstance(argument, AbstractBucket):
        argument = CurrentSingleBucketFactory(argument, clock)
    return argument


def _is_nothing(weight: int) -> bool:
    if not hasattr(weight, "__index__"):
        raise WrongType("item's weight", weight, "a whole number")
    if weight < 0:
        raise InvalidWeight(weight)
    return weight == 0
