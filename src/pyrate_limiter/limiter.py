"""The facade: it checks the arguments, and drives the acquisition."""

from __future__ import annotations

from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from pyrate_limiter._core.driver import run_async
from pyrate_limiter._core.fork_safe_locks import shared_lock
from pyrate_limiter._core.lazy import resolver
from pyrate_limiter._core.validation import check_weight, check_whole
from pyrate_limiter._engine.acquisition import Acquisition
from pyrate_limiter._engine.answers import Verdict_co, verdict_of
from pyrate_limiter._engine.context import Admission, decorated, refuse_positional
from pyrate_limiter._engine.factories import (
    SingleBucketFactory,
    as_factory,
    asking_path,
    straight_path,
)
from pyrate_limiter._engine.first_try import bind_sweeper
from pyrate_limiter._engine.holding import Holds
from pyrate_limiter._engine.locks import LockLike, combined_lock
from pyrate_limiter._engine.reserved import Reserved, Reserves
from pyrate_limiter._engine.steps import sleep_is_replaced
from pyrate_limiter._engine.wait_options import (
    ADAPTIVE,
    AdaptiveBuffer,
    WaitOptions,
    ahead_ms,
    check_timeout,
    monotonic,
)
from pyrate_limiter._older import TakesOlderCalls, also_as_in_its_release, places
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from threading import RLock
    from types import TracebackType
    from typing import TypeAlias

    from typing_extensions import Never, ParamSpec, Self

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.answers import Async, Either, Sync
    from pyrate_limiter._engine.first_try import Begun
    from pyrate_limiter._engine.wait_options import Timeout
    from pyrate_limiter.keyed import KeyedStore

    P = ParamSpec("P")
    R = TypeVar("R")
    Awaited: TypeAlias = "Limiter[Awaitable[bool]]"
else:  # a checker would take every name for known
    __getattr__ = resolver(__name__, places(__name__))

__all__ = [
    "AbstractBucket",
    "BucketFactory",
    "InMemoryBucket",
    "Limiter",
    "LockLike",
    "Rate",
    "RateItem",
    "Reserved",
    "SingleBucketFactory",
    "combined_lock",
    "sleep",
]

_REAL_SLEEP = sleep


