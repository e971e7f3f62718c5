import itertools
import types

import pytest

from pyrate_limiter.buckets.remote import circuit as module
from pyrate_limiter.buckets.remote.circuit import CircuitBreaker


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(seconds=1000.0)
    clock.monotonic = lambda: clock.seconds
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def outage():
    return CircuitBreaker("it is away", "it is back")


def test_a_server_that_is_away_is_probed_by_one_caller_at_a_time_with_growing_pauses(clock, outage):
    probes = []
    while len(probes) < 9:
        if outage.may_try():
            probes.append(clock.seconds)
            assert len(probes) == 1 or not outage.may_try()  # a second caller
            outage.failed(ConnectionError())
        else:
            assert outage.retry_ms() > 0
            clock.seconds += outage.retry_ms() / 1000
    pauses = [later - earlier for earlier, later in itertools.pairwise(probes)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5], abs=0.01)


def test_an_outage_is_logged_when_it_begins_and_when_it_is_over(clock, outage, caplog):
    outage.answered()
    for _ in range(3):
        outage.failed(ConnectionError("refused"))
    away = "it is away: ConnectionError('refused')"
    assert [record.message for record in caplog.records] == [away]
    assert not caplog.records[0].exc_info  # one line
    for _ in range(3):
        outage.answered()
        assert outage.may_try()
    assert [record.message for record in caplog.records] == [away, "it is back"]


def test_the_next_outage_begins_with_a_short_pause(clock, outage):
    for _ in range(9):
        outage.failed(ConnectionError())
    outage.answered()
    outage.failed(ConnectionError())
    assert outage.retry_ms() <= 102
