"""A server whose clock steps back by an hour, and ahead again, while processes use it."""

import sys
import time

import pytest

from tests.support.faked_clock import FakedClock
from tests.support.redis_fleet import most_in_a_window, real, run_fleet, spans
from tests.support.redis_servers import RedisServer, sync_client

pytestmark = pytest.mark.alone

HOUR = 3_600_000
INTERVAL = 300
LIMITS = {"log": 40, "gcra": 20}  # a bucket of the latter may give twice its limit in an interval
PAUSE = 1.2  # between two steps; the units and waiters of before the step are gone by then


class SteppingServer:
    """A server, and its clock; `step` moves that, and notes when."""

    def __init__(self, folder):
        self._clock = FakedClock(folder)
        self.steps = []
        self.server = RedisServer(environment=self._clock.environment)
        self.url = f"redis://127.0.0.1:{self.server.port}"

    def step(self, milliseconds):
        self._clock.set(milliseconds / 1000)
        self.steps.append(real())
        with sync_client(self.url) as client:
            seconds, _ = client.time()
        assert abs(seconds - real() - milliseconds / 1000) < 60


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """The steps of the clock, and the records of the log's callers and of the state's."""
    server = SteppingServer(tmp_path_factory.mktemp("clock"))

    def step_back_and_ahead():
        for milliseconds in (-HOUR, 0):
            time.sleep(PAUSE)
            server.step(milliseconds)

    given = {"url": server.url, "interval": INTERVAL, "seconds": 3 * PAUSE}
    processes = []
    for kind, limit in LIMITS.items():
        given |= {"limit": limit} | ({"burst": limit} if kind == "gcra" else {})
        for workers in ({"tasks": limit // 2}, {"threads": 4}):
            for blocking in (True, False):
                key = f"{kind}-{'waits' if blocking else 'asks'}"
                process = f"{key}-{'-'.join(workers)}"
                own = {"key": key, "blocking": blocking, "process": process}
                processes.append((sys.executable, {**given, **workers, **own}))
    try:
        records = run_fleet(processes, step_back_and_ahead)
    finally:
        server.server.close()
    return server.steps, records


@pytest.fixture(params=["log-waits", "log-asks", "gcra-waits", "gcra-asks"])
def key(request):
    return request.param


@pytest.fixture
def calls(traffic, key):
    return {name: record for name, record in traffic[1].items() if name.startswith(key)}


@pytest.fixture
def allowed(key):
    """What may go in an interval: GCRA adds what comes in again to a burst."""
    return LIMITS["log"] if key.startswith("log") else 2 * LIMITS["gcra"]


def test_nobody_is_told_to_wait_until_the_clock_has_caught_up(calls):
    longest = max(record["wait"] for record in calls.values() if "wait" in record)
    assert 0 < longest <= 4 * INTERVAL


def test_callers_go_on_being_admitted_after_each_step(traffic, calls):
    for step in traffic[0]:
        assert [end for _, end in spans(calls) if step + INTERVAL / 1000 < end < step + PAUSE]


def test_a_step_lets_no_more_than_one_further_limit_through(calls, allowed):
    assert most_in_a_window(spans(calls), INTERVAL / 1000)[0] <= 2 * allowed


def test_away_from_the_steps_the_limit_holds_exactly(traffic, calls, allowed):
    away = [
        (begin, end)
        for begin, end in spans(calls)
        if not any(step - 0.1 < end and begin < step + 3 * INTERVAL / 1000 for step in traffic[0])
    ]
    assert most_in_a_window(away, INTERVAL / 1000)[0] <= allowed
