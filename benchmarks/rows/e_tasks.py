"""asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, Moments, median
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from benchmarks.library import Library

LIMIT, INTERVAL_MS, TASKS = 200, 100, 1000
IDEAL_S = (TASKS // LIMIT - 1) * INTERVAL_MS / 1000


async def _cpu_per_call(limiter: Any, chunks: int = 15, each: int = 1000) -> tuple[float, int]:
    """Microseconds of processor time of an awaited call, and how many were admitted."""
    found, admitted = [], 0
    for _ in range(chunks):
        start = time.process_time()
        for _ in range(each):
            admitted += await limiter.try_acquire_async("k", blocking=False)
        found.append((time.process_time() - start) / each * 1e6)
    return median(found), admitted


@row("async-admitted", "asyncio, one task, admitted", "us", Target(times=5))
def admitted(lib: Library) -> Answer:
    value, passed = asyncio.run(_cpu_per_call(lib.roomy()))
    expect(passed == 15_000, "refused with room to spare")
    return Answer(value)


@row("async-denied", "asyncio, one task, denied", "us", Target(times=6))
def denied(lib: Library) -> Answer:
    value, passed = asyncio.run(_cpu_per_call(lib.full()))
    return Answer(value, over=passed)


@row("async-wrapper", "asyncio, over BucketAsyncWrapper, admitted", "us", Target(times=2))
def wrapper(lib: Library) -> Answer:
    async def measure() -> tuple[float, int]:
        bucket = lib.api.InMemoryBucket([lib.api.Rate(10**9, HOUR_MS)])
        return await _cpu_per_call(lib.limiter(lib.api.BucketAsyncWrapper(bucket)))

    value, passed = asyncio.run(measure())
    expect(passed == 15_000, "refused with room to spare")
    return Answer(value)


@row("async-free-key", "asyncio: a free key while another task waits 1 s", "ms", Target(at_most=5))
def free_key(lib: Library) -> Answer:
    async def measure() -> Answer:
        limiter = lib.per_key(lib.api.Rate(1, 1000))
        return await ask_for_free_key(limiter, 0.99)

    return asyncio.run(measure())


async def ask_for_free_key(limiter: Any, shortest_wait: float) -> Answer:
    """How long a key that is free takes, in ms, while another one is waited for."""
    start = time.perf_counter()
    expect(await limiter.try_acquire_async("busy"), "refused with room to spare")
    waiter = asyncio.create_task(limiter.try_acquire_async("busy"))
    await asyncio.sleep(0.05)
    asked = time.perf_counter()
    expect(await limiter.try_acquire_async("free"), "refused with room to spare")
    latency = time.perf_counter() - asked
    expect(await waiter, "a waiter was refused")
    waited = time.perf_counter() - start
    return Answer(latency * 1000, over=int(waited < shortest_wait))


@row(
    "async-1000-tasks",
    "asyncio: 1 000 blocked tasks at 200 per 100 ms, buffer_ms=0, time / ideal",
    "x",
    Target(at_most=1.02),
)
def thousand_tasks(lib: Library) -> Answer:
    async def measure() -> Answer:
        limiter = lib.limiter(lib.api.Rate(LIMIT, INTERVAL_MS), 0)
        moments = Moments(lib, limiter)

        async def call() -> None:
            expect(await limiter.try_acquire_async("k"), "a waiter was refused")
            moments.came_back()

        start = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(TASKS)))
        over, detail = moments.over(LIMIT, INTERVAL_MS / 1000)
        return Answer((max(moments.returned) - start) / IDEAL_S, over, detail)

    return asyncio.run(measure())
