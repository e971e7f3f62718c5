"""The limiter of 3.x: it raises, or answers False, where today's waits."""

# mypy: disable-error-code="override"
# The methods have the signatures of 3.x, of which today's know more.

from __future__ import annotations

import logging
import math
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from pyrate_limiter import (
    AbstractBucket,
    AbstractClock,
    BucketAsyncWrapper,
    Duration,
    Rate,
    RateItem,
)
from pyrate_limiter import limiter as current
from pyrate_limiter.compat.awaiting import run, run_async
from pyrate_limiter.compat.exceptions import (
    BucketFullException,
    InvalidMaxDelay,
    LimiterDelayException,
)
from pyrate_limiter.compat.v3.buckets import InMemoryBucket
from pyrate_limiter.compat.v3.clocks import TimeClock
from pyrate_limiter.compat.v3.decorator import Decorator
from pyrate_limiter.compat.v3.factories import BucketFactory, SingleBucketFactory
from pyrate_limiter.errors import (
    AsyncBucketInSyncCode,
    InvalidBucket,
    InvalidWeight,
    WrongType,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from pyrate_limiter.compat.awaiting import Program
    from pyrate_limiter.compat.v3.decorator import Mapping
    from pyrate_limiter.limiter import LockLike

    Argument = current.BucketFactory | AbstractBucket | Rate | list[Rate]
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
_log = logging.getLogger("pyrate_limiter")


class Limiter(current.Limiter):
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

    _factory: current.BucketFactory

    def __init__(
        self,
        argument: Argument,
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
            vars(self)["lock"] = (shared, self.lock)  # for programs; the engine has its own hold

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
    def bucket_factory(self) -> current.BucketFactory:
        """Finds the bucket of each item; may be assigned."""
        return self._factory

    @bucket_factory.setter
    def bucket_factory(self, factory: current.BucketFactory) -> None:
        before = vars(self).get("_factory")
        self._factory = factory
        if before is not None and before is not factory:
            super().__init__(factory, self.buffer_ms)  # the engine has its own hold on it

    def try_acquire(self, name: str, weight: int = 1) -> Verdict:
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
        if type(self._factory) is current.SingleBucketFactory:
            first = super().try_acquire(name, weight, False)  # the shortest way to the bucket
            if first is True:
                return True
        return run(self._acquired(name, weight, False, first))

    async def try_acquire_async(self, name: str, weight: int = 1) -> bool:
        """`try_acquire` for asyncio, over sync and async buckets."""
        if _is_nothing(weight):
            return True
        first = None
        if type(self._factory) is current.SingleBucketFactory:
            first = await super().try_acquire_async(name, weight, False)
        return bool(first) or await run_async(self._acquired(name, weight, True, first))

    def handle_bucket_put(
        self, bucket: AbstractBucket, item: RateItem, _force_async: bool = False
    ) -> Verdict:
        """Put a stamped item into its bucket; what is refused there goes to `delay_or_raise`."""
        return run(self._put(bucket, item, _force_async))

    def delay_or_raise(
        self, bucket: AbstractBucket, item: RateItem, _force_async: bool = False
    ) -> Verdict:
        """Wait until an item that was refused fits, if `max_delay` allows; else refuse it.

        Where `pyrate_limiter.limiter.Limiter.delay_or_raise` is replaced, as tests do, that
        decides.
        """
        replaced = super().delay_or_raise
        if replaced is not None:
            verdict: Verdict = replaced(bucket, item)
            return verdict
        return run(self._delay(bucket, item, _force_async))

    def as_decorator(self) -> Callable[[Mapping], Decorator]:
        """Make each call of a function pass through the limiter.

        Returns:
            What takes a mapping: it is called with the function's arguments, and returns the name
            and the weight of the call. What that returns takes the function, sync or async.

        Raises:
            BucketFullException: at a call that is refused, also where `raise_when_fail` is false.
            LimiterDelayException: at a call that would have to wait too long.
        """
        return partial(Decorator, self._admit)

    def _acquired(
        self, name: str, weight: int, in_event_loop: bool, first: Verdict | None
    ) -> Program[bool]:
        """Find the item's bucket, and admit it there.

        ``first`` is the answer to a first attempt, if there was one.
        """
        if first is not None and (yield first):
            return True
        item = yield self.bucket_factory.wrap_item(name, weight)
        if not hasattr(item, "timestamp"):
            raise WrongType("what the factory's wrap_item returns", item, "a RateItem")
        bucket = yield self.bucket_factory.get(item)
        if not isinstance(bucket, AbstractBucket):
            where = f"Invalid bucket: item: {name}: what the factory's get returns"
            raise InvalidBucket(bucket, where)
        if in_event_loop and bucket.blocks:
            bucket = BucketAsyncWrapper(bucket)
        go_on = self.handle_bucket_put if first is None else self.delay_or_raise
        return bool((yield go_on(bucket, item, in_event_loop)))

    def _put(self, bucket: AbstractBucket, item: RateItem, force_async: bool) -> Program[bool]:
        if (yield super().handle_bucket_put(bucket, item, False, force_async)):
            return True
        return bool((yield self.delay_or_raise(bucket, item, force_async)))

    def _delay(self, bucket: AbstractBucket, item: RateItem, force_async: bool) -> Program[bool]:
        called = monotonic()
        rate = bucket.failing_rate or bucket.rates[0]
        waiting = yield bucket.waiting(item)
        max_delay = self.max_delay
        if waiting < 0:
            if max_delay is not None:
                _log.error("Cannot fit item into bucket: item=%s, rate=%s", item, rate)
            return self._refuse(BucketFullException(item, rate))
        full = BucketFullException(item, rate, waiting / 1000)
        if max_delay is None:
            return self._refuse(full)
        # 3.x counts to the edge of the window, one millisecond before there is room.
        needed = max(0, waiting - 1) + self.buffer_ms
        if needed > max_delay:
            _log.error("Required delay too large: actual=%s, expected=%s", needed, max_delay)
            return self._refuse(LimiterDelayException(item, rate, needed, int(max_delay)))
        deadline = None if math.isinf(max_delay) else called + max_delay / 1000
        if (yield super().handle_bucket_put(bucket, item, True, force_async, deadline)):
            return True
        _log.error("Total delay exceeded max_delay: %s", max_delay)
        if not self.retry_until_max_delay:
            return self._refuse(full)
        waited = int(max_delay) + needed
        return self._refuse(LimiterDelayException(item, rate, waited, int(max_delay)))

    def _refuse(self, error: BucketFullException | LimiterDelayException) -> bool:
        if self.raise_when_fail:
            raise error
        return False

    def _admit(self, name: str, weight: int, in_event_loop: bool) -> Awaitable[None] | None:
        """Acquire, and raise where the answer is False."""
        acquire = self.try_acquire_async if in_event_loop else self.try_acquire
        answer = acquire(name, weight)
        return None if answer is True else run(self._insist(answer, name, weight))

    def _insist(self, answer: Verdict, name: str, weight: int) -> Program[None]:
        if (yield answer):
            return
        try:
            decision = self.check(name, weight)
        except AsyncBucketInSyncCode:
            decision = yield self.check_async(name, weight)
        wait = decision.retry_after_ms
        item = RateItem(name, _CLOCK.now(), weight)
        rate = decision.failing_rate
        raise BucketFullException(item, rate, None if wait is None else wait / 1000)


def combined_lock(
    locks: LockLike | Sequence[LockLike], timeout_sec: float | None = None
) -> AbstractContextManager[None]:
    """Hold several locks, taken in order and released in reverse.

    Raises:
        TimeoutError: one of them could not be had within ``timeout_sec``. Then none is held.
    """
    return current.combined_lock(locks, True, -1 if timeout_sec is None else timeout_sec)


def _with_clock(argument: Argument, clock: AbstractClock) -> Argument:
    if isinstance(argument, Rate):
        argument = [argument]
    if (
        isinstance(argument, (list, tuple))
        and argument
        and all(isinstance(one, Rate) for one in argument)
    ):
        argument = InMemoryBucket(argument)
    if isinstance(argument, AbstractBucket):
        argument = current.SingleBucketFactory(argument, clock)
    return argument


def _is_nothing(weight: int) -> bool:
    if not hasattr(weight, "__index__"):
        raise WrongType("item's weight", weight, "a whole number")
    if weight < 0:
        raise InvalidWeight(weight)
    return weight == 0
