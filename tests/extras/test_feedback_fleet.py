"""A fleet on one limiter: what a server says to one process stops all of them."""

import subprocess
import sys
import time

import pytest

from pyrate_limiter import Limiter, Rate, RedisBucket
from pyrate_limiter.extras.requests_limiter import RateLimitedRequestsSession
from pyrate_limiter.http import Feedback
from tests.support.redis_servers import fresh_key, shared_url, sync_client

SECONDS = 4
WORKER = """
import sys, time
import redis, requests
from pyrate_limiter import Limiter, Rate, RedisBucket
from pyrate_limiter.extras.requests_limiter import RateLimitedRequestsSession

url, key, server = sys.argv[1:]
client = redis.Redis.from_url(url)
limiter = Limiter(RedisBucket.init([Rate(20, 500)], client, key))
with RateLimitedRequestsSession(limiter, feedback=True) as session:
    print("ready", flush=True)
    while True:
        session.get(server + "/other", timeout=20)
"""


@pytest.fixture
def others(server):
    """Two processes that ask again and again, and their limiter in this one."""
    key = fresh_key()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, shared_url(), key, server.url],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    with sync_client(shared_url()) as client:
        try:
            assert [process.stdout.readline() for process in started] == ["ready\n"] * 2
            yield Limiter(RedisBucket.init([Rate(20, 500)], client, key))
        finally:
            for process in started:
                process.kill()
                process.communicate(timeout=20)


def test_what_a_server_says_to_one_process_stops_the_others(server, others):
    server.answers["/busy"] = (429, {"Retry-After": str(SECONDS)})
    until(lambda: len(server.paths) >= 10)
    with RateLimitedRequestsSession(others, feedback=Feedback(jitter=0)) as session:
        session.get(server.url + "/busy")
    held = others.check().retry_after_ms
    assert 0 < held <= SECONDS * 1000
    arrived, since, quiet = len(server.paths), time.monotonic(), 0
    while not others.check():  # what was on its way may still arrive
        if len(server.paths) > arrived:
            arrived, since = len(server.paths), time.monotonic()
        quiet = max(quiet, time.monotonic() - since)
        time.sleep(0.01)
    assert quiet > SECONDS / 4
    until(lambda: len(server.paths) > arrived)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
