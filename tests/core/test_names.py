"""Names of calls: any text, and whatever else programs use for one."""

import enum

import pytest

from pyrate_limiter import Limiter, PostgresKeys, Rate, RateItem, RedisKeys, SQLiteBucket
from tests.support import postgres_fixtures as postgres
from tests.support.kinds import KINDS
from tests.support.redis_servers import fresh_key

RATE = Rate(2, 60_000)


class Text(str, enum.Enum):
    A = "a"


class Plain(enum.Enum):
    A = 1


NAMES = [
    *("plain", "", "a:b:c", "ü😀", "nul\0x", "line\nbreak", "quote'\"`\\", "%s %d {x}", "x" * 5000),
    *("lone\ud800", 12345, 0, None, b"bytes", ("t", 1), Text.A, Plain.A, 1.5, True),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_takes_any_name(made, kind):
    for name in NAMES:
        bucket = made.make(kind, [RATE])
        limiter = Limiter(bucket)
        got = [limiter.try_acquire(name, blocking=False) for _ in range(3)]
        assert got == [True, True, False], repr(name)[:30]


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_of_any_name_can_give_its_units_back(made, kind):
    for name in NAMES:
        bucket = made.make(kind, [RATE])
        now = bucket.now()
        assert bucket.put(RateItem(name, now, 2))
        item = RateItem(name, now)
        reservation = bucket.reserve(item, 1 << 40)
        assert reservation.wait_ms
        assert bucket.cancel(reservation), repr(name)[:30]


def stores(made, tmp_path):
    yield Limiter.per_key(RATE)
    yield Limiter.per_key(RATE, bucket=SQLiteBucket.per_key(tmp_path / "names.db"))
    yield Limiter.per_key(RATE, bucket=RedisKeys(made.redis(), fresh_key()))
    yield Limiter.per_key(RATE, bucket=PostgresKeys(made.pool(), postgres.table()))


def test_every_keyed_store_takes_any_name(made, tmp_path):
    for limiter in stores(made, tmp_path):
        with limiter:
            for name in NAMES:
                got = [limiter.try_acquire(name, blocking=False) for _ in range(3)]
                assert got == [True, True, False], repr(name)[:30]
