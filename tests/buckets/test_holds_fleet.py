"""Holds that processes share: one is told, all wait; whoever has told it may die."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from pyrate_limiter import (
    FixedWindow,
    Limiter,
    PostgresBucket,
    PostgresKeys,
    PostgresStateStore,
    Rate,
    RateItem,
    RedisBucket,
    RedisStateStore,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from pyrate_limiter.testing import ManualClock
from tests.support import postgres_fixtures as postgres
from tests.support.redis_servers import fresh_key, shared_url, sync_client

RATES = [Rate(2, 500)]
KINDS = ["redis", "redis gcra", "postgres", "postgres gcra", "sqlite", "sqlite gcra"]


@contextlib.contextmanager
def limiter_on(kind, place, rates=RATES):
    """A limiter of this process on a place that others know."""
    with contextlib.ExitStack() as stack:
        if kind.startswith("redis"):
            client = stack.enter_context(sync_client(shared_url()))
            store, log = RedisStateStore(client, place), RedisBucket(rates, client, place)
        elif kind.startswith("postgres"):
            pool = stack.enter_context(postgres.pool(size=2))
            store = PostgresStateStore(pool, "key", table=place)
            log = PostgresBucket(pool, place, rates)
        else:
            store = SQLiteStateStore(place, "key")
            log = SQLiteBucket.init_from_file(rates, db_path=place)
        bucket = StateBucket(rates, store=store) if "gcra" in kind else log
        yield stack.enter_context(Limiter(bucket))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def place(kind, tmp_path):
    if kind.startswith("redis"):
        return fresh_key()
    return postgres.table() if kind.startswith("postgres") else str(tmp_path / "limits.db")


class Other:
    """Another process with a limiter on the same place, that does as it is told."""

    def __init__(self, kind, place, rates):
        where = {"REDIS": shared_url(), "PYRATE_TEST_POSTGRES_DSN": postgres.dsn()}
        code = (
            "import sys, time\n"
            "from pyrate_limiter import Rate\n"
            "from tests.buckets import test_holds_fleet as its\n"
            f"its.shared_url = lambda: {where['REDIS']!r}\n"
            f"rates = [Rate(*each) for each in {[(each.limit, each.interval) for each in rates]}]\n"
            f"with its.limiter_on({kind!r}, {place!r}, rates) as limiter:\n"
            "    print('ready', flush=True)\n"
            "    for line in sys.stdin:\n"
            "        print(eval(line), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYRATE_TEST_POSTGRES_DSN": where["PYRATE_TEST_POSTGRES_DSN"]},
        )
        assert self.answer() == "ready"

    def answer(self):
        return self.process.stdout.readline().strip()

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ask(self, line):
        self.tell(line)
        return self.answer()


@contextlib.contextmanager
def another(kind, place, rates=RATES):
    other = Other(kind, place, rates)
    try:
        yield other
    finally:
        other.process.kill()
        other.process.communicate(timeout=20)


def test_what_one_process_holds_the_others_wait_for_until_it_is_released(kind, place):
    with limiter_on(kind, place) as limiter, limiter_on(kind, place) as second:
        assert second.try_acquire("a", blocking=False)
        assert limiter.hold("a", 3600) == 3600
        assert second.try_acquire("a", blocking=False) is False
    with limiter_on(kind, place) as limiter, another(kind, place) as other:
        assert other.ask("limiter.try_acquire('a', 1, False)") == "False"
        assert int(other.ask("limiter.check('a').retry_after_ms")) > 3_000_000
        assert float(other.ask("limiter.hold('a', 1)")) > 3000
        assert limiter.try_acquire("a", blocking=False) is False
        assert other.ask("limiter.release_hold('a')") == "True"
        time.sleep(1.1)  # so long a refusal may be remembered
        assert limiter.try_acquire("a", timeout=20) is True


def test_those_who_wait_in_another_process_wait_for_the_hold_too(kind, place):
    rates = [Rate(2, 1000)]
    with limiter_on(kind, place, rates) as limiter, another(kind, place, rates) as other:
        assert limiter.try_acquire("a", 2, blocking=False)
        other.tell("[(limiter.try_acquire('a', 2), time.time())[1] for _ in range(2)]")
        time.sleep(0.2)  # by then it has reserved, for 0.8 s later
        began = time.time()
        limiter.hold("a", 1.5)
        first, second = eval(other.answer())
        assert first >= began + 1.499
        assert second >= began + 2.498


def test_a_hold_outlives_the_process_that_has_told_it_and_ends_by_itself(kind, place):
    with limiter_on(kind, place) as limiter:
        with another(kind, place) as other:
            began = time.time()
            other.tell(
                "limiter.hold('a', 1.5) and __import__('os').kill(__import__('os').getpid(), 9)"
            )
            assert other.process.wait(20) == -signal.SIGKILL
        waited = limiter.try_acquire("a")
        assert waited
        assert time.time() >= began + 1.499
        with limiter_on(kind, place) as later:  # one that joins
            assert later.check("a").retry_after_ms is None


# Formats ----------------------------------------------------------------------------------------


@pytest.fixture
def client():
    with sync_client(shared_url(), decode_responses=True) as client:
        yield client


def test_a_hold_in_redis_keeps_its_key_for_as_long_and_no_longer(client):
    key = fresh_key()
    limiter = Limiter(RedisBucket(RATES, client, key))
    limiter.hold("a", 100)
    assert client.zrange(key, 0, -1) == ["~hold", "~hold+"]
    assert 100_000 <= client.pttl(key) <= 110_000
    bucket = limiter.bucket_factory.bucket
    assert bucket.count() == 0
    assert bucket.peek(0) is None
    limiter.release_hold("a")
    assert client.zrange(key, 0, -1) == ["~hold-"]  # who has ended it
    assert 0 < client.pttl(key) <= 10_000
    assert bucket.count() == 0
    assert bucket.peek(0) is None
    assert limiter.try_acquire("a", blocking=False)
    limiter.hold("a", 100)
    limiter.try_acquire("a", blocking=False)
    assert client.pttl(key) >= 99_000
    assert bucket.count() == 1
    assert bucket.peek(0).name == "a"
    assert bucket.peek(1) is None


def test_a_hold_of_a_state_in_redis_keeps_its_key_for_as_long(client):
    key = fresh_key()
    limiter = Limiter(StateBucket(RATES, store=RedisStateStore(client, key)))
    limiter.hold("a", 100)
    assert 99_000 <= client.pttl(f"{key}~replies") <= 100_000
    assert set(client.hgetall(key)) == {"tat1"}
    assert "hold" in client.hgetall(f"{key}~replies")
    limiter.release_hold("a")
    assert "hold" not in client.hgetall(f"{key}~replies")
    assert limiter.try_acquire("a", blocking=False)
    limiter.hold("a", 100)
    limiter.bucket_factory.bucket.flush()
    assert limiter.try_acquire("a", blocking=False)


@pytest.mark.parametrize("algorithm", [None, FixedWindow()])
def test_a_hold_in_redis_that_is_over_leaves_nothing_among_the_units(client, algorithm):
    key = fresh_key()
    bucket = RedisBucket([Rate(3, 60_000)], client, key, algorithm=algorithm)
    limiter = Limiter(bucket)
    limiter.hold("a", 0.05)
    time.sleep(0.06)
    for _ in range(3):
        assert limiter.try_acquire("a", blocking=False)
    assert not limiter.try_acquire("a", blocking=False)
    assert [name.split(":")[0] for name in client.zrange(key, 0, -1)] == ["a"] * 3


def test_what_4_5_1_writes_during_a_hold_in_redis_counts(client):
    key = fresh_key()
    limiter = Limiter(RedisBucket([Rate(2, 60_000)], client, key))
    limiter.hold("a", 3600)
    client.zadd(key, {"a0": time.time() * 1000 - 10})
    assert limiter.try_acquire("a", blocking=False) is False
    limiter.release_hold("a")
    assert limiter.bucket_factory.bucket.count() == 1
    assert limiter.check("a").remaining == 1


def test_a_hold_in_redis_is_whole_or_over_whoever_cleans_up(client):
    key = fresh_key()
    bucket = RedisBucket([Rate(2, 100)], client, key)
    item = RateItem("a", bucket.now())
    assert bucket.put(RateItem("a", bucket.now(), 2))
    assert bucket.hold(item, 60_000) == 60_000
    for later, dropped in ((30_000, 2), (90_000, 0), (1 << 40, 0)):
        assert bucket.leak(bucket.now() + later) == dropped
        assert 20_000 <= bucket.check(item).retry_after_ms <= 60_000
        assert client.pttl(key) > 20_000
        assert bucket.count() == 0
    assert bucket.release_hold(item) is True
    assert bucket.leak(1 << 50) == 0
    # As a program on 4.5.1 drops the first of the two when it is over.
    assert bucket.hold(item, 60_000) == 60_000
    client.zrem(key, "~hold")
    assert bucket.count() == 0
    assert bucket.peek(0) is None
    assert bucket.release_hold(item) is False
    assert bucket.put(RateItem("a", bucket.now()))


def test_a_hold_in_redis_does_not_keep_a_key_for_ever_when_what_waited_behind_it_is_given_back(
    client,
):
    key, clock = fresh_key(), ManualClock(int(time.time() * 1000))
    bucket = RedisBucket([Rate(2, 100)], client, key)
    bucket._clock = clock
    bucket.hold(RateItem("a", clock.now(), 0), 60_000)
    reservation = bucket.reserve(RateItem("a", clock.now(), 2), 1 << 40, 0)
    assert reservation.wait_ms == 60_000
    assert bucket.cancel(reservation)
    assert 20_000 <= client.pttl(key) <= 3_700_000


def test_a_hold_in_postgres_is_no_unit_and_goes_with_the_sweep():
    table = postgres.table()
    with postgres.pool() as pool:
        bucket = PostgresBucket(pool, table, [Rate(2, 50)])
        limiter = Limiter(bucket)
        limiter.hold("a", 0.01)
        limiter.hold("a", 0.05)
        assert bucket.count() == 0
        assert bucket.peek(0) is None
        held = f"SELECT count(*) FROM ratelimit___{table} WHERE at_ms IS NOT NULL"
        assert postgres.execute(held) == [(1,)]
        time.sleep(0.12)
        assert bucket.leak() == 0
        assert postgres.execute(held) == [(0,)]
        assert limiter.try_acquire("a", blocking=False)


def test_what_4_5_1_writes_during_a_hold_in_postgres_counts():
    table = postgres.table()
    with postgres.pool() as pool:
        limiter = Limiter(PostgresBucket(pool, table, [Rate(2, 60_000)]))
        limiter.hold("a", 3600)
        postgres.execute(
            f"INSERT INTO ratelimit___{table} (name, weight, item_timestamp) "
            "VALUES ('a', 1, localtimestamp)"
        )
        assert limiter.try_acquire("a", blocking=False) is False
        assert limiter.bucket_factory.bucket.count() == 1
        limiter.release_hold("a")
        assert limiter.check("a").remaining == 1
        assert limiter.try_acquire("a", blocking=False) is True
        assert limiter.try_acquire("a", blocking=False) is False


def test_a_name_in_postgres_is_held_alone():
    with postgres.pool() as pool:
        limiter = Limiter.per_key(RATES, bucket=PostgresKeys(pool, postgres.table()))
        limiter.hold("a", 3600)
        assert limiter.try_acquire("a", blocking=False) is False
        assert limiter.try_acquire("b", blocking=False) is True
        assert limiter.release_hold("b") is False
        assert limiter.release_hold("a") is True
        assert limiter.try_acquire("a", 2, blocking=False) is True


def test_an_outage_of_postgres_is_an_error_whatever_the_policy():
    with postgres.pool() as pool:
        bucket = PostgresBucket(pool, postgres.table(), RATES, on_error="allow", call_timeout=1)
    with pytest.raises((psycopg.OperationalError, psycopg.InterfaceError, TimeoutError)):
        bucket.hold(RateItem("a", bucket.stamp(), 0), 1000)
