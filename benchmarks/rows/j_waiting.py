"""Many that wait, and callers that give up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.library import Library

INTERVAL_MS, ROUNDS = 100, 5  # so many limits have to wait
LOOK_S = 0.001  # between two looks at whether the event loop is held


class Watch:
    """Measures how long the event loop does not get round to it."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(LOOK_S)
            self.longest = max(self.longest, time.perf_counter() - start - LOOK_S)


async def _wait(lib: Library, tasks: int) -> tuple[float, float, float]:
    """CPU for each waiter (us), time / ideal, and the longest hold of the loop (ms)."""
    limit = tasks // ROUNDS
    limiter = lib.limiter(lib.api.Rate(limit, INTERVAL_MS), 0)
    expect(await limiter.try_acquire_async("first", weight=limit), "refused with room to spare")
    start, cpu = time.perf_counter(), time.process_time()
    calls = [asyncio.ensure_future(limiter.try_acquire_async("k")) for _ in range(tasks)]
    await asyncio.sleep(0)  # all have begun: what they cost at the start is no hold
    watch = Watch()
    watching = asyncio.ensure_future(watch.run())
    expect(all(await asyncio.gather(*calls)), "a waiter was refused")
    cpu, took = time.process_time() - cpu, time.perf_counter() - start
    watching.cancel()
    ideal = ROUNDS * INTERVAL_MS / 1000
    return cpu / tasks * 1e6, took / ideal, watch.longest * 1000


def _rows(tasks: int, name: str) -> None:
    """The rows for so many tasks."""

    def measured(place: int) -> Callable[[Library], Answer]:
        return lambda lib: Answer(asyncio.run(_wait(lib, tasks))[place])

    text = f"{tasks:,} waiting tasks".replace(",", " ")
    row(f"waiting-{name}-cpu", f"{text}: CPU for each", "us", Target(times=1))(measured(0))
    row(f"waiting-{name}-time", f"{text}: time / ideal", "x", Target(times=1))(measured(1))
    row(f"waiting-{name}-hold", f"{text}: longest hold of the loop", "ms", None)(measured(2))


for number, label in ((100, "100"), (1000, "1000"), (10_000, "10000")):
    _rows(number, label)


@row("waiting-cancel", "10 000 waiting tasks: cancelling them all", "ms", Target(times=1))
def cancelled(lib: Library) -> Answer:
    async def measure() -> float:
        limiter = lib.limiter(lib.api.Rate(1, HOUR_MS), 0)
        expect(await limiter.try_acquire_async("first"), "refused with room to spare")
        calls = [asyncio.ensure_future(limiter.try_acquire_async("k")) for _ in range(10_000)]
        await asyncio.sleep(0.01)
        start = time.process_time()
        for call in reversed(calls):
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return (time.process_time() - start) * 1000

    return Answer(asyncio.run(measure()))


@row(
    "waiting-impatient",
    "limit 20 per 200 ms, 300 callers/s that give up after 0.3 s: share of the limit lost",
    "%",
    Target(at_most=5),
)
def impatient(lib: Library) -> Answer:
    limit, interval, seconds = 20, 0.2, 4.0

    async def measure() -> float:
        limiter = lib.limiter(lib.api.Rate(limit, round(interval * 1000)), 0)
        passed: list[float] = []
        begun = time.perf_counter()

        async def call() -> None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(limiter.try_acquire_async("k"), 0.3)
                passed.append(time.perf_counter() - begun)

        calls: list[Any] = []
        while (now := time.perf_counter() - begun) < seconds:
            while len(calls) < now * 300:
                calls.append(asyncio.ensure_future(call()))
            await asyncio.sleep(0.005)
        await asyncio.gather(*calls)
        used = sum(seconds / 2 < moment < seconds for moment in passed)
        return max(0.0, 100 - 100 * used / (limit * seconds / 2 / interval))

    return Answer(asyncio.run(measure()))


def _threads(lib: Library, number: int) -> Answer:
    limiter = lib.limiter(lib.api.Rate(number // ROUNDS, 200), 0)
    expect(limiter.try_acquire("first", weight=number // ROUNDS), "refused with room to spare")
    threads = [threading.Thread(target=limiter.try_acquire, args=("k",)) for _ in range(number)]
    cpu = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Answer((time.process_time() - cpu) / number * 1e6)


@row("waiting-threads-100", "100 waiting threads: CPU for each", "us", Target(times=1))
def hundred_threads(lib: Library) -> Answer:
    return _threads(lib, 100)


@row("waiting-threads-1000", "1 000 waiting threads: CPU for each", "us", Target(times=1))
def thousand_threads(lib: Library) -> Answer:
    return _threads(lib, 1000)
