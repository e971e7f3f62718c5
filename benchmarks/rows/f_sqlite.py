"""A SQLite file: one process, many rows, several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.library import HOUR_MS, Library, wall_per_call
from benchmarks.registry import Answer, Target, expect, row

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES, EACH = 4, 400


@contextlib.contextmanager
def _file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield str(Path(folder) / "limits.db")


def _bucket(lib: Library, path: str, limit: int, **options: Any) -> Any:
    rates = [lib.api.Rate(limit, HOUR_MS)]
    return lib.api.SQLiteBucket.init_from_file(rates, db_path=path, **options)


def _admitted(
    lib: Library, live: int = 0, calls: int = 900, how: Any = None, **options: Any
) -> Answer:
    how = how or {"blocking": False}
    with _file() as path:
        bucket = _bucket(lib, path, 10**7, **options)
        if live:
            bucket.put(lib.api.RateItem("k", bucket.now(), live))
        limiter = lib.api.Limiter(bucket)
        value = wall_per_call(lambda: limiter.try_acquire("k", **how), calls)
        expect(bucket.count() == live + calls // 9 * 9, "refused with room to spare")
        limiter.close()
    return Answer(value)


def _denied(lib: Library, live: int, calls: int) -> Answer:
    with _file() as path:
        bucket = _bucket(lib, path, live)
        bucket.put(lib.api.RateItem("k", bucket.now(), live))
        limiter = lib.api.Limiter(bucket)
        value = wall_per_call(lambda: limiter.try_acquire("k", blocking=False), calls)
        over = bucket.count() - live
        limiter.close()
    return Answer(value, over=over)


def _floor() -> Answer:
    with _file() as path:
        conn = sqlite3.connect(path, isolation_level=None)
        run = conn.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        run("CREATE TABLE log (name VARCHAR, item_timestamp INTEGER)")

        def take() -> None:
            run("BEGIN IMMEDIATE")
            run("SELECT item_timestamp FROM log WHERE rowid = ?", (1,)).fetchone()
            run("INSERT INTO log VALUES (?, ?)", ("k", time.time_ns() // 1_000_000))
            run("COMMIT")

        value = wall_per_call(take, 3000)
        conn.close()
    return Answer(value)


@row("sqlite-admitted", "SQLite, admitted", "us wall", Target(times=8), floor=_floor)
def sqlite_admitted(lib: Library) -> Answer:
    return _admitted(lib)


@row("sqlite-file-lock", "SQLite, admitted, with the file lock", "us wall", Target(times=5))
def sqlite_file_lock(lib: Library) -> Answer:
    # Without a timeout 4.5.1 cannot take a lock of filelock 4.
    return _admitted(lib, use_file_lock=True, how={"timeout": 5})


@row("sqlite-denied", "SQLite, denied", "us wall", Target(times=5))
def sqlite_denied(lib: Library) -> Answer:
    return _denied(lib, 10, 1800)


@row("sqlite-admitted-100k", "SQLite, 100 000 live rows: admitted", "us wall", Target(times=50))
def sqlite_admitted_100k(lib: Library) -> Answer:
    return _admitted(lib, live=100_000, calls=90)


@row("sqlite-denied-100k", "SQLite, 100 000 live rows: denied", "us wall", Target(times=50))
def sqlite_denied_100k(lib: Library) -> Answer:
    return _denied(lib, 100_000, 90)


def _work(path: str, start: Any, done: Any) -> None:
    lib = Library()
    limiter = lib.api.Limiter(_bucket(lib, path, 10**7))
    start.wait()
    begun = time.perf_counter()
    answers = [limiter.try_acquire("k") for _ in range(EACH)]
    done.put((begun, time.perf_counter(), answers.count(True)))
    limiter.close()


@row("sqlite-processes", "SQLite, 4 processes on one file, blocking", "us wall", Target(times=4))
def sqlite_processes(lib: Library) -> Answer:
    spawn = multiprocessing.get_context("spawn")
    with _file() as path:
        _bucket(lib, path, 10**7).close()
        start, done = spawn.Barrier(PROCESSES), spawn.Queue()
        workers = [spawn.Process(target=_work, args=(path, start, done)) for _ in range(PROCESSES)]
        for worker in workers:
            worker.start()
        spans = [done.get(timeout=300) for _ in workers]
        for worker in workers:
            worker.join()
        bucket = _bucket(lib, path, 10**7)
        stored = bucket.count()
        bucket.close()
    admitted = sum(span[2] for span in spans)
    expect(admitted == PROCESSES * EACH, f"{PROCESSES * EACH - admitted} refused with room")
    expect(stored >= admitted, "units missing")
    elapsed = max(span[1] for span in spans) - min(span[0] for span in spans)
    return Answer(elapsed / admitted * 1e6)
