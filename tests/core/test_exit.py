"""Limiters that are used while Python ends: from 3.12 on no thread can be started then."""

import subprocess
import sys

import pytest

from tests.support.redis_servers import fresh_key, shared_url

# What the interpreter does from 3.12 on is done by hand, so that every release is asked the same.
PROGRAM = """
import asyncio, atexit, pickle, redis, threading
from pyrate_limiter import *
RATE = Rate(1, 50)
{setup}

def refuse(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")

def end():
    threading.Thread.start = refuse
    answers = []
{body}
    print(answers)

atexit.register(end)
"""
TWICE = "for _ in range(2): answers.append(limiter.try_acquire('a', timeout=30))"
IN_TASKS = """
async def main():
    for _ in range(2): answers.append(await limiter.try_acquire_async('a', timeout=30))
asyncio.run(main())
"""
REDIS = "client = redis.Redis.from_url({url!r}); bucket = RedisBucket.init([RATE], client, {key!r})"
# By name: what runs before the end, and how the limiter is made: before it, or at it.
LIMITERS = {
    "made before": ("limiter = Limiter(RATE)", ""),
    "made at the end": ("", "limiter = Limiter(RATE)"),
    "per key, made before": ("limiter = Limiter.per_key(RATE)", ""),
    "per key": ("", "limiter = Limiter.per_key(RATE)"),
    "per key, gcra": ("", "limiter = Limiter.per_key(RATE, bucket=StateBucket)"),
    "unpickled": ("kept = pickle.dumps(Limiter(RATE))", "limiter = pickle.loads(kept)"),
    "sqlite": ("", "limiter = Limiter(SQLiteBucket.init_from_file([RATE]))"),
    "multiprocess": ("bucket = MultiprocessBucket.init([RATE])", "limiter = Limiter(bucket)"),
    "redis": (REDIS, "limiter = Limiter(bucket)"),
    "redis, made before": (REDIS + "; limiter = Limiter(bucket)", ""),
}


@pytest.mark.parametrize("calls", [TWICE, IN_TASKS], ids=["blocking", "in tasks"])
@pytest.mark.parametrize("made", LIMITERS)
def test_whoever_comes_while_python_ends_is_answered_as_before(made, calls):
    setup, begin = LIMITERS[made]
    body = "".join(f"    {line}\n" for line in f"{begin}\n{calls}".splitlines())
    setup = setup.format(url=shared_url(), key=fresh_key())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setup=setup, body=body)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("[True, True]\n", "")
