"""Callers of a server that is away, without a server: who asks, who finds out it is back."""

import asyncio
import threading

import pytest

from pyrate_limiter._core import worker_threads
from pyrate_limiter._core.driver import run_async, run_blocking
from pyrate_limiter._core.worker_threads import in_worker
from pyrate_limiter.buckets.remote import outage as module
from pyrate_limiter.buckets.remote.circuit import CircuitBreaker, breaker_of
from pyrate_limiter.buckets.remote.helpers import run_within
from pyrate_limiter.buckets.remote.outage import Outage


class Away(Exception):
    pass


class AtServer(Outage):
    """A server that is there when `up` is set."""

    def __init__(self, on_error="allow", *, is_async=False):
        super().__init__(on_error, CircuitBreaker("away", "back"), is_async=is_async)
        self.up, self.probed, self.keys = True, threading.Event(), []

    def covers(self, error):
        return isinstance(error, Away)

    def probe(self, key):
        self.keys.append(key)
        yield None
        if self.up:
            self.breaker.answered()
        else:
            self.breaker.failed(Away())
        self.probed.set()

    def call(self):
        yield None
        if not self.up:
            raise Away
        return "the server"

    def instead(self):
        yield None
        return "the fallback"

    def ask(self):
        return run_blocking(self.guard(self.call(), self.instead))

    def let_probe(self):
        self.breaker._next_probe = 0.0


def test_who_is_under_way_when_the_server_goes_is_answered_by_the_fallback():
    outage = AtServer()
    assert outage.ask() == "the server"
    outage.up = False
    assert outage.ask() == "the fallback"
    assert outage.away
    assert not outage.keys


def test_while_it_is_away_nobody_asks_it_but_a_probe_beside_the_callers():
    outage = AtServer()
    outage.up = False
    assert outage.ask() == "the fallback"
    outage.up = True
    assert outage.ask() == "the fallback"  # not even though it is back
    outage.let_probe()
    assert not outage.may_ask("k")
    assert outage.probed.wait(10)
    assert outage.keys == ["k"]
    assert outage.ask() == "the server"


def test_a_task_probes_for_tasks():
    async def main():
        outage = AtServer(is_async=True)
        outage.up = False
        assert await run_async(outage.guard(outage.call(), outage.instead)) == "the fallback"
        outage.let_probe()
        outage.up = True
        assert await run_async(outage.guard(outage.call(), outage.instead)) == "the fallback"
        await outage._probe
        assert await run_async(outage.guard(outage.call(), outage.instead)) == "the server"

    asyncio.run(main())


def test_where_no_thread_is_to_be_had_the_caller_asks_by_itself(monkeypatch):
    outage = AtServer()
    outage.up = False
    assert outage.ask() == "the fallback"
    monkeypatch.setattr(module, "in_worker", lambda work: False)
    outage.up = True
    outage.let_probe()
    assert not outage.may_ask()
    assert outage.may_ask()


def test_an_answer_ends_the_outage():
    outage = AtServer()
    outage.answered()
    outage.breaker.failed(Away())
    outage.answered()
    assert not outage.away


def test_an_error_of_another_kind_is_raised():
    def wrong():
        yield None
        raise KeyError

    outage = AtServer()
    with pytest.raises(KeyError):
        run_blocking(outage.guard(wrong(), outage.instead))
    assert not outage.away


def test_who_has_no_policy_goes_on_asking_and_gets_the_servers_errors():
    outage = AtServer("raise")
    outage.breaker.failed(Away())  # found by others
    assert outage.ask() == "the server"
    outage.up = False
    for _ in range(2):
        with pytest.raises(Away):
            outage.ask()
    outage.answered()
    assert outage.breaker.away  # it is for others to say


class Client:
    pass


def test_all_who_use_a_client_share_its_circuit_breaker():
    def make():
        return CircuitBreaker("away", "back")

    client, without_hash = Client(), {}
    assert breaker_of(client, make) is breaker_of(client, make)
    assert breaker_of(client, make) is not breaker_of(Client(), make)
    assert breaker_of(without_hash, make) is not breaker_of(without_hash, make)


def test_the_log_may_say_who_met_the_outage(caplog):
    breaker = CircuitBreaker("away", "back")
    breaker.failed(Away(), "away from k")
    assert [record.message for record in caplog.records] == ["away from k: Away()"]


# Worker threads


def test_a_call_in_a_worker_gives_what_it_gives_in_time():
    assert run_within(30, lambda: 5, Away) == 5
    with pytest.raises(KeyError):
        run_within(30, lambda: {}[0], Away)
    with pytest.raises(TimeoutError, match="its own"):  # not that of the caller's time
        run_within(30, raises(TimeoutError("its own")), Away)


def raises(error):
    def call():
        raise error

    return call


def test_a_caller_goes_when_its_time_is_up():
    go_on = threading.Event()
    with pytest.raises(Away):
        run_within(0.01, lambda: go_on.wait(20), Away)
    go_on.set()


def test_without_threads_the_caller_calls_by_itself(monkeypatch):
    def none(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(worker_threads, "_idle", [])
    monkeypatch.setattr(threading.Thread, "start", none)
    assert not in_worker(list)
    assert run_within(30, lambda: 5, Away) == 5


def test_threads_that_were_many_at_a_time_end_when_they_are_idle(monkeypatch):
    monkeypatch.setattr(worker_threads, "_idle", [])
    monkeypatch.setattr(worker_threads, "IDLE_SECONDS", 0.01)
    go_on, begun = threading.Event(), threading.Semaphore(0)
    before = workers_alive()
    for _ in range(3):
        in_worker(lambda: begun.release() or go_on.wait(20))
    for _ in range(3):
        assert begun.acquire(timeout=20)
    go_on.set()
    for thread in workers_alive() - before:
        thread.join(20)
        assert not thread.is_alive()
    assert worker_threads._idle == []


def workers_alive():
    return {thread for thread in threading.enumerate() if thread.name == "pyrate-limiter worker"}


def test_a_worker_outlives_what_fails_in_it():
    done = threading.Event()
    for _ in range(3):
        in_worker(raises(OSError()))
    in_worker(done.set)
    assert done.wait(20)
