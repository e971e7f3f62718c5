"""The library under test, whichever of the two it is."""

from __future__ import annotations

import asyncio
import importlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOUR_MS = 3_600_000


class Library:
    """The installed ``pyrate_limiter``, and what the rows need where the two differ."""

    def __init__(self) -> None:
        self.api: Any = importlib.import_module("pyrate_limiter")

    def roomy(self, buffer_ms: int | None = None) -> Any:
        """A limiter that no row can fill."""
        return self.limiter(self.api.Rate(10**9, HOUR_MS), buffer_ms)

    def full(self) -> Any:
        """A limiter that denies for an hour."""
        limiter = self.api.Limiter(self.api.Rate(10, HOUR_MS))
        limiter.try_acquire("k", weight=10)
        return limiter

    def limiter(self, argument: Any, buffer_ms: int | None = None) -> Any:
        """A limiter, with the default pad where none is given."""
        if buffer_ms is None:
            return self.api.Limiter(argument)
        return self.api.Limiter(argument, buffer_ms=buffer_ms)

    def per_key(self, rate: Any, bucket: Callable[..., Any] | None = None) -> Any:
        """A limiter with a bucket of its own for every name."""
        bucket = bucket or self.api.InMemoryBucket
        if hasattr(self.api.Limiter, "per_key"):
            return self.api.Limiter.per_key(rate, bucket=bucket)
        return self.api.Limiter(self._factory(rate, bucket))

    def _factory(self, rate: Any, bucket: Callable[..., Any]) -> Any:
        api = self.api

        class PerKey(api.BucketFactory):  # type: ignore[misc] # its base is known at run time
            def __init__(self) -> None:
                self.clock = api.MonotonicClock()
                self.by_name: dict[str, Any] = {}

            def wrap_item(self, name: str, weight: int = 1) -> Any:
                return api.RateItem(name, self.clock.now(), weight)

            def get(self, item: Any) -> Any:
                found = self.by_name.get(item.name)
                if found is None:
                    found = self.by_name[item.name] = self.create(bucket, [rate])
                return found

        return PerKey()

    def manual_clock(self) -> Any:
        """A clock that stands still at its attribute ``ms``."""

        class ManualClock(self.api.AbstractClock):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                self.ms = 1_000_000

            def now(self) -> int:
                return self.ms

        return ManualClock()


def cpu_per_call(call: Callable[[], object], calls: int, chunks: int = 15) -> float:
    """Microseconds of processor time that one call takes: the median of several chunks."""
    return _per_call(time.process_time, call, calls, chunks)


def wall_per_call(call: Callable[[], object], calls: int, chunks: int = 9) -> float:
    """Microseconds that one call takes, disk and network included: the median of several chunks."""
    return _per_call(time.perf_counter, call, calls, chunks)


def _per_call(
    clock: Callable[[], float], call: Callable[[], object], calls: int, chunks: int
) -> float:
    found = []
    repeats = range(max(1, calls // chunks))
    for _ in range(chunks):
        start = clock()
        for _ in repeats:
            call()
        found.append((clock() - start) / len(repeats) * 1e6)
    return median(found)


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def most_in_any_window(times: Sequence[float], interval: float) -> int:
    """The largest number of times within one interval, both ends included."""
    ordered = sorted(times)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] > interval:
            first += 1
        most = max(most, last - first + 1)
    return most


class Moments:
    """When each call was admitted: when it last woke, or last read the clock, before it came back.

    The time at which it comes back is no measure: a busy machine interrupts a call for
    milliseconds on its way back. A library that goes by a time read before it slept is found out,
    for then the moment of waking counts.

    Args:
        lib: the library.
        limiter: one with a single bucket on the stock clock.
    """

    def __init__(self, lib: Library, limiter: Any) -> None:
        # A context variable has a value of its own in each thread and in each task.
        self._last: ContextVar[float] = ContextVar("last")
        self.admitted: list[float] = []
        self.returned: list[float] = []
        note = self._note

        class Watched(lib.api.MonotonicClock):  # type: ignore[misc,name-defined]
            def now(self) -> int:
                now: int = super().now()
                note()
                return now

        limiter.buckets()[0]._clock = Watched()
        self._watch_sleep(importlib.import_module("pyrate_limiter.limiter"))

    def came_back(self) -> None:
        """Note, in the caller, that its call was admitted."""
        self.returned.append(time.perf_counter())
        self.admitted.append(self._last.get())

    def over(self, limit: int, interval: float) -> tuple[int, str]:
        """Units over the limit in the worst window, and the same by when the calls came back."""
        most = most_in_any_window(self.admitted, interval)
        returned = most_in_any_window(self.returned, interval)
        detail = f"fullest window {most} of {limit}; {returned} by the times of return"
        return max(0, most - limit), detail

    def _note(self) -> None:
        self._last.set(time.perf_counter())

    def _watch_sleep(self, module: Any) -> None:
        sleep, sleep_async = module.sleep, asyncio.sleep

        def watched(seconds: float) -> None:
            sleep(seconds)
            self._note()

        async def watched_async(delay: float, result: Any = None) -> Any:
            slept = await sleep_async(delay, result)
            self._note()
            return slept

        module.sleep = watched
        asyncio.sleep = watched_async  # type: ignore[assignment] # for this process only
