"""Processes whose clocks disagree, on one key, some of them on release 4.5.1."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import redis

from tests.redis_servers import shared_url, sync_client

SHIFTS = (-5000, -700, 0, 5000)
WORKER = Path(__file__).parent.parent / "redis_fleet.py"


@pytest.fixture
def client():
    with sync_client(shared_url()) as client:
        yield client


def run_fleet(pythons, **given):
    """Run one process per interpreter; they start together."""
    processes = []
    for python, shift in zip(pythons, SHIFTS):
        arguments = json.dumps({"shift": shift, "url": shared_url(), "full": False, **given})
        process = subprocess.Popen(
            [python, WORKER, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        )
        processes.append(process)
    time.sleep(1)  # they import meanwhile
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [json.loads(process.communicate(timeout=50)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return outcomes


def most_in_a_window(client, key, interval):
    """The largest number of units in any window, the edges included, on the server's clock."""
    stamps = [score for _, score in client.zrange(key, 0, -1, withscores=True)]
    return max(
        sum(1 for other in stamps[at:] if other <= stamp + interval)
        for at, stamp in enumerate(stamps)
    )


def test_threads_of_four_processes_keep_to_the_limit_and_waste_nothing(client):
    key = f"fleet:{uuid.uuid4()}"
    given = {"key": key, "limit": 100, "interval": 60_000, "calls": 10, "threads": 8}
    outcomes = run_fleet(
        [sys.executable] * 4, blocking=False, reserve_ahead=True, **{**given, "full": True}
    )
    flat = [outcome for each in outcomes for outcome in each]
    assert sum(outcome is True for outcome in flat) == 100
    assert [outcome for outcome in flat if outcome is not True] == [0] * 220
    assert client.zcard(key) == 100


def test_threads_of_four_processes_waiting_keep_to_the_limit(client):
    key = f"fleet:{uuid.uuid4()}"
    given = {"key": key, "limit": 40, "interval": 400, "calls": 5, "threads": 8}
    outcomes = run_fleet([sys.executable] * 4, blocking=True, reserve_ahead=True, **given)
    assert [sum(each) for each in outcomes] == [40] * 4
    assert client.zcard(key) == 160
    assert most_in_a_window(client, key, 400) <= 40


def test_tasks_of_four_processes_are_served_in_order(client):
    key = f"fleet:{uuid.uuid4()}"
    given = {"key": key, "limit": 400, "interval": 500, "tasks": 200}
    outcomes = run_fleet([sys.executable] * 4, blocking=True, reserve_ahead=True, **given)
    assert outcomes == [list(range(200))] * 4
    assert client.zcard(key) == 800
    assert most_in_a_window(client, key, 500) <= 400


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The Python of an environment with release 4.5.1."""
    folder = tmp_path_factory.mktemp("older")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "pyrate-limiter==4.5.1", "redis"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return str(python)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("blocking", [False, True])
def test_a_mixed_fleet_holds_the_limit_together(client, older, blocking, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SHIFTS", (0, 0, 0, 0))  # 4.5.1 goes by each process's clock
    key = f"fleet:{uuid.uuid4()}"
    limit, interval, calls = (40, 400, 5) if blocking else (50, 60_000, 10)
    given = {"key": key, "limit": limit, "interval": interval, "calls": calls, "threads": 4}
    pythons = [sys.executable, older, sys.executable, older]
    outcomes = run_fleet(pythons, blocking=blocking, reserve_ahead=False, **given)
    # 4.5.1 stamps an item before it asks, and then overlooks what was stored with a later stamp:
    # each of its eight threads may be one unit over.
    assert most_in_a_window(client, key, interval) <= limit + 8
    admitted = sum(outcome is True for each in outcomes for outcome in each)
    if blocking:
        assert admitted == 80
    else:
        assert limit <= admitted <= limit + 8
        assert client.zcard(key) == admitted


def test_a_unit_of_a_fast_clock_counts_as_one_of_now(client):
    from pyrate_limiter import Rate, RateItem, RedisBucket

    key = f"fleet:{uuid.uuid4()}"
    bucket = RedisBucket([Rate(3, 300)], client, key)
    bucket.put(RateItem("a", bucket.now() + 3_600_000, 2))
    decision = bucket.claim(RateItem("a", bucket.now(), 2))
    assert not decision.allowed
    assert decision.retry_after_ms <= 301
    assert bucket.claim(RateItem("a", bucket.now(), 1)).allowed


def test_claims_come_back_with_a_clock_that_steps_back(client):
    from pyrate_limiter import Rate, RateItem, RedisBucket

    key = f"fleet:{uuid.uuid4()}"
    ahead = 3_600_000
    bucket = RedisBucket([Rate(2, 300)], client, key)
    now = int(time.time() * 1000)
    client.zadd(key, {f"a:{n}:1": now + ahead for n in range(2)})
    client.zadd(key, {f"a:{n}-301:1": now + ahead + 301 for n in range(2, 4)})
    decision = bucket.claim(RateItem("a", now, 1))
    assert not decision.allowed
    assert 500 < decision.retry_after_ms <= 602
    assert most_in_a_window(client, key, 300) == 2


def test_programs_with_a_client_for_each_release_find_the_same_units(client):
    key = f"fleet:{uuid.uuid4()}"
    client.zadd(key, {f"a:b:c326e752b8:{n}": 1_795_493_856_746 for n in (1, 2, 3)})
    from pyrate_limiter import Rate, RedisBucket

    bucket = RedisBucket([Rate(5, 1000)], client, key)
    assert str(bucket.peek(0)) == "RateItem(name=a:b, weight=1, timestamp=1795493856746)"
    assert bucket.count() == 3
    assert isinstance(client, redis.Redis)
