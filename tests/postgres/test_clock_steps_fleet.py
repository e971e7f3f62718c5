"""A server whose clock is set back and ahead by an hour while callers go in and out."""

import threading
import time

import psycopg
import pytest

from pyrate_limiter import (
    FixedWindow,
    Limiter,
    PostgresBucket,
    PostgresStateStore,
    Rate,
    SlidingWindowLog,
    StateBucket,
)
from tests.support import postgres_fixtures as postgres
from tests.support.postgres_fixtures import Own
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.alone

LIMIT, INTERVAL = 15, 300
STEPS = (-3600, 0, 3600, 0)  # seconds ahead of the machine's clock
PATIENCE = 30  # seconds that a caller waits; it takes a fraction of a second


@pytest.fixture(scope="module")
def server():
    server = PostgresServer(own_clock=True)
    yield server
    server.close()


def make(kind, pool):
    rates = [Rate(LIMIT, INTERVAL)]
    if kind is None:
        return StateBucket(rates, store=PostgresStateStore(pool, postgres.table()))
    return PostgresBucket(pool, postgres.table(), rates, kind())


@pytest.mark.parametrize(
    ("kind", "allowance"),
    [(SlidingWindowLog, 1), (Own, 1), (FixedWindow, 2), (None, 2)],  # times the limit
)
def test_a_step_of_the_clock_stops_nobody_and_lets_one_further_limit_through(
    server, kind, allowance
):
    went, refused, steps, over = [], [], [], threading.Event()
    server.clock.set(0)
    with postgres.pool(server.dsn, size=8) as pool:
        limiter = Limiter(make(kind, pool))

        def work():
            while not over.is_set():
                began = time.monotonic()
                admitted = limiter.try_acquire("a", timeout=PATIENCE)
                (went if admitted else refused).append((began, time.monotonic()))

        callers = [threading.Thread(target=work) for _ in range(8)]
        for caller in callers:
            caller.start()
        try:
            for ahead in STEPS:
                until_more_go(went)
                began = time.monotonic()
                server.clock.set(ahead)
                steps.append((began, time.monotonic()))
            until_more_go(went)
        finally:
            over.set()
            for caller in callers:
                caller.join(2 * PATIENCE)
    assert not refused
    for begin, _ in went:
        # Whoever began and ended meanwhile was counted meanwhile.
        ends = sorted(end for began, end in went if began >= begin)
        for count, end in enumerate(ends, 1):
            intervals = int((end - begin) * 1000 / INTERVAL)
            stepped = sum(begin <= after and before <= end for before, after in steps)
            assert count <= LIMIT * (intervals + allowance + stepped)


def until_more_go(went):
    """Wait until all that may go in two intervals have gone, however slow the machine is."""
    enough, deadline = len(went) + 2 * LIMIT, time.monotonic() + PATIENCE
    while len(went) < enough:
        assert time.monotonic() < deadline, "the callers do not go on"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [SlidingWindowLog, Own, FixedWindow, None])
def test_a_step_ahead_ends_nobodys_wait_for_a_lock(server, kind):
    server.clock.set(0)
    with postgres.pool(server.dsn) as pool, psycopg.connect(server.dsn) as holder:
        bucket = make(kind, pool)
        limiter = Limiter(bucket)
        assert limiter.try_acquire("a")
        table = "ratelimit_states" if kind is None else bucket.table
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        answers = []
        caller = threading.Thread(target=lambda: answers.append(limiter.try_acquire("a")))
        caller.start()
        deadline = time.monotonic() + 30
        while not server.execute("SELECT pid FROM pg_locks WHERE NOT granted"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.clock.set(3600)
        # A second after a session has begun to wait the server looks at the clock.
        time.sleep(1.5)
        assert not answers
        holder.rollback()
        caller.join(30)
    assert answers == [True]
