"""What the methods of a limiter answer: at once, or as something that has to be awaited."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.awaitables import Pending, discard, named
from pyrate_limiter._core.driver import at_once, run_async, run_blocking
from pyrate_limiter._engine.first_try import bind_sweeper
from pyrate_limiter.errors import AsyncBucketInSyncCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from typing import TypeAlias

    from typing_extensions import TypeVar as TypeVarWithDefault

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._engine.acquisition import Acquisition
    from pyrate_limiter._engine.wait_options import WaitOptions
    from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper
    from pyrate_limiter.algorithms.decision import Decision
    from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
    from pyrate_limiter.buckets.sqlite.bucket import SQLiteBucket

    # What `Limiter` is given, by what its `try_acquire` answers: a bool, an awaitable, either.
    Sync: TypeAlias = Rate | list[Rate] | InMemoryBucket | SQLiteBucket
    Async: TypeAlias = BucketAsyncWrapper
    Either: TypeAlias = BucketFactory | AbstractBucket | Rate | list[Rate]
    Verdict_co = TypeVarWithDefault("Verdict_co", covariant=True, default=bool | Awaitable[bool])
else:
    Verdict_co = TypeVar("Verdict_co", covariant=True)

T = TypeVar("T")

_NOT_AT_ONCE = (
    "{0} cannot answer at once: the bucket, its clock or the factory is async; "
    "await {0}_async instead"
)


class RunsPrograms:
    """What the methods of `Limiter` stand on, wherever they are defined."""

    bucket_factory: BucketFactory
    _acquisition: Acquisition

    if TYPE_CHECKING:

        def _sleep(self, seconds: float) -> None: ...

        def _options(
            self, blocking: bool, timeout: float, *, known: bool = ..., on_loop: bool = ...
        ) -> WaitOptions: ...

    def _now(self, program: Program[T], method: str) -> T:
        """What a sync method answers.

        Raises:
            AsyncBucketInSyncCode: it has to be awaited first.
        """
        return at_once(program, _NOT_AT_ONCE, method, sleep=self._sleep)

    def _verdict(self, program: Program[Decision], call: str) -> bool | Unawaited:
        """Whether it was admitted; what has to be awaited for that as an `Unawaited`."""
        outcome = run_blocking(verdict_of(program), self._sleep)
        return outcome if isinstance(outcome, bool) else Unawaited(outcome, call)

    def _run(self, program: Program[T]) -> Awaitable[T]:
        bind_sweeper(self.bucket_factory)
        return run_async(program)


def verdict_of(program: Program[Decision]) -> Program[bool]:
    """Whether it was admitted, in place of the decision."""
    decision = yield from program
    return decision.failing_rate is None


class Unawaited(Pending[bool]):
    """A coroutine that is neither true nor false.

    It is awaited, made a task and gathered like any other. One that is forgotten is warned of under
    the name of the call that made it.

    Args:
        pending: what runs.
        call: the call that made it, as its caller wrote it.
    """

    __slots__ = ("_asked", "_fresh")

    def __init__(self, pending: Pending[bool], call: str) -> None:
        super().__init__(named(pending._coroutine, call), pending._first)
        self._fresh = True
        self._asked = False

    def __bool__(self) -> bool:
        # A task looks in this way whether it has a coroutine, when it is to be shown.
        if not self._fresh or sys._getframe(1).f_globals["__name__"] == "asyncio.base_tasks":
            return True
        self._asked = True
        msg = (
            f"{self.__qualname__} is neither True nor False before it is awaited: the "
            "bucket, its clock or the factory is async; write `await` before it"
        )
        raise AsyncBucketInSyncCode(msg)

    def __await__(self) -> Generator[object, object, bool]:
        self._fresh = False
        return super().__await__()

    def send(self, value: object) -> object:
        self._fresh = False
        return super().send(value)

    def throw(self, *error: object) -> object:
        self._fresh = False
        return super().throw(*error)

    def close(self) -> None:
        self._fresh = False
        super().close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._coroutine, name)  # cr_frame and the like, which debuggers read

    def __del__(self) -> None:
        if self._fresh and self._asked:
            self.close()  # the error has said it
        elif self._fresh:  # it warns for itself; what it would await is not to warn as well
            discard(self._first)
