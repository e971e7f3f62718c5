"""A user's own factory, as the README of 4.5.1 shows it: a dict of buckets made with `create`."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, median
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.library import Library

SIZES = (1, 1000, 100_000)
CALLS = 100_000  # of one pass, however many names they are for


def _names(size: int) -> list[str]:
    return [f"user-{number}" for number in range(size)]


def _factory(lib: Library, limit: int) -> Any:
    api = lib.api

    class PerUser(api.BucketFactory):  # type: ignore[misc] # its base is known at run time
        def __init__(self) -> None:
            self.clock = api.MonotonicClock()
            self.rates = [api.Rate(limit, HOUR_MS)]
            self.by_name: dict[str, Any] = {}

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return api.RateItem(name, self.clock.now(), weight)

        def get(self, item: Any) -> Any:
            if item.name not in self.by_name:
                self.by_name[item.name] = self.create(api.InMemoryBucket, self.rates)
            return self.by_name[item.name]

    return PerUser()


def _async_factory(lib: Library, limit: int) -> Any:
    class AsyncPerUser(type(_factory(lib, limit))):  # type: ignore[misc] # as above
        async def wrap_item(self, name: str, weight: int = 1) -> Any:
            return super().wrap_item(name, weight)

        async def get(self, item: Any) -> Any:
            return super().get(item)

    return AsyncPerUser()


def _one_pass(limiter: Any, names: list[str]) -> float:
    """Microseconds of processor time of a call, when each name makes one."""
    start = time.process_time()
    admitted = sum([limiter.try_acquire(name, blocking=False) for name in names])
    spent = time.process_time() - start
    expect(admitted == len(names), f"{len(names) - admitted} refused with room to spare")
    return spent / len(names) * 1e6


async def _one_pass_async(limiter: Any, names: list[str]) -> float:
    start = time.process_time()
    admitted = sum([await limiter.try_acquire_async(name, blocking=False) for name in names])
    spent = time.process_time() - start
    expect(admitted == len(names), f"{len(names) - admitted} refused with room to spare")
    return spent / len(names) * 1e6


def _filled(lib: Library, size: int) -> tuple[Any, Any]:
    """A limiter whose buckets hold a unit each, and its factory."""
    factory = _factory(lib, CALLS * 10)
    limiter = lib.limiter(factory)
    _one_pass(limiter, _names(size))
    expect(len(factory.get_buckets()) == size, "buckets that are not swept")
    return limiter, factory


def _create(size: int) -> Callable[[Library], Answer]:
    def measure(lib: Library) -> Answer:
        # Where there are few names, many factories make as many calls.
        factories = [_factory(lib, 1) for _ in range(max(1, min(50, 10_000 // size)))]
        limiters = [lib.limiter(factory) for factory in factories]
        value = median([_one_pass(limiter, _names(size)) for limiter in limiters])
        again = limiters[0].try_acquire("user-0", blocking=False)
        for limiter in limiters:
            limiter.close()
        return Answer(value, over=int(again))

    return measure


def _acquire(size: int) -> Callable[[Library], Answer]:
    def measure(lib: Library) -> Answer:
        limiter, factory = _filled(lib, size)
        names = _names(size) * (CALLS // size)
        # The first pass makes what a key's second unit needs.
        passes = [_one_pass(limiter, names) for _ in range(4)]
        stored = sum(bucket.count() for bucket in factory.get_buckets())
        expect(stored == size + 4 * CALLS, f"{stored} units for {size + 4 * CALLS} admitted")
        shown = ", ".join(f"{spent:.2f}" for spent in passes)
        return Answer(median(passes[1:]), detail=f"in turn: {shown} us")

    return measure


def _memory(size: int) -> Callable[[Library], Answer]:
    def measure(lib: Library) -> Answer:
        # The first bucket of a process brings what all of them share.
        lib.limiter(_factory(lib, 1)).try_acquire("warm", blocking=False)
        factories = [_factory(lib, 1) for _ in range(20 if size == 1 else 1)]
        limiters, names = [lib.limiter(factory) for factory in factories], _names(size)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for limiter in limiters:
            for name in names:
                limiter.try_acquire(name, blocking=False)
        gc.collect()
        value = (tracemalloc.get_traced_memory()[0] - before) / len(limiters) / size
        tracemalloc.stop()
        return Answer(value, over=int(limiters[0].try_acquire("user-0", blocking=False)))

    return measure


def _sweep(size: int) -> Callable[[Library], Answer]:
    def measure(lib: Library) -> Answer:
        """What the sweeping of all buckets takes, in which nothing has expired."""
        _, factory = _filled(lib, size)
        buckets = factory.get_buckets() * (CALLS // size)
        found = []
        for _ in range(5):
            start = time.process_time()
            dropped = sum([bucket.leak(bucket.now()) for bucket in buckets])
            found.append((time.process_time() - start) / len(buckets) * 1e6)
            expect(dropped == 0, "live units dropped")
        return Answer(median(found))

    return measure


def _collection(size: int) -> Callable[[Library], Answer]:
    def measure(lib: Library) -> Answer:
        """What the garbage collector takes for the buckets that are alive."""
        gc.collect()
        gc.freeze()
        kept = _filled(lib, size)
        found = []
        for _ in range(9):
            start = time.process_time()
            gc.collect()
            found.append((time.process_time() - start) * 1e3)
        expect(kept, "nothing")
        return Answer(median(found))

    return measure


for _size in SIZES:
    _shown = f"{_size:,}".replace(",", " ") + (" name" if _size == 1 else " names")
    _rows: tuple[tuple[str, str, str, float, Any], ...] = (
        ("create", "create", "us", 2, _create),
        ("acquire", "acquire", "us", 3, _acquire),
        ("bytes", "bytes per name", "B", 2, _memory),
        ("sweep", "sweep a bucket", "us", 1, _sweep),
    )
    for _name, _title, _unit, _times, _measure in _rows:
        row(
            f"own-factory-{_name}-{_size}",
            f"a user's own factory, {_shown}: {_title}",
            _unit,
            Target(times=_times),
        )(_measure(_size))

row(
    "own-factory-gc",
    "a user's own factory, 100 000 names: a garbage collection",
    "ms",
    Target(times=1),
)(_collection(100_000))


def _acquire_async(factory: Callable[[Library, int], Any], lib: Library) -> Answer:
    async def measure() -> Answer:
        names = _names(1000)
        limiter = lib.limiter(factory(lib, CALLS))
        passes = [await _one_pass_async(limiter, names * 10) for _ in range(6)]
        return Answer(median(passes[1:]))

    return asyncio.run(measure())


@row("own-factory-asyncio", "a user's own factory, 1 000 names: asyncio", "us", Target(times=3))
def asyncio_acquire(lib: Library) -> Answer:
    return _acquire_async(_factory, lib)


@row(
    "own-factory-awaited",
    "a user's own factory, 1 000 names: asyncio, async wrap_item and get",
    "us",
    Target(times=1),
)
def awaited_acquire(lib: Library) -> Answer:
    return _acquire_async(_async_factory, lib)
