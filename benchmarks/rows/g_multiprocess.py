"""Buckets and states that processes share."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, wall_per_call
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from benchmarks.library import Library

STORED = 10_000
PROCESSES = 4


def _on(lib: Library, bucket: Any) -> Any:
    # No sweep: in 4.5.1 it makes calls that do not block fail while it holds the lock.
    factory = lib.api.limiter.SingleBucketFactory(bucket, schedule_leak=False)
    return lib.api.Limiter(factory)


def _bucket(lib: Library, limit: int, stored: int = 0) -> Any:
    bucket = lib.api.MultiprocessBucket.init([lib.api.Rate(limit, HOUR_MS)])
    if stored:
        expect(bucket.put(lib.api.RateItem("k", bucket.now(), stored)), "refused while filling")
    return bucket


def _admitted(lib: Library, stored: int) -> Answer:
    bucket = _bucket(lib, 10**6, stored)
    limiter = _on(lib, bucket)
    answers: list[bool] = []
    value = wall_per_call(lambda: answers.append(limiter.try_acquire("k")), 900)
    expect(all(answers), "refused with room to spare")
    expect(bucket.count() == len(answers) + stored, "units missing")
    return Answer(value)


def _denied(lib: Library, stored: int) -> Answer:
    limiter = _on(lib, _bucket(lib, stored, stored))
    answers: list[bool] = []

    def call() -> None:
        answers.append(limiter.try_acquire("k", blocking=False))

    value = wall_per_call(call, 450)
    return Answer(value, over=sum(answers))


def _floor() -> Answer:
    lock, shared = multiprocessing.Lock(), multiprocessing.RawArray("q", 1)

    def call() -> None:
        with lock:
            shared[0] += 1

    return Answer(wall_per_call(call, 9000))


@row("multiprocess-admitted", "multiprocess bucket, admitted", "us", Target(times=10), _floor)
def admitted(lib: Library) -> Answer:
    return _admitted(lib, 0)


@row("multiprocess-denied", "multiprocess bucket, denied", "us", Target(times=20))
def denied(lib: Library) -> Answer:
    return _denied(lib, 100)


@row(
    "multiprocess-stored-admitted",
    "multiprocess bucket, 10 000 units stored, admitted",
    "us",
    Target(times=10),
)
def stored_admitted(lib: Library) -> Answer:
    return _admitted(lib, STORED)


@row(
    "multiprocess-stored-denied",
    "multiprocess bucket, 10 000 units stored, denied",
    "us",
    Target(times=50),
)
def stored_denied(lib: Library) -> Answer:
    return _denied(lib, STORED)


def _share(lib: Library, bucket: Any, start: Any, answers: Any, calls: int) -> None:
    limiter = _on(lib, bucket)
    start.wait()
    answers.put(sum(bool(limiter.try_acquire("k")) for _ in range(calls)))


@row(
    "multiprocess-state",
    f"multiprocess state store (GCRA), {PROCESSES} processes, each call",
    "us",
    Target(times=20),
    _floor,
)
def state(lib: Library) -> Answer:
    """The time from start to end over the number of calls of all processes together."""
    context = multiprocessing.get_context("fork")
    store = lib.api.buckets.state_bucket.MultiprocessStateStore.init()
    bucket = lib.api.StateBucket([lib.api.Rate(10**7, HOUR_MS)], store=store)
    calls = 2000
    start, answers = context.Barrier(PROCESSES + 1), context.Queue()
    children = [
        context.Process(target=_share, args=(lib, bucket, start, answers, calls))
        for _ in range(PROCESSES)
    ]
    for child in children:
        child.start()
    start.wait()
    begun = time.perf_counter()
    admitted_units = sum(answers.get() for _ in children)
    spent = time.perf_counter() - begun
    for child in children:
        child.join()
    expect(admitted_units == PROCESSES * calls, "refused with room to spare")
    return Answer(spent / admitted_units * 1e6)
