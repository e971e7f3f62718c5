"""A fleet that is killed, stopped, frozen and restarted: what the server's own log says of it."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.redis_servers import RedisServer, wait_until

WORKER = Path(__file__).parents[1] / "redis_chaos.py"
RATES = [(20, 200), (120, 4000)]  # nothing stands still for as long as the longer one
_UNIT = re.compile(r"(.*:[0-9a-f]{16})(?:[-+=]\d+)?(:\d+)")
SECONDS = 12


class Watcher:
    """Looks at the log again and again, and keeps the last time of each unit that it has seen."""

    def __init__(self, client, key):
        self._client, self._key = client, key
        self.units = {}

    def look(self):
        seconds, micros = self._client.time()
        now = seconds * 1000 + micros // 1000
        found = {
            _UNIT.fullmatch(member.decode()).groups(): moment  # whatever its mark
            for member, moment in self._client.zrange(self._key, 0, -1, withscores=True)
        }
        for unit, moment in [*self.units.items()]:
            if unit not in found and moment + RATES[-1][1] > now:
                del self.units[unit]  # it was given back
        self.units.update(found)


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


def start(server, seconds):
    given = {"url": f"redis://127.0.0.1:{server.port}", "key": "chaos", "rates": RATES}
    given |= {"seconds": seconds, "threads": 4, "tasks": 8}
    process = subprocess.Popen(
        [sys.executable, WORKER, json.dumps(given)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_log_never_passes_the_limit_and_the_fleet_recovers_from_everything(server):
    client = redis.Redis(port=server.port)
    watcher, connections = Watcher(client, "chaos"), 0
    killed, stopped, *others = [start(server, SECONDS) for _ in range(4)]

    def watch(seconds):
        nonlocal connections
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            watcher.look()
            connections = max(connections, len(client.client_list()))
            time.sleep(0.05)

    try:
        watch(2)
        killed.kill()
        watch(1.5)
        stopped.send_signal(signal.SIGSTOP)
        watch(1.5)
        stopped.send_signal(signal.SIGCONT)
        watch(1)
        server.freeze()
        time.sleep(1.2)
        server.thaw()
        watch(1.5)
        before = len(watcher.units)
        wait_until(lambda: watcher.look() or len(watcher.units) >= before + RATES[0][0])
        totals = [int(each.communicate(timeout=50)[0]) for each in (stopped, *others)]
        watcher.look()
    finally:
        for process in (killed, stopped, *others):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            process.stdout.close()
    client.close()
    assert all(total > 0 for total in totals)
    assert connections <= 4 * 2 * 8 + 1
    moments = sorted(watcher.units.values())
    for limit, interval in RATES:
        for place in range(limit, len(moments)):
            assert moments[place] - moments[place - limit] > interval
