"""One process whose dependencies were written for 2.x and for 3.x, and the program for 4.x."""

import subprocess
import sys

FOR_2X = """
from pyrate_limiter import BucketFullException, Duration, Limiter, MemoryListBucket, RequestRate

Duration.CUSTOM = 15
limiter = Limiter(
    RequestRate(2, Duration.SECOND * 5),
    RequestRate(3, Duration.CUSTOM),
    bucket_class=MemoryListBucket,
    time_function=lambda: 100.0,
)

def allowed(user):
    try:
        limiter.try_acquire(user)
    except BucketFullException as error:
        return error.meta_info["remaining_time"]
    return 0

waiting = Limiter(RequestRate(1, Duration.SECOND * 0.1))

@waiting.ratelimit("api", delay=True)
def call():
    return "called"
"""

FOR_3X = """
from pyrate_limiter import (
    BucketFactory, BucketFullException, Duration, InMemoryBucket, Limiter, LimiterDelayException,
    Rate, RateItem, TimeClock,
)

class PerUser(BucketFactory):
    def __init__(self, rates):
        self.clock, self.rates, self.known = TimeClock(), rates, {}

    def wrap_item(self, name, weight=1):
        return RateItem(name, self.clock.now(), weight)

    def get(self, item):
        if item.name not in self.known:
            self.known[item.name] = self.create(self.clock, InMemoryBucket, self.rates)
        return self.known[item.name]

limiter = Limiter(PerUser([Rate(1, Duration.MINUTE)]), raise_when_fail=True, max_delay=500)
silent = Limiter(Rate(1, Duration.MINUTE), raise_when_fail=False)

def allowed(user):
    try:
        return limiter.try_acquire(user)
    except LimiterDelayException as error:
        return error.max_delay
"""

PROGRAM = """
import asyncio
import sys
import time
from pyrate_limiter import Duration, Limiter, Rate

limiter = Limiter([Rate(2, Duration.SECOND * 60), Rate(3, Duration.HOUR)])
assert [limiter.try_acquire("x", blocking=False) for _ in range(3)] == [True, True, False]
assert not any(name.startswith("pyrate_limiter.compat") for name in sys.modules)

import for_2x
import for_3x

assert [for_2x.allowed("a") for _ in range(3)] == [0, 0, 5.0]
start = time.monotonic()
for_2x.call()
for_2x.call()
assert time.monotonic() - start >= 0.099

assert [for_3x.allowed("a"), for_3x.allowed("a"), for_3x.allowed("b")] == [True, 500, True]
assert len(for_3x.limiter.buckets()) == 2
assert [for_3x.silent.try_acquire("x") for _ in range(2)] == [True, False]

assert for_2x.BucketFullException is for_3x.BucketFullException
assert isinstance(for_2x.limiter, Limiter) and isinstance(for_3x.limiter, Limiter)
assert [hasattr(one, "bucket_group") for one in (limiter, for_2x.limiter, for_3x.limiter)] == [
    False, True, False,
]

assert limiter.try_acquire("x", timeout=0) is False
assert limiter.acquire("x", blocking=False).retry_after_ms > 0
assert asyncio.run(limiter.try_acquire_async("x", blocking=False)) is False
assert type(Limiter(Rate(1, 1))) is Limiter
assert len(list(Duration)) == 5
limiter.close()
print("done")
"""


def test_programs_for_three_releases_run_in_one_process(tmp_path):
    for name, text in (("for_2x", FOR_2X), ("for_3x", FOR_3X), ("program", PROGRAM)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "program.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
