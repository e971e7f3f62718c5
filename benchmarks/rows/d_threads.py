"""Several threads on one limiter."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.floors import ExactLog
from benchmarks.library import HOUR_MS, Moments
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.library import Library

LIMIT, INTERVAL_MS, UNITS = 50, 100, 500
IDEAL_S = (UNITS // LIMIT - 1) * INTERVAL_MS / 1000


def _in_threads(number: int, work: Callable[[], None]) -> None:
    """Run it in so many threads, which begin together."""
    together = threading.Barrier(number)

    def run() -> None:
        together.wait()
        work()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _cpu_per_call(call: Callable[[], Any], threads: int) -> tuple[float, list[Any]]:
    each = 40_000 // threads
    answers: list[Any] = []

    def work() -> None:
        answers.extend([call() for _ in range(each)])

    start = time.process_time()
    _in_threads(threads, work)
    spent = time.process_time() - start
    return spent / (each * threads) * 1e6, answers


def _floor() -> Answer:
    return Answer(_cpu_per_call(ExactLog(10**6, HOUR_MS).take, 4)[0])


def _blocking_calls(lib: Library, threads: int) -> Answer:
    limiter = lib.roomy()
    value, answers = _cpu_per_call(lambda: limiter.try_acquire("k"), threads)
    expect(all(answers), "refused with room to spare")
    expect(limiter.buckets()[0].count() == len(answers), "units missing")
    return Answer(value)


@row("threads-4-cpu", "4 threads on one limiter, CPU per call", "us", Target(times=6), _floor)
def four_threads(lib: Library) -> Answer:
    return _blocking_calls(lib, 4)


@row("threads-8-cpu", "8 threads on one limiter, CPU per call", "us", Target(times=6))
def eight_threads(lib: Library) -> Answer:
    return _blocking_calls(lib, 8)


@row(
    "threads-refused",
    "4 threads, blocking=False, refused with room to spare",
    "%",
    Target(at_most=0),
)
def refused_with_room(lib: Library) -> Answer:
    roomy = lib.roomy()
    _, answers = _cpu_per_call(lambda: roomy.try_acquire("k", blocking=False), 4)
    narrow = lib.limiter(lib.api.Rate(1000, HOUR_MS))
    _, admitted = _cpu_per_call(lambda: narrow.try_acquire("k", blocking=False), 4)
    return Answer(100 * answers.count(False) / len(answers), over=max(0, sum(admitted) - 1000))


def _paced(lib: Library, buffer_ms: int | None) -> Answer:
    limiter = lib.limiter(lib.api.Rate(LIMIT, INTERVAL_MS), buffer_ms)
    left = list(range(UNITS))
    moments = Moments(lib, limiter)

    def work() -> None:
        while True:
            try:
                left.pop()
            except IndexError:
                return
            limiter.try_acquire("k")
            moments.came_back()

    start = time.perf_counter()
    _in_threads(4, work)
    expect(len(moments.returned) == UNITS, "calls that did not come back")
    over, detail = moments.over(LIMIT, INTERVAL_MS / 1000)
    return Answer((max(moments.returned) - start) / IDEAL_S, over, detail)


@row(
    "threads-paced-default",
    "4 threads blocking at 50 per 100 ms, time for 500 / ideal",
    "x",
    Target(at_most=1.06),
)
def paced_default(lib: Library) -> Answer:
    return _paced(lib, None)


@row("threads-paced-0", "the same, buffer_ms=0", "x", Target(at_most=1.01))
def paced_unpadded(lib: Library) -> Answer:
    return _paced(lib, 0)
