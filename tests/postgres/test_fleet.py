"""Many processes on one table: the limit is held together, and nobody is refused with room."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from pyrate_limiter import FixedWindow, Limiter, PostgresBucket, PostgresKeys, Rate, RateItem
from pyrate_limiter._core.waited_for import waited_for
from tests.support import postgres_fixtures as postgres

pytestmark = pytest.mark.alone

WORKER = Path(__file__).parents[1] / "support" / "postgres_worker.py"

AHEAD_MS = 1000  # what the processes reserve ahead


def start(table, kind, *words, python=sys.executable):
    """The words are count, calls, seconds, limit and interval."""
    return subprocess.Popen(
        [python, WORKER, postgres.dsn(), table, kind, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    with process:
        answer = json.loads(process.stdout.read().removeprefix("ready\n"))
    assert process.returncode == 0
    assert answer["errors"] == []
    return answer["results"]


def stamps(table):
    """When each unit was stored, in ms."""
    return [
        row[0]
        for row in postgres.execute(
            "SELECT (extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint "
            f"FROM ratelimit___{table} WHERE weight > 0 ORDER BY 1"
        )
    ]


def assert_kept(units, limit, interval):
    over = [
        (earlier, later)
        for earlier, later in zip(units, units[limit:])
        if later - earlier <= interval
    ]
    assert over == []


def watched(table, limit, interval):
    """A table that notes the order in which the server carries acquisitions out."""
    with postgres.pool(size=1) as pool:
        PostgresBucket(pool, table, [Rate(limit, interval)])
    postgres.execute(
        f"CREATE TABLE noted_{table} (number SERIAL, name TEXT, at_ms BIGINT); "
        f"CREATE FUNCTION note_{table}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
        f"INSERT INTO public.noted_{table} (name, at_ms) VALUES (NEW.name, NEW.at_ms); "
        "RETURN NULL; END$$; "
        f"CREATE TRIGGER note AFTER INSERT ON ratelimit___{table} "
        f"FOR EACH ROW WHEN (NEW.weight > 0) EXECUTE FUNCTION note_{table}()"
    )


def assert_first_come_first_served(table, results):
    """Who came first to the server was given the earlier moment, but for the look ahead."""
    noted = postgres.execute(f"SELECT name, at_ms FROM noted_{table} ORDER BY number")
    last = dict(noted)  # one that was too late begins anew
    front = 0
    for name, moment in noted:
        if last[name] == moment:
            assert moment >= front - AHEAD_MS
            front = max(front, moment)
    # What is reserved for a waiter of a process may be used by another that stands before it.
    went, moments = defaultdict(list), defaultdict(list)
    for _, name, moment in results:
        process = name.split("-")[0]
        went[process].append(moment * 1000)
        moments[process].append(last[name])
    for process, times in went.items():
        pairs = zip(sorted(times), sorted(moments[process]))
        assert [(at, moment) for at, moment in pairs if at < moment - 1] == []


@contextlib.contextmanager
def killing(fleet):
    """Kill connections, one by one, once all processes have made their buckets; gives those."""
    for process in fleet:
        assert process.stdout.readline() == "ready\n"
    killed, over = [], threading.Event()

    def kill():
        while not over.wait(0.02):
            killed.extend(
                postgres.execute(
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
                    "WHERE query ~ 'pyrate_limiter_|ratelimit___' AND pid <> pg_backend_pid() "
                    "ORDER BY random() LIMIT 1) one"
                )
            )

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


@pytest.mark.parametrize(
    ("kind", "count", "calls", "kills"),
    [
        ("blocking", 8, 6, False),
        ("blocking", 8, 6, True),
        ("tasks", 100, 1, False),
        ("tasks", 100, 1, True),
        ("own", 8, 3, True),
    ],
)
def test_four_processes_are_served_in_order_within_the_limit(kind, count, calls, kills):
    table, limit, interval = postgres.table(), 60, 300
    watched(table, limit, interval)
    fleet = [start(table, kind, count, calls, 45, limit, interval) for _ in range(4)]
    with killing(fleet) if kills else contextlib.nullcontext(range(9)) as killed:
        results = [result for process in fleet for result in finish(process)]
    assert len(killed) > 2
    assert len(results) == 4 * count * calls
    assert all(admitted for admitted, _, _ in results)
    units = stamps(table)
    assert len(units) == len(results)
    assert_kept(units, limit, interval)
    assert_first_come_first_served(table, results)


def test_nobody_is_refused_while_there_is_room():
    table = postgres.table()
    fleet = [start(table, "nonblocking", 8, 12, 0, 300, 3_600_000) for _ in range(4)]
    results = [result for process in fleet for result in finish(process)]
    assert len(results) == 384
    assert sum(admitted for admitted, _, _ in results) == 300


def test_connections_that_are_killed_lose_nothing():
    table, limit = postgres.table(), 200
    fleet = [start(table, "nonblocking", 4, 60, 0, limit, 3_600_000) for _ in range(2)]
    with killing(fleet):
        results = [result for process in fleet for result in finish(process)]
    assert sum(admitted for admitted, _, _ in results) == limit
    assert len(stamps(table)) == limit


def test_a_mixed_fleet_holds_the_limit_together(older):
    table, limit = postgres.table(), 150
    fleet = [
        start(table, "nonblocking", 3, 60, 0, limit, 3_600_000, python=python)
        for python in (sys.executable, older, sys.executable, older)
    ]
    admitted = [sum(result[0] for result in finish(process)) for process in fleet]
    assert sum(admitted) <= limit
    # 4.5.1 refuses while it cannot have the lock; whoever is left over takes the rest.
    rest = finish(start(table, "nonblocking", 1, limit, 0, limit, 3_600_000))
    assert sum(admitted) + sum(result[0] for result in rest) == limit
    assert len(stamps(table)) == limit


def test_a_mixed_fleet_waits_together(older):
    table, limit, interval = postgres.table(), 20, 400
    fleet = [
        start(table, "retrying", 3, 12, 45, limit, interval),
        # It never waits, so it goes on asking until there is room between ours.
        start(table, "nonblocking", 3, 400, 3, limit, interval, python=older),
    ]
    results = [finish(process) for process in fleet]
    assert all(admitted for admitted, _, _ in results[0])
    assert any(admitted for admitted, _, _ in results[1])
    assert_kept(stamps(table), limit, interval)


def test_units_of_4_5_1_count_and_ours_are_seen_by_it(older):
    table = postgres.table()
    old = finish(start(table, "nonblocking", 1, 3, 0, 10, 3_600_000, python=older))
    with postgres.pool() as pool:
        bucket = PostgresBucket(pool, table, [Rate(10, 3_600_000)])
        limiter = Limiter(bucket)
        assert sum(admitted for admitted, _, _ in old) == 3
        assert limiter.acquire("a", 3).remaining == 4
        old = finish(start(table, "nonblocking", 1, 9, 0, 10, 3_600_000, python=older))
        assert sum(admitted for admitted, _, _ in old) == 4
        assert bucket.peek(0).name != "a"
        assert not limiter.try_acquire("a", blocking=False)
        ours = [bucket.peek(place).name == "a" for place in (0, 4, 6, 7)]
        assert ours == [False, True, True, False]


def test_names_are_limited_by_themselves_and_do_not_wait_for_each_other():
    table = postgres.table()
    with postgres.pool(size=4) as pool:
        keys = PostgresKeys(pool, table)
        limiter = Limiter.per_key(Rate(2, 60_000), bucket=keys)
        assert [limiter.try_acquire("a", blocking=False) for _ in range(3)] == [True, True, False]
        assert limiter.try_acquire("b", 2, blocking=False)
        assert limiter.check("a").remaining == 0
        assert limiter.check("c").remaining == 2
        bucket = limiter.bucket_factory.bucket
        with pool.connection() as holder:  # somebody is at work on "a"
            holder.execute("SELECT pg_advisory_xact_lock(" + bucket._steps.lock("a") + ")")
            began = time.monotonic()
            assert limiter.try_acquire("d", blocking=False)
            assert not limiter.try_acquire("a", 2, timeout=0.2)
            assert 0.15 < time.monotonic() - began < 10
        assert bucket.count() == 5


def units_by_name(table):
    return dict(
        postgres.execute(f"SELECT name, sum(units) FROM {table} WHERE weight > 0 GROUP BY 1")
    )


def somebody_waits():
    return any(queue().blocked for queue in waited_for.values())


def test_who_waits_for_one_name_stands_in_nobodys_way_under_another():
    with postgres.pool(size=4) as pool:
        keys = PostgresKeys(pool, postgres.table())
        limiter = Limiter.per_key(Rate(1, 3_600_000), bucket=keys)
        assert limiter.try_acquire("full")
        got = []
        waiter = threading.Thread(target=lambda: got.append(limiter.try_acquire("full", timeout=2)))
        waiter.start()
        while waiter.is_alive() and not somebody_waits():
            time.sleep(0.001)
        assert limiter.try_acquire("free", blocking=False)
        assert not limiter.try_acquire("free", blocking=False)
        waiter.join(30)
        assert got == [False]
        assert units_by_name(limiter.bucket_factory.bucket.table) == {"full": 1, "free": 1}


def test_tasks_that_wait_for_one_name_stand_in_nobodys_way_under_another():
    async def scenario():
        pool = await postgres.async_pool(size=2)
        keys = PostgresKeys(pool, postgres.table())
        limiter = Limiter.per_key(Rate(1, 3_600_000), bucket=keys)
        assert await limiter.try_acquire_async("full")
        waiter = asyncio.ensure_future(limiter.try_acquire_async("full"))
        for _ in iter(somebody_waits, True):
            await asyncio.sleep(0.001)
        assert await limiter.try_acquire_async("free", blocking=False)
        assert not await limiter.try_acquire_async("free", blocking=False)
        assert not waiter.done()
        waiter.cancel()
        await asyncio.wait([waiter])
        assert units_by_name(limiter.bucket_factory.bucket.table) == {"full": 1, "free": 1}
        await pool.close()

    asyncio.run(scenario())


def test_two_configurations_of_one_table_count_each_others_units():
    table = postgres.table()
    with postgres.pool(size=1) as pool:
        long = PostgresBucket(pool, table, [Rate(20, 3_600_000)])
        short = PostgresBucket(pool, table, [Rate(5, 50)])
        windows = PostgresBucket(pool, table, [Rate(20, 3_600_000)], FixedWindow())
        moment = long.now() // 3_600_000 * 3_600_000 + 3_600_000
        assert long.put(RateItem("a", moment, 4))
        assert not short.put(RateItem("a", moment, 2))
        assert short.put(RateItem("a", moment + 51, 5))
        assert windows.put(RateItem("a", moment + 60, 11))
        assert not windows.put(RateItem("a", moment + 61))
        assert not long.put(RateItem("a", moment + 61))
        assert short.put(RateItem("a", moment + 200, 5))
        assert long.count() == 25
