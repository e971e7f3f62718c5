"""Processes on one SQLite file: killed, suspended, running 4.5.1."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pyrate_limiter import Rate, RateItem, SQLiteBucket

pytestmark = pytest.mark.alone

WORKER = """
    import os, sys, time
    from pyrate_limiter import Limiter, Rate, SQLiteBucket

    path, limit, interval, seconds, how = sys.argv[1:]
    bucket = SQLiteBucket.init_from_file(
        [Rate(int(limit), int(interval))], db_path=path, use_file_lock=how == "lock"
    )
    options = {} if how != "lock" or not hasattr(Limiter, "check") else {"reserve_ahead": False}
    limiter = Limiter(bucket, **options)
    limiter.dispose(bucket)  # it is swept no more: the rows stay for the test to look at
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.time() + float(seconds)
    while time.time() < end:
        if limiter.try_acquire(str(os.getpid()), timeout=5) is True:
            print(time.time_ns() // 1_000_000, flush=True)
"""


def start(path, limit, interval, seconds, how="plain", python=sys.executable):
    process = subprocess.Popen(
        [python, "-c", textwrap.dedent(WORKER), path, str(limit), str(interval), str(seconds), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(path).parent,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def admissions(process):
    output, _ = process.communicate(timeout=60)
    # A killed process may have left half a line.
    return [int(line) for line in output.splitlines() if len(line) == 13]


def units(path):
    conn = sqlite3.connect(path)
    try:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return conn.execute(
            "SELECT name, item_timestamp FROM rate_bucket ORDER BY rowid"
        ).fetchall()
    finally:
        conn.close()


def stored(path):
    return [stamp for _, stamp in units(path)]


def assert_within(stamps, limit, interval):
    stamps = sorted(stamps)
    for first, last in zip(stamps, stamps[limit:]):
        assert last - first > interval, f"{limit + 1} units within {last - first} ms"


@pytest.mark.parametrize("how", ["plain", "lock"])
def test_processes_that_are_killed_and_suspended_keep_to_the_limit(tmp_path, how):
    path = str(tmp_path / "limits.db")
    limit, interval, seconds = 30, 200, 5.0  # too few for the bucket to drop any
    processes = [start(path, limit, interval, seconds, how) for _ in range(8)]
    go(processes)
    rng = random.Random(7)
    doomed, sleepers = processes[:3], processes[3:5]
    died = {}
    for process, sleeper in zip(doomed, [*sleepers, None]):
        time.sleep(0.3 + rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        died[str(process.pid)] = time.time() * 1000
        if sleeper is not None:
            sleeper.send_signal(signal.SIGSTOP)
            time.sleep(1.0)
            sleeper.send_signal(signal.SIGCONT)
    last_trouble = time.time() * 1000
    seen = [admissions(process) for process in processes]
    for process in processes[3:]:
        assert process.returncode == 0
    rows = stored(path)
    assert rows == sorted(rows)
    # A reservation of one who died is a unit that nobody has used.
    used = [stamp for name, stamp in units(path) if stamp <= died.get(name, stamp)]
    assert_within(used, limit, interval)
    for survivor in seen[5:]:
        assert any(last_trouble < stamp < last_trouble + 2000 for stamp in survivor)
    # All that was told to a caller is in the log; beside it only what the killed ones held.
    told = sum(map(len, seen))
    assert told > 15 * limit
    assert told <= len(rows) <= told + len(doomed)


def test_processes_with_room_to_spare_are_never_refused(tmp_path):
    path = str(tmp_path / "limits.db")
    program = """
        import sys
        from pyrate_limiter import Limiter, Rate, SQLiteBucket
        limiter = Limiter(SQLiteBucket.init_from_file([Rate(800, 600_000)], db_path=sys.argv[1]))
        print("ready", flush=True)
        sys.stdin.readline()
        print([limiter.try_acquire("x", blocking=False) for _ in range(300)].count(True))
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go(processes)
    assert sum(int(process.communicate(timeout=60)[0]) for process in processes) == 800
    assert len(stored(path)) == 800


def test_nobody_is_refused_with_room_to_spare_while_others_are_killed(tmp_path):
    path, limit = str(tmp_path / "limits.db"), 3000
    program = """
        import sys
        from pyrate_limiter import Limiter, Rate, SQLiteBucket
        bucket = SQLiteBucket.init_from_file([Rate(int(sys.argv[2]), 600_000)], db_path=sys.argv[1])
        limiter = Limiter(bucket)
        print("ready", flush=True)
        sys.stdin.readline()
        while limiter.try_acquire("x", blocking=False):
            print("y", end="", flush=True)
        print(bucket.count(), flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), path, str(limit)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go(processes)
    with SQLiteBucket.init_from_file([Rate(limit, 600_000)], db_path=path) as bucket:
        for number, doomed in enumerate(processes[:4], 1):
            while bucket.count() < number * 200:
                time.sleep(0.001)
            doomed.kill()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    # The first refusal of each survivor was right: the log was full.
    assert [output.lstrip("y") for output in outputs[4:]] == [f"{limit}\n"] * 4
    told = sum(output.count("y") for output in outputs)
    assert len(stored(path)) == limit
    assert told <= limit <= told + 4  # what each of the killed had in hand


def test_processes_are_served_in_the_order_in_which_they_came(tmp_path):
    path = str(tmp_path / "limits.db")
    program = """
        import sys, time
        from pyrate_limiter import Limiter, Rate, SQLiteBucket
        limiter = Limiter(SQLiteBucket.init_from_file([Rate(1, 300)], db_path=sys.argv[1]))
        print("ready", flush=True)
        sys.stdin.readline()
        assert limiter.try_acquire("x")
        print(time.time())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), path]
    with SQLiteBucket.init_from_file([Rate(1, 300)], db_path=path) as bucket:
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(5)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        assert bucket.put(RateItem("first", bucket.now()))
        for number, process in enumerate(processes):
            go([process])
            while bucket.count() == number + 1:
                time.sleep(0.001)
    served = [float(process.communicate(timeout=60)[0]) for process in processes]
    assert served == sorted(served)


