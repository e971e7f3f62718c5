"""A bucket of its own for every key, and how much memory things take."""

from __future__ import annotations

import gc
import time
import tracemalloc
from array import array
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, median
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from benchmarks.library import Library

KEYS = 100_000
UNITS = 100_000


def _all_keys(limiter: Any, names: list[str]) -> float:
    """Microseconds of processor time for one key, each taken once."""
    start = time.process_time()
    admitted = sum([limiter.try_acquire(name, blocking=False) for name in names])
    spent = time.process_time() - start
    expect(admitted == len(names), f"{len(names) - admitted} refused with room to spare")
    return spent / len(names) * 1e6


def _names() -> list[str]:
    return [f"key-{number}" for number in range(KEYS)]


@row("key-create", "one bucket per key, 100 000 keys: create", "us", Target(times=5))
def key_create(lib: Library) -> Answer:
    limiter, names = lib.per_key(lib.api.Rate(2, HOUR_MS)), _names()
    return Answer(_all_keys(limiter, names))


@row("key-acquire", "one bucket per key, 100 000 keys: acquire", "us", Target(times=5))
def key_acquire(lib: Library) -> Answer:
    limiter, names = lib.per_key(lib.api.Rate(6, HOUR_MS)), _names()
    # The first makes the buckets, the second what a key's second unit needs.
    passes = [_all_keys(limiter, names) for _ in range(6)]
    value = median(passes[1:])
    over = max(limiter.try_acquire(name, blocking=False) for name in names[::1000])
    shown = ", ".join(f"{spent:.2f}" for spent in passes)
    return Answer(value, over=int(over), detail=f"in turn: {shown} us")


def _bytes_per_key(lib: Library, bucket: Any) -> Answer:
    limiter, names = lib.per_key(lib.api.Rate(1, HOUR_MS), bucket), _names()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for name in names:
        limiter.try_acquire(name, blocking=False)
    gc.collect()
    value = (tracemalloc.get_traced_memory()[0] - before) / len(names)
    tracemalloc.stop()
    again = sum(limiter.try_acquire(name, blocking=False) for name in names)
    return Answer(value, over=min(1, again))


@row("bytes-per-key", "bytes per key with one unit", "B", Target(at_most=300))
def bytes_per_key(lib: Library) -> Answer:
    return _bytes_per_key(lib, lib.api.InMemoryBucket)


@row("bytes-per-gcra-key", "bytes per GCRA key", "B", Target(at_most=250))
def bytes_per_gcra_key(lib: Library) -> Answer:
    return _bytes_per_key(lib, lib.api.StateBucket)


def _floor_units() -> Answer:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    stamps = array("q")
    for number in range(UNITS):
        stamps.append(number)
    return Answer((tracemalloc.get_traced_memory()[0] - before) / len(stamps))


@row("bytes-per-unit", "bytes per live unit", "B", Target(at_most=24), _floor_units)
def bytes_per_unit(lib: Library) -> Answer:
    """No two units share a millisecond: nothing is saved by writing a moment once."""
    bucket = lib.api.InMemoryBucket([lib.api.Rate(UNITS, HOUR_MS)])
    clock = bucket._clock = lib.manual_clock()
    limiter = lib.limiter(bucket)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(UNITS):
        clock.ms += 7
        limiter.try_acquire("k", blocking=False)
    gc.collect()
    value = (tracemalloc.get_traced_memory()[0] - before) / UNITS
    expect(bucket.count() == UNITS, "refused with room to spare")
    return Answer(value, over=int(limiter.try_acquire("k", blocking=False)))
