"""The limiter of 3.x: it raises, or answers False, where today's waits."""

from __future__ import annotations

import logging
import math
from functools import partial, wraps
from inspect import iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter import (
    AbstractBucket,
    AbstractClock,
    BucketAsyncWrapper,
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
from pyrate_limiter.compat.v3.buckets import InMemoryBucket
from pyrate_limiter.compat.v3.clocks import TimeClock
from pyrate_limiter.compat.v3.factories import BucketFactory, SingleBucketFactory
from pyrate_limiter.errors import AsyncBucketInSyncCode, InvalidBucket, InvalidWeight, WrongType
from pyrate_limiter.limiter import combined_lock as current_combined_lock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import ParamSpec

    from pyrate_limiter.limiter import LockLike

    P = ParamSpec("P")
    R = TypeVar("R")
    Verdict = bool | Awaitable[bool]
    Mapping = Callable[..., tuple[str, int]]

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
_log = logging.getLogger("pyrate_limiter")


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

    def __init__(
        self,
        argument: CurrentBucketFactory | AbstractBucket | Rate | list[Rate],
        clock: AbstractClock = _CLOCK,
        raise_when_fail: bool = True,
        max_delay: float | Duration | None = None,
        retry_until_max_delay: bool = False,
        buffer_ms: int = 50,
    ) -> None:
        if not callable(getattr(clock, "now", None)):
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
        return self.__factory

    @bucket_factory.setter
    def bucket_factory(self, factory: CurrentBucketFactory) -> None:
        assigned_later = hasattr(self, "_Limiter__factory") and factory is not self.__factory
        self.__factory: CurrentBucketFactory = factory
        if assigned_later:
            super().__init__(factory, self.buffer_ms)

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
        return run(_acquire(self, name, weight, False, first))

    async def try_acquire_async(self, name: str, weight: int = 1) -> bool:  # type: ignore[override] # as in 3.x
        """`try_acquire` for asyncio, over sync and async buckets."""
        if _is_nothing(weight):
            return True
        first = None
        if type(self.bucket_factory) is CurrentSingleBucketFactory:
            first = await super().try_acquire_async(name, weight, False)
        return bool(first) or await run_async(_acquire(self, name, weight, True, first))

    def handle_bucket_put(  # type: ignore[override] # as in 3.x
        self, bucket: AbstractBucket, item: RateItem, _force_async: bool = False
    ) -> Verdict:
        """Put a stamped item into its bucket; what is refused there goes to `delay_or_raise`."""
        return run(_put(self, bucket, item, _force_async))

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
        return run(_delay(self, bucket, item, _force_async))

    def as_decorator(self) -> Callable[[Mapping], Decorator]:  # type: ignore[override] # as in 3.x
        """Make each call of a function pass through the limiter.

        Returns:
            What takes a mapping: it is called with the function's arguments, and returns the name
            and the weight of the call. What that returns takes the function, sync or async.

        Raises:
            BucketFullException: at a call that is refused, also where `raise_when_fail` is false.
            LimiterDelayException: at a call that would have to wait too long.
        """
        return partial(Decorator, self)


class Decorator:
    """See `Limiter.as_decorator`.

    Args:
        limiter: admits each call.
        mapping: names and weighs it.
    """

    def __init__(self, limiter: Limiter, mapping: Mapping) -> None:
        self._limiter, self._mapping = limiter, mapping

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make each call of the function pass through the limiter."""
        limiter, mapping = self._limiter, self._mapping
        if iscoroutinefunction(function):

            @wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                name, weight = mapping(*args, **kwargs)
                if not await limiter.try_acquire_async(name, weight):
                    raise await run_async(_refusal(limiter, name, weight))
                return await function(*args, **kwargs)

            return limited_async  # type: ignore[return-value] # R is a coroutine here

        @wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            name, weight = mapping(*args, **kwargs)

            def call() -> Generator[Any, Any, R]:
                if not (yield limiter.try_acquire(name, weight)):
                    raise (yield from _refusal(limiter, name, weight))
                return function(*args, **kwargs)

            return run(call())  # type: ignore[return-value] # to be awaited, if the bucket is async

        return limited


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
    if isinstance(argument, list) and argument and all(isinstance(one, Rate) for one in argument):
        argument = InMemoryBucket(argument)
    if isinstance(argument, AbstractBucket):
        argument = CurrentSingleBucketFactory(argument, clock)
    return argument


def _is_nothing(weight: int) -> bool:
    if weight < 0:
        raise InvalidWeight(weight)
    return weight == 0


# The steps of an acquisition, each a program for `run`. They are functions, for a method of the
# same name would replace one of today's limiter.


def _acquire(
    limiter: Limiter, name: str, weight: int, in_event_loop: bool, first: Verdict | None
) -> Generator[Any, Any, bool]:
    """``first`` is the answer to a first attempt, if there was one."""
    if first is not None and (yield first):
        return True
    item = yield limiter.bucket_factory.wrap_item(name, weight)
    bucket = yield limiter.bucket_factory.get(item)
    if not isinstance(bucket, AbstractBucket):
        where = f"Invalid bucket: item: {name}: what the factory's get returns"
        raise InvalidBucket(bucket, where)
    if in_event_loop and bucket.blocks:
        bucket = BucketAsyncWrapper(bucket)
    put = limiter.handle_bucket_put if first is None else limiter.delay_or_raise
    return bool((yield put(bucket, item, in_event_loop)))


def _put(
    limiter: Limiter, bucket: AbstractBucket, item: RateItem, force_async: bool
) -> Generator[Any, Any, bool]:
    if (yield CurrentLimiter.handle_bucket_put(limiter, bucket, item, False, force_async)):
        return True
    return bool((yield limiter.delay_or_raise(bucket, item, force_async)))


def _delay(
    limiter: Limiter, bucket: AbstractBucket, item: RateItem, force_async: bool
) -> Generator[Any, Any, bool]:
    called = monotonic()
    rate = bucket.failing_rate or bucket.rates[0]
    waiting = yield bucket.waiting(item)
    max_delay = limiter.max_delay
    if waiting < 0:
        if max_delay is not None:
            _log.error("Cannot fit item into bucket: item=%s, rate=%s", item, rate)
        return _refuse(limiter, BucketFullException(item, rate))
    full = BucketFullException(item, rate, waiting / 1000)
    if max_delay is None:
        return _refuse(limiter, full)
    # 3.x counts to the edge of the window, one millisecond before there is room.
    delay = max(0, waiting - 1) + limiter.buffer_ms
    if delay > max_delay:
        _log.error("Required delay too large: actual=%s, expected=%s", delay, max_delay)
        return _refuse(limiter, LimiterDelayException(item, rate, delay, int(max_delay)))
    deadline = None if math.isinf(max_delay) else called + max_delay / 1000
    wait = partial(CurrentLimiter.handle_bucket_put, limiter, bucket, item, True, force_async)
    if (yield wait(deadline)):
        return True
    _log.error("Total delay exceeded max_delay: %s", max_delay)
    if not limiter.retry_until_max_delay:
        return _refuse(limiter, full)
    waited = int(max_delay) + delay
    return _refuse(limiter, LimiterDelayException(item, rate, waited, int(max_delay)))


def _refuse(limiter: Limiter, error: BucketFullException | LimiterDelayException) -> bool:
    if limiter.raise_when_fail:
        raise error
    return False


def _refusal(limiter: Limiter, name: str, weight: int) -> Generator[Any, Any, BucketFullException]:
    try:
        decision = limiter.check(name, weight)
    except AsyncBucketInSyncCode:
        decision = yield limiter.check_async(name, weight)
    wait = decision.retry_after_ms
    item = RateItem(name, _CLOCK.now(), weight)
    return BucketFullException(item, decision.failing_rate, None if wait is None else wait / 1000)