class Limiter(Holds, Reserves, TakesOlderCalls, Generic[Verdict_co]):
    """Lets calls through at a rate, and makes the others wait or go away.

    Args:
        argument: a rate or a list of rates, for one bucket in memory that all names share; or a
            bucket; or a factory that finds a bucket for each item.
        buffer_ms: added to each wait, to keep clear of a server's own window edge. Left out, it is
            50 ms, or 5 % of the failing interval where that is less.
        reserve_ahead: how many seconds ahead the first waiters of this process reserve moments in a
            bucket that other processes use too. True is 1.0. So long the others may have to
            wait for a process that was killed. False or 0 makes the first waiter try again after
            each wait, for a fleet in which some processes still run 4.5.1: they do not see the
            future.

    Raises:
        InvalidLimiterArgument: ``argument`` is nothing of the above.
        InvalidRateList: some rate of the list can never matter.
        WrongType: ``buffer_ms`` is no whole number.
        OutOfRange: ``buffer_ms`` is negative.
    """

    @overload
    def __init__(
        self: Limiter[bool], argument: Sync, buffer_ms: int = ..., *, reserve_ahead: float = ...
    ) -> None: ...
    @overload
    def __init__(
        self: Awaited, argument: Async, buffer_ms: int = ..., *, reserve_ahead: float = ...
    ) -> None: ...
    @overload
    def __init__(
        self, argument: Either, buffer_ms: int = ..., *, reserve_ahead: float = ...
    ) -> None: ...
    @also_as_in_its_release
    def __init__(
        self, argument: Either, buffer_ms: int = ADAPTIVE, *, reserve_ahead: float = True
    ) -> None:
        if not isinstance(buffer_ms, AdaptiveBuffer):
            buffer_ms = check_whole("buffer_ms", buffer_ms, least=0, unit="milliseconds")
        self.buffer_ms: int = buffer_ms
        self.reserve_ahead: float = reserve_ahead
        self.bucket_factory: BucketFactory = as_factory(argument)
        self._make_ready()

    def _make_ready(self) -> None:
        self.lock: RLock = shared_lock()
        factory = self.bucket_factory
        # Not `lock`, which the front of a wait queue needs: `get` may itself wait in that queue.
        asking: LockLike = shared_lock()
        self._acquisition = Acquisition(factory, self.lock, asking, ahead_ms(self.reserve_ahead))
        self._take = straight_path(factory, asking)
        self._take_async = straight_path(factory, asking, awaited=True)
        self._ask = asking_path(factory)

    @classmethod
    def per_key(
        cls,
        rates: Rate | list[Rate],
        *,
        bucket: Callable[[list[Rate]], AbstractBucket] | KeyedStore = InMemoryBucket,
        max_keys: int = 100_000,
        buffer_ms: int = ADAPTIVE,
        reserve_ahead: float = True,
    ) -> Self:
        """A limiter that holds each name to the rates by itself.

        See `KeyedBucketFactory` for what the arguments mean, and for what happens at ``max_keys``.
        A ``bucket`` such as ``SQLiteBucket.per_key("limits.db")`` keeps all names in one place of
        its own; then there is no bound on their number.
        """
        from pyrate_limiter.keyed import for_each_key

        return cls(for_each_key(rates, bucket, max_keys), buffer_ms, reserve_ahead=reserve_ahead)

    def try_acquire(
        self, name: str = "pyrate", weight: int = 1, blocking: bool = True, timeout: Timeout = -1
    ) -> Verdict_co:
        """Admit ``weight`` units under ``name``, waiting for room if need be.

        Args:
            name: what the call is for.
            weight: how many units it takes; 0 is always admitted.
            blocking: whether to wait.
            timeout: seconds to wait at the most. -1 and None wait for ever, 0 takes what is free
                now. Where the wait is known to be longer, it still sleeps until its time is up.

        Returns:
            Whether it was admitted. False at once if the weight can never fit. An awaitable of it,
            where the bucket, its clock or the factory is async.

        Raises:
            InvalidWeight: it is negative.
            InvalidTimeout: it is negative and not -1, or no number.
            TimeoutWithoutBlocking: there is a timeout for a call that does not wait.
        """
        if timeout != -1:
            timeout = check_timeout(timeout, blocking)
        if weight.__class__ is not int or weight <= 0:
            weight = check_weight(weight)
            if weight == 0:
                return True  # type: ignore[return-value] # see `Verdict_co`
        taken = self._take(name, weight)
        if taken is True or not (blocking or taken is None or taken):
            return taken is True  # type: ignore[return-value] # see `Verdict_co`
        return self._go_on(name, weight, blocking, timeout, taken)  # type: ignore[return-value] # as above

    def _go_on(
        self, name: str, weight: int, blocking: bool, timeout: float, taken: bool | Begun | None
    ) -> bool | Awaitable[bool]:
        """`try_acquire` from what its first try has said on."""
        if not blocking and self._ask is not None:
            told = self._ask(name, weight)
            if told is not None:
                return told
        started = self._acquisition.start(name, weight, self._options(blocking, timeout), taken)
        if isinstance(started, Decision):
            return started.failing_rate is None
        return self._verdict(started, f"try_acquire({name!r})")

    async def try_acquire_async(
        self, name: str = "pyrate", weight: int = 1, blocking: bool = True, timeout: Timeout = -1
    ) -> bool:
        """`try_acquire` for asyncio, over sync and async buckets: it waits with ``asyncio.sleep``.

        A cancelled waiter gives back what it had reserved.
        """
        if timeout != -1:
            timeout = check_timeout(timeout, blocking)
        if weight.__class__ is not int or weight <= 0:
            weight = check_weight(weight)
            if weight == 0:
                return True
        taken = self._take_async(name, weight)
        if taken is True or not (blocking or taken is None or taken):
            return taken is True
        bind_sweeper(self.bucket_factory)
        options = self._options(blocking, timeout, on_loop=True)
        started = await self._acquisition.start_async(name, weight, options, taken)
        if isinstance(started, Decision):
            return started.failing_rate is None
        return await run_async(verdict_of(started))

    def acquire(
        self, name: str = "pyrate", weight: int = 1, blocking: bool = True, timeout: Timeout = -1
    ) -> Decision:
        """`try_acquire`, with the whole `Decision` as the answer.

        Unlike `try_acquire` it answers at once, without sleeping, where the wait is known to exceed
        the timeout.

        Raises:
            AsyncBucketInSyncCode: the bucket, its clock or the factory is async.
        """
        return self._now(self._acquire(name, weight, blocking, timeout), "acquire")

    async def acquire_async(
        self, name: str = "pyrate", weight: int = 1, blocking: bool = True, timeout: Timeout = -1
    ) -> Decision:
        """`acquire` for asyncio, over sync and async buckets."""
        return await self._run(self._acquire(name, weight, blocking, timeout, on_loop=True))

    def limit(self, name: str = "pyrate", weight: int = 1, timeout: Timeout = -1) -> Admission:
        """A context, for ``with`` and ``async with``, that is entered when admitted.

        It waits for ``timeout`` seconds at the most, -1 for ever, and gives the `Decision`.

        Raises:
            RateLimitExceeded: on entering, when it is not admitted.
        """
        return Admission(self, name, check_weight(weight), check_timeout(timeout, blocking=True))

    def as_decorator(
        self, *wrong: Never, name: str = "ratelimiter", weight: int = 1
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make each call of a function, sync or async, wait until it is admitted.

        Around an async generator function, it waits before the first value.

        Raises:
            WrongType: at once, if it has no parentheses, or is given something without a name.
            RateLimitExceeded: at the call, if the weight can never fit.
            AsyncBucketInSyncCode: at the call of a sync function, if the bucket is async.
        """
        refuse_positional(wrong)
        weight = check_weight(weight)
        return partial(decorated, self, name, weight)

    def handle_bucket_put(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        blocking: bool,
        _force_async: bool = False,
        deadline: float | None = None,
    ) -> bool | Awaitable[bool]:
        """Admit an item that is already stamped in a bucket that is already chosen.

        Args:
            bucket: the bucket.
            item: the item.
            blocking: whether to wait.
            _force_async: whether to return an awaitable whatever the bucket is.
            deadline: when to give up, on the clock of ``time.monotonic``.
        """
        timeout = -1 if deadline is None else max(0.0, deadline - monotonic())
        options = self._options(blocking, timeout, on_loop=_force_async)
        program = self._acquisition.at_bucket(bucket, item, options)
        if _force_async:
            return run_async(verdict_of(program))
        return self._verdict(program, "handle_bucket_put(...)")

    def buckets(self) -> list[AbstractBucket]:
        """The buckets that are swept."""
        return self.bucket_factory.get_buckets()

    def dispose(self, bucket: int | AbstractBucket) -> bool:
        """Stop sweeping a bucket, given itself or its ``id``; False if it was not swept."""
        return self.bucket_factory.dispose(bucket)

    def close(self) -> None:
        """Stop sweeping, and release what the buckets opened. May be called again."""
        self.bucket_factory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        own = ("lock", "_acquisition", "_take", "_take_async", "_ask")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._make_ready()

    def _options(
        self, blocking: bool, timeout: float, *, known: bool = False, on_loop: bool = False
    ) -> WaitOptions:
        return WaitOptions(
            blocking=blocking,
            seconds=timeout,
            buffer_ms=self.buffer_ms,
            known=known,
            on_loop=on_loop,
            replaced=sleep_is_replaced() if on_loop else sleep is not _REAL_SLEEP,
        )

    def _acquire(
        self, name: str, weight: int, blocking: bool, timeout: Timeout, *, on_loop: bool = False
    ) -> Program[Decision]:
        weight = check_weight(weight)
        if timeout != -1:
            timeout = check_timeout(timeout, blocking)
        options = self._options(blocking, timeout, known=True, on_loop=on_loop)
        return self._acquisition.acquire(name, weight, options)

    def _sleep(self, seconds: float) -> None:
        sleep(seconds)  # looked up each time: programs' tests replace it in this module