def test_a_unit_counts_after_its_process_was_killed(tmp_path):
    path = str(tmp_path / "limits.db")
    program = """
        import os, signal, sys
        from pyrate_limiter import Rate, RateItem, SQLiteBucket
        bucket = SQLiteBucket.init_from_file([Rate(3, 600_000)], db_path=sys.argv[1])
        assert bucket.put(RateItem("x", bucket.now(), 2))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), path], check=False)
    assert done.returncode == -signal.SIGKILL
    with SQLiteBucket.init_from_file([Rate(3, 600_000)], db_path=path) as bucket:
        assert bucket.count() == 2
        assert not bucket.put(RateItem("x", bucket.now(), 2))
        assert bucket.put(RateItem("x", bucket.now()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on_with_a_connection_of_its_own(tmp_path):
    with SQLiteBucket.init_from_file([Rate(3, 600_000)], db_path=tmp_path / "limits.db") as bucket:
        assert bucket.put(RateItem("parent", bucket.now()))
        child = os.fork()
        if child == 0:
            try:
                admitted = bucket.put(RateItem("child", bucket.now()))
                os._exit(0 if admitted and bucket.count() == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bucket.count() == 2
        assert bucket.peek(0).name == "child"
        assert bucket.put(RateItem("parent", bucket.now()))
        assert not bucket.put(RateItem("parent", bucket.now()))


def test_a_mixed_fleet_keeps_to_the_limit(tmp_path, older):
    path = str(tmp_path / "limits.db")
    limit, interval = 40, 400
    old = [start(path, limit, interval, 4.0, "lock", older) for _ in range(2)]
    new = [start(path, limit, interval, 4.0, "lock") for _ in range(3)]
    go([*old, *new])
    seen = [admissions(process) for process in [*old, *new]]
    assert all(process.returncode == 0 for process in [*old, *new])
    assert sum(map(len, seen[:2])) > 0
    assert sum(map(len, seen[2:])) > 0
    assert_within(stored(path), limit, interval)


def test_a_file_that_451_wrote_still_counts(tmp_path, older):
    path = str(tmp_path / "limits.db")
    program = """
        import sys
        from pyrate_limiter import Rate, RateItem, SQLiteBucket
        bucket = SQLiteBucket.init_from_file([Rate(10, 600_000)], db_path=sys.argv[1])
        now = bucket.now()
        for name, stamp in (("a", now), ("late", now - 500), ("b", now + 1)):
            assert bucket.put(RateItem(name, stamp, 2))
        bucket.close()
    """
    subprocess.run([older, "-c", textwrap.dedent(program), path], check=True, timeout=60)
    with SQLiteBucket.init_from_file([Rate(10, 600_000)], db_path=path) as bucket:
        assert bucket.count() == 6
        assert not bucket.put(RateItem("c", bucket.now(), 5))
        assert bucket.put(RateItem("c", bucket.now(), 4))
        assert not bucket.put(RateItem("c", bucket.now()))
        assert [bucket.peek(place).name for place in (0, 4, 6, 8)] == ["c", "b", "late", "a"]
    check = """
        import sys
        from pyrate_limiter import Rate, RateItem, SQLiteBucket
        bucket = SQLiteBucket.init_from_file([Rate(10, 600_000)], db_path=sys.argv[1])
        assert bucket.count() == 10
        assert not bucket.put(RateItem("d", bucket.now()))
    """
    subprocess.run([older, "-c", textwrap.dedent(check), path], check=True, timeout=60)
