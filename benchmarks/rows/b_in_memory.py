"""Logs and states in memory, one caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.floors import ExactLog
from benchmarks.library import HOUR_MS, cpu_per_call, median
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.library import Library

CALLS = 30_000


def _floor_admitted() -> Answer:
    log = ExactLog(10**6, HOUR_MS)
    return Answer(cpu_per_call(log.take, CALLS))


def _floor_denied() -> Answer:
    log = ExactLog(10, HOUR_MS)
    while log.take():
        pass
    return Answer(cpu_per_call(log.take, CALLS))


def _admitted(limiter: Any) -> Answer:
    bucket = limiter.buckets()[0]
    answers: list[bool] = []

    def call() -> None:
        answers.append(limiter.try_acquire("k", blocking=False))

    value = cpu_per_call(call, CALLS)
    expect(all(answer is True for answer in answers), "refused with room to spare")
    expect(bucket.count() == len(answers), f"{bucket.count()} units for {len(answers)} admitted")
    return Answer(value)


def _denied(limiter: Any) -> Answer:
    answers: list[bool] = []

    def call() -> None:
        answers.append(limiter.try_acquire("k", blocking=False))

    value = cpu_per_call(call, CALLS)
    return Answer(value, over=sum(answers))


@row("admitted-1-rate", "in memory, admitted, 1 rate", "us", Target(times=6), _floor_admitted)
def admitted_one(lib: Library) -> Answer:
    return _admitted(lib.roomy())


@row("admitted-3-rates", "in memory, admitted, 3 rates", "us", Target(times=6))
def admitted_three(lib: Library) -> Answer:
    limits = ((10**6, 1000), (10**7, 60_000), (10**8, HOUR_MS))
    return _admitted(lib.limiter([lib.api.Rate(*limit) for limit in limits]))


@row("denied-1-rate", "in memory, denied, 1 rate", "us", Target(times=7), _floor_denied)
def denied_one(lib: Library) -> Answer:
    return _denied(lib.full())


@row("denied-3-rates", "in memory, denied, 3 rates", "us", Target(times=7))
def denied_three(lib: Library) -> Answer:
    limits = ((10**6, 1000), (2 * 10**6, 60_000), (3 * 10**6, HOUR_MS))
    bucket = lib.api.InMemoryBucket([lib.api.Rate(*limit) for limit in limits])
    limiter = lib.limiter(bucket)
    # Filled an instant ago: it is the shortest rate that denies, for a second, in every chunk.
    clock = bucket._clock = lib.manual_clock()
    bucket.put(lib.api.RateItem("k", clock.now(), 10**6))
    return _denied(limiter)


@row("decorator", "as_decorator around a sync function", "us", Target(times=5))
def decorator(lib: Library) -> Answer:
    limiter = lib.roomy()
    ran: list[int] = []
    decorated = limiter.as_decorator(name="k")(ran.append)
    value = cpu_per_call(lambda: decorated(1), CALLS)
    expect(limiter.buckets()[0].count() == len(ran), "calls that were not counted")
    return Answer(value)


@row("weight-10000", "in memory, weight 10 000", "us", Target(times=100))
def heavy(lib: Library) -> Answer:
    limiter = lib.roomy()
    bucket = limiter.buckets()[0]
    answers: list[bool] = []

    def call() -> None:
        answers.append(limiter.try_acquire("k", weight=10_000, blocking=False))

    value = cpu_per_call(call, 300)
    expect(all(answers), "refused with room to spare")
    expect(bucket.count() == 10_000 * len(answers), "units missing")
    return Answer(value)


@row(
    "live-window",
    "live window of 10 to 1 000 000 units, slowest / fastest",
    "x",
    Target(at_most=1.3),
)
def live_window(lib: Library) -> Answer:
    """A log at its limit, in which one unit leaves for each that comes."""
    sizes = (10, 1000, 100_000, 1_000_000)
    limiters = [_at_its_limit(lib, size) for size in sizes]
    # In turns, so that what else the machine does hits all sizes alike.
    rounds: list[list[float]] = [[] for _ in sizes]
    for _ in range(15):
        for (limiter, clock), found in zip(limiters, rounds, strict=True):
            found.append(cpu_per_call(_steady(limiter, clock), 1000, 1))
    for limiter, clock in limiters:
        expect(limiter.try_acquire("k", blocking=False) is False, "one too many")
        clock.ms += 2
        expect(limiter.try_acquire("k", blocking=False) is True, "refused with room to spare")
    times = [median(found) for found in rounds]
    shown = ", ".join(f"{size}: {spent:.2f} us" for size, spent in zip(sizes, times, strict=True))
    return Answer(max(times) / min(times), detail=shown)


def _at_its_limit(lib: Library, size: int) -> tuple[Any, Any]:
    # A unit every 2 ms. Each leaves 1 ms before the one that needs its place comes.
    bucket = lib.api.InMemoryBucket([lib.api.Rate(size, 2 * size - 2)])
    clock = bucket._clock = lib.manual_clock()
    for _ in range(size):
        clock.ms += 2
        expect(bucket.put(lib.api.RateItem("k", clock.ms)), "refused while filling")
    limiter = lib.limiter(bucket)
    return limiter, clock


def _steady(limiter: Any, clock: Any) -> Any:
    def call() -> None:
        clock.ms += 2
        if not limiter.try_acquire("k", blocking=False):
            expect(condition=False, message="refused with room to spare")

    return call


def _put(live: int) -> Callable[[Library], Answer]:
    def measure(lib: Library) -> Answer:
        """`put` called by the program itself, with items stamped by the bucket's clock."""
        api = lib.api
        bucket = api.InMemoryBucket([api.Rate(10**9, HOUR_MS)])
        clock = bucket._clock = lib.manual_clock()

        def put() -> None:
            clock.ms += 1
            if not bucket.put(api.RateItem("k", clock.ms)):
                expect(condition=False, message="refused with room to spare")

        for _ in range(live):
            put()
        value = cpu_per_call(put, CALLS)
        expect(bucket.count() >= live + CALLS - 15, "units missing")
        return Answer(value)

    return measure


for _live in (1000, 100_000, 1_000_000):
    row(
        f"put-{_live}-live",
        f"bucket.put with {_live:,} live units".replace(",", " "),
        "us",
        Target(times=1),
    )(_put(_live))


@row("gcra-admitted", "GCRA in memory, admitted", "us", Target(times=6))
def gcra_admitted(lib: Library) -> Answer:
    rate = lib.api.Rate(10**7, HOUR_MS)
    limiter = lib.limiter(lib.api.StateBucket([rate]))
    answers: list[bool] = []

    def call() -> None:
        answers.append(limiter.try_acquire("k", blocking=False))

    value = cpu_per_call(call, CALLS)
    expect(all(answer is True for answer in answers), "refused with room to spare")
    owed = limiter.buckets()[0].count()
    expect(0.5 * len(answers) < owed <= len(answers), f"{owed} owed for {len(answers)} admitted")
    return Answer(value)


@row("gcra-denied", "GCRA in memory, denied", "us", Target(times=6))
def gcra_denied(lib: Library) -> Answer:
    limiter = lib.limiter(lib.api.StateBucket([lib.api.Rate(10, HOUR_MS)]))
    expect(limiter.try_acquire("k", weight=10, blocking=False), "refused with room to spare")
    return _denied(limiter)
