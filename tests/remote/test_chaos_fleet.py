"""Fleets of threads and tasks that are killed, stopped and cut off, at servers that go and come.

``PYRATE_TEST_CHAOS_SECONDS`` says for how long.
"""

import contextlib
import os
import random
import re
import time

import psycopg
import pytest
import redis

from tests.support import postgres_fixtures as postgres
from tests.support.chaos import LOGS, NAME, Scene
from tests.support.postgres_server import PostgresServer
from tests.support.redis_servers import RedisServer, shared_url

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("PYRATE_TEST_CHAOS_SECONDS", "3"))
_UNIT = re.compile(r"(.*:[0-9a-f]{16})(-\d+)?(?:[+=]\d+)?(:\d+)")  # "-": its waiter has not gone


class At:
    """A server, what befalls it, and what clients see there."""

    def freeze(self):
        self._server.freeze()
        time.sleep(0.7)
        self._server.thaw()

    def restart(self):
        self._server.stop()
        self._server.start()


class AtRedis(At):
    """It keeps what it has when it is killed."""

    def __init__(self):
        self._server = RedisServer(config="appendonly yes\nappendfsync no\n")
        self.where = f"redis://127.0.0.1:{self._server.port}"
        self._client = redis.Redis(port=self._server.port)
        self._bystander = redis.Redis(port=self._server.port)
        self._idle = redis.Redis.from_url(shared_url())
        self.faults = [self._cut_off]

    def close(self):
        for client in (self._client, self._bystander, self._idle):
            client.close()
        self._server.close()

    def look(self):
        pipeline = self._client.pipeline().time()
        for _, name in LOGS:
            pipeline.zrange(f"{NAME}:{name}", 0, -1, withscores=True)
        (seconds, micros), *logs = pipeline.execute()
        found = {place: {} for place in LOGS}
        for place, log in zip(LOGS, logs):
            for member, moment in log:
                label, waits, number = _UNIT.fullmatch(member.decode()).groups()
                if waits is None:
                    found[place][label, number] = moment, 1
        return seconds * 1000 + micros // 1000, found

    def connections(self):
        return [client["name"] for client in self._bystander.client_list()]

    def ask_idle(self):
        self._idle.ping()

    def _cut_off(self):
        clients = [each for each in self._client.client_list() if each["name"].startswith(NAME)]
        for each in random.sample(clients, min(3, len(clients))):
            self._client.client_kill_filter(each["id"])


class AtPostgres(At):
    def __init__(self):
        self._server = PostgresServer()
        self.where = self._server.dsn
        self._bystander = None
        self._idle = psycopg.connect(postgres.dsn(), autocommit=True)
        self.faults = [self._cut_off, self._hold_up]

    def close(self):
        self._idle.close()
        if self._bystander is not None:
            self._bystander.close()
        self._server.close()

    def look(self):
        found = {}
        text = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        for kind in ("log", "keys"):
            text += (
                f"; SELECT name, token, at_ms, units FROM ratelimit___{NAME}_{kind} "
                "WHERE units > 0 AND (claimed_ms IS NULL OR claimed_ms >= at_ms)"
            )
        with psycopg.connect(self.where, autocommit=True) as connection:
            cursor = connection.execute(text)
            ((now,),) = cursor.fetchall()
            for kind in ("log", "keys"):
                cursor.nextset()
                for name, token, moment, weight in cursor.fetchall():
                    found.setdefault((kind, name), {})[token] = moment, weight
        return now, found

    def connections(self):
        if self._bystander is None or self._bystander.closed:
            self._bystander = psycopg.connect(self.where, autocommit=True)
        text = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return [name for (name,) in self._bystander.execute(text).fetchall()]

    def ask_idle(self):
        self._idle.execute("SELECT 1")

    def _cut_off(self):
        self._server.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
            f"WHERE application_name ~ '^{NAME}' ORDER BY random() LIMIT 3) victims"
        )

    def _hold_up(self):
        """Somebody else at the log's table."""
        with psycopg.connect(self.where) as holder:
            holder.execute(f"LOCK TABLE ratelimit___{NAME}_log IN EXCLUSIVE MODE")
            time.sleep(0.3)


BACKENDS = {"redis": AtRedis, "postgres": AtPostgres}


@pytest.mark.timeout(60 + 10 * SECONDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fleet_in_trouble_keeps_and_uses_its_limits_and_harms_nobody(backend, tmp_path):
    server = BACKENDS[backend]()
    with contextlib.closing(server), Scene(backend, server, tmp_path / "records") as scene:
        scene.wait_for_the_fleet()
        scene.strike(server.faults, SECONDS)
        scene.assert_full_speed_within(5)
        with scene.outage():
            server.restart()
        scene.assert_full_speed_within(10)  # a pool of psycopg naps 1, 2, 4 s between two tries
        with scene.outage():
            server.freeze()
        scene.assert_full_speed_within(5)
    scene.assert_limits_were_kept()
    scene.assert_nobody_was_harmed()
