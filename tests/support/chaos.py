"""A fleet that is killed, stopped and cut off at a server, and what is seen of both meanwhile.

A test's machine may stall. So time is counted here by a client of another, idle server, which asks
that again and again: while it is held up, so is everybody.
"""

import collections
import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pyrate_limiter._engine.reserving import _FRESH_SECONDS
from tests.support.chaos_worker import CONNECTIONS, KINDS

NAME = "chaos"
LOGS = [(kind, name) for kind in ("log", "keys") for name in KINDS[kind]]
STATE = ("state", "state")
ROOT = Path(__file__).parents[2]
PROCESSES = 4
NAP = 0.02  # s between two questions of a client
RATES = [(20, 500), (60, 2000)]
PER_SECOND = 30  # what they come to
LONGEST = 2000  # ms for which a unit counts
# Seconds by which a unit may be older than the call that uses it: it was stored just now, for
# somebody who has left the queue since. And a server's clock has whole milliseconds.
OLDER = _FRESH_SECONDS + 0.002


class Fleet:
    """The processes, see `chaos_worker`, and what befalls them.

    Args:
        backend: "redis" or "postgres".
        where: the server's address.
        records: a file for their admissions.
    """

    def __init__(self, backend, where, records):
        self._given = {"backend": backend, "where": where, "name": NAME, "rates": RATES}
        self._given["records"] = str(records)
        self._started = 0
        self._processes = []

    def __enter__(self):
        self._processes = [self._start() for _ in range(PROCESSES)]
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self):
        self._started += 1
        given = json.dumps({**self._given, "label": f"{NAME}{self._started}"})
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.chaos_worker", given], cwd=ROOT
        )

    @property
    def alive(self):
        return all(process.poll() is None for process in self._processes)

    def kill(self):
        """One of them, in the middle of whatever it does; another takes its place."""
        number = random.randrange(PROCESSES)
        self._processes[number].kill()
        self._processes[number].wait()
        self._processes[number] = self._start()

    def stop_for_a_while(self):
        process = random.choice(self._processes)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)
        process.send_signal(signal.SIGCONT)


class Answer(NamedTuple):
    """What a client heard, and when (s, monotonic)."""

    began: float
    ended: float
    heard: object


class Client:
    """Asks a server again and again, in a thread of its own.

    Args:
        ask: the question; it may fail while the server is away.
    """

    def __init__(self, ask):
        self._ask, self._over = ask, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self):
        while not self._over.wait(NAP):
            began = time.monotonic()
            with contextlib.suppress(Exception):
                heard = self._ask()
                self.answers.append(Answer(began, time.monotonic(), heard))

    def seconds(self, since, until=float("inf")):
        """How long that was, at the pace at which the machine let it ask."""
        return NAP * sum(since <= answer.began < until for answer in self.answers)

    def held_up(self, began, ended):
        """Whether it had to wait for an answer, or for its turn, at some time between the two."""
        first, last = began - NAP, ended + NAP
        times = [
            moment
            for answer in self.answers
            if first < answer.ended and answer.began < last
            for moment in answer[:2]
        ]
        times = [min(first, *times), *times, max(last, *times)] if times else [first, last]
        return any(after - before > 2 * NAP for before, after in pairwise(times))


class Log:
    """What is in the server's own logs, remembered also when it has left them.

    Args:
        server: see `Scene`.
    """

    def __init__(self, server):
        self._server, self._seen = server, collections.defaultdict(dict)

    def look(self):
        now, found = self._server.look()
        for name, seen in self._seen.items():
            for unit, (moment, _) in [*seen.items()]:
                if unit not in found.get(name, {}) and moment + LONGEST > now:
                    del seen[unit]  # it was given back
        for name, units in found.items():
            self._seen[name].update(units)

    def moments(self, place):
        """When units of one log went, each by itself."""
        return sorted(at for at, weight in self._seen[place].values() for _ in range(weight))


