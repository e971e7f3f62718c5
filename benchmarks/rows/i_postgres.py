"""One table of PostgreSQL."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, wall_per_call
from benchmarks.registry import Answer, Target, expect, row
from benchmarks.servers import POSTGRES_DSN

if TYPE_CHECKING:
    from benchmarks.library import Library

FEW, LIVE = 10, 100_000


def _pool(size: int = 4) -> Any:
    from psycopg_pool import ConnectionPool

    pool = ConnectionPool(os.environ[POSTGRES_DSN], min_size=size, max_size=size, open=True)
    pool.wait()
    return pool


def _bucket(lib: Library, pool: Any, limit: int, interval_ms: int = HOUR_MS) -> Any:
    table = f"bench_{os.getpid()}_{time.monotonic_ns()}"
    return lib.api.PostgresBucket(pool, table, [lib.api.Rate(limit, interval_ms)])


def _measure(lib: Library, stored: int, calls: int, *, admitted: bool, age_ms: int = 0) -> Answer:
    """On a table with so many rows of that age, which are old after an hour."""
    with _pool() as pool:
        bucket = _bucket(lib, pool, stored + (10 * calls if admitted else 0))
        each = min(stored, 5000)
        for _ in range(stored // each):
            item = lib.api.RateItem("k", bucket.now() - age_ms, each)
            expect(bucket.put(item), "not filled")
        # A sweep of 4.5.1 has everybody else refused while it lasts.
        limiter = lib.api.Limiter(lib.api.SingleBucketFactory(bucket, schedule_leak=False))
        before = bucket.count()
        answers: list[Any] = []
        value = wall_per_call(
            lambda: answers.append(limiter.try_acquire("k", blocking=False)), calls
        )
        expect(answers == [admitted] * len(answers), "wrong answers")
        if not age_ms:  # else some are cleaned up on the way
            expect(bucket.count() - before == (len(answers) if admitted else 0), "wrong count")
    return Answer(value)


def _floor() -> Answer:
    """One function call that locks, reads the clock and inserts; the commit does not wait."""
    import psycopg

    name = f"floor_{os.getpid()}"
    with psycopg.connect(os.environ[POSTGRES_DSN], autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE {name} (at timestamptz); CREATE INDEX ON {name} (at); "
            f"CREATE FUNCTION {name}() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN "
            "PERFORM pg_advisory_xact_lock(1); "
            "PERFORM set_config('synchronous_commit', 'off', true); "
            f"INSERT INTO {name} VALUES (clock_timestamp()); RETURN 1; END$$"
        )
        return Answer(
            wall_per_call(lambda: connection.execute(f"SELECT {name}()").fetchone(), 1000)
        )


@row("postgres-admitted", "Postgres, admitted", "us", Target(times=4), _floor)
def admitted(lib: Library) -> Answer:
    return _measure(lib, FEW, 500, admitted=True)


@row("postgres-denied", "Postgres, denied", "us", Target(times=4))
def denied(lib: Library) -> Answer:
    return _measure(lib, FEW, 500, admitted=False)


@row("postgres-live-admitted", "Postgres, 100 000 live rows, admitted", "us", Target(times=20))
def live_admitted(lib: Library) -> Answer:
    return _measure(lib, LIVE, 50, admitted=True)


@row("postgres-live-denied", "Postgres, 100 000 live rows, denied", "us", Target(times=20))
def live_denied(lib: Library) -> Answer:
    return _measure(lib, LIVE, 50, admitted=False)


@row("postgres-expired-admitted", "Postgres, 100 000 expired rows, admitted", "us")
def expired_admitted(lib: Library) -> Answer:
    return _measure(lib, LIVE, 500, admitted=True, age_ms=2 * HOUR_MS)


def _in_threads(lib: Library, *, blocking: bool) -> tuple[float, list[Any]]:
    with _pool(8) as pool:
        limiter = lib.api.Limiter(_bucket(lib, pool, 10**6))
        answers: list[Any] = []
        each = 60

        def work() -> None:
            answers.extend([limiter.try_acquire("k", blocking=blocking) for _ in range(each)])

        threads = [threading.Thread(target=work) for _ in range(8)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - start) / (8 * each) * 1e6, answers


@row("postgres-weight-1000", "Postgres, weight 1 000", "us", Target(times=1))
def weight(lib: Library) -> Answer:
    with _pool() as pool:
        bucket = _bucket(lib, pool, 10**6)
        limiter = lib.api.Limiter(lib.api.SingleBucketFactory(bucket, schedule_leak=False))
        answers: list[Any] = []
        value = wall_per_call(
            lambda: answers.append(limiter.try_acquire("k", weight=1000, blocking=False)), 30
        )
        expect(all(answers), "refused with room to spare")
        expect(bucket.count() == 1000 * len(answers), "wrong count")
    return Answer(value)


@row("postgres-threads", "Postgres, 8 threads, blocking", "us", Target(times=4))
def threads_blocking(lib: Library) -> Answer:
    value, answers = _in_threads(lib, blocking=True)
    expect(all(answers), "refused with room to spare")
    return Answer(value)


@row(
    "postgres-threads-refused",
    "Postgres, 8 threads, blocking=False, refused with room to spare",
    "%",
    Target(at_most=0),
)
def threads_refused(lib: Library) -> Answer:
    _, answers = _in_threads(lib, blocking=False)
    return Answer(100 * answers.count(False) / len(answers))
