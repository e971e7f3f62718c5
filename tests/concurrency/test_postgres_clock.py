"""A server whose clock is set back and ahead by an hour while callers go in and out."""

import threading
import time
from itertools import pairwise

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
from tests import postgres_fixtures as postgres
from tests.postgres_fixtures import Own
from tests.postgres_server import PostgresServer

LIMIT, INTERVAL = 15, 300
STEPS = (-3600, 0, 3600, 0)  # seconds ahead of the machine's clock
JITTER = 0.06  # by which one caller may leave later than it was let go, and another not


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
                if limiter.try_acquire("a", timeout=10):
                    went.append(time.monotonic())
                else:
                    refused.append(time.monotonic())

        callers = [threading.Thread(target=work) for _ in range(8)]
        for caller in callers:
            caller.start()
        for ahead in STEPS:
            time.sleep(0.5)
            steps.append(time.monotonic())
            server.clock.set(ahead)
        time.sleep(0.5)
        over.set()
        for caller in callers:
            caller.join(20)
    assert not refused
    went.sort()
    # It is an interval until room is free again, and a step may cost another.
    assert max(after - before for before, after in pairwise(went)) < 3 * INTERVAL / 1000
    for first, begin in enumerate(went):
        end = begin + INTERVAL / 1000 - JITTER
        inside = sum(begin <= moment <= end for moment in went[first:])
        stepped = sum(begin - JITTER <= step <= end for step in steps)
        assert inside <= LIMIT * (allowance + stepped)