def admissions(records):
    """By kind and name: of each call that was admitted, between when it went, and its weight."""
    calls = collections.defaultdict(list)
    for line in records.read_text().splitlines() if records.exists() else ():
        kind, name, weight, sent, went = line.split()
        calls[kind, name].append((float(sent), float(went), int(weight)))
    return calls


def most_within(calls, seconds):
    """The largest weight of calls that went within so long, for certain."""
    seconds -= OLDER
    return max(
        sum(weight for sent, went, weight in calls if begin <= sent and went <= begin + seconds)
        for begin, *_ in calls
    )


class Scene:
    """A fleet at a server, somebody who stands by, and all that is known of them.

    Args:
        backend: "redis" or "postgres".
        server: has an address (`where`); `look` gives its time (ms) and, by log and by what it is
            known by there, the moment (ms) and the weight of each unit that has gone; `connections`
            the names of all that are open; `ask_idle` asks another server, which nobody uses.
        records: a file for what the fleet admits.
    """

    def __init__(self, backend, server, records):
        self._records = records
        self._log = Log(server)
        self._fleet = Fleet(backend, server.where, records)
        self._bystander, self._idle = Client(server.connections), Client(server.ask_idle)
        self._outages = []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        for part in (self._bystander, self._idle, self._fleet):
            self._stack.enter_context(part)
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _watch(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._log.look()
            time.sleep(0.05)

    def _used(self, since):
        """The weight that has gone since then (s, monotonic), of each limit."""
        calls = admissions(self._records)
        return {
            place: sum(weight for _, went, weight in calls[place] if since <= went)
            for place in (*LOGS, STATE)
        }

    def wait_for_the_fleet(self):
        while not all(self._used(0).values()):
            time.sleep(0.05)

    def strike(self, faults, seconds):
        """Have faults befall the fleet, which uses its limits all the same."""
        faults = [*faults, self._fleet.kill, self._fleet.stop_for_a_while]
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            for fault in random.sample(faults, len(faults)):
                fault()
                self._watch(0.8)
        allowed = PER_SECOND * self._idle.seconds(began)
        used = self._used(began)
        assert min(used.values()) >= 0.8 * allowed, used

    def assert_full_speed_within(self, seconds):
        """Each limit is used for its longest interval again."""
        calm, slow, used = time.monotonic(), True, {}
        while slow:
            self._watch(0.1)
            assert self._idle.seconds(calm) < seconds, used
            since = time.monotonic() - LONGEST / 1000
            used = self._used(since)
            slow = since < calm or min(used.values()) < 0.8 * PER_SECOND * self._idle.seconds(since)
        assert self._fleet.alive

    @contextlib.contextmanager
    def outage(self):
        began = time.monotonic()
        yield
        self._outages.append((began, time.monotonic()))

    def assert_limits_were_kept(self):
        calls = admissions(self._records)
        for place in LOGS:
            moments = self._log.moments(place)
            assert len(moments) > RATES[-1][0]
            for limit, interval in RATES:
                windows = zip(moments, moments[limit:])
                too_close = [pair for pair in windows if pair[1] - pair[0] <= interval]
                assert too_close == [], (place, limit, too_close)
                most = most_within(calls[place], interval / 1000)
                assert most <= limit, (place, limit, most)
        for limit, interval in RATES:  # what comes in again adds to a burst
            most = most_within(calls[STATE], interval / 1000)
            assert most <= 2 * limit, (STATE, limit, most)

    def assert_nobody_was_harmed(self):
        """Where the machine lets it, the bystander is answered soon; it sees few connections."""
        waits = harmed = 0
        for began, ended, names in self._bystander.answers:
            if any(began < end and begin < ended for begin, end in self._outages):
                continue
            waits += 1
            harmed += ended - began > 0.1 and not self._idle.held_up(began, ended)
            pools = collections.Counter(name for name in names if name.startswith(NAME))
            # One that is closed may not have ended when the next one is there.
            assert max(pools.values(), default=0) <= 2 * CONNECTIONS, pools
        assert harmed <= waits / 100, (harmed, waits)
