"""One bucket of each kind that the library brings, for promises that all of them keep."""

import contextlib

import redis

from pyrate_limiter import (
    FixedWindow,
    InMemoryBucket,
    MultiprocessBucket,
    MultiprocessStateStore,
    PostgresBucket,
    PostgresStateStore,
    RedisBucket,
    RedisStateStore,
    SQLiteBucket,
    SQLiteStateStore,
    StateBucket,
)
from tests.support import postgres_fixtures as postgres
from tests.support.redis_servers import fresh_key, shared_url

KINDS = {
    "memory": lambda rates, _: InMemoryBucket(rates),
    "fixed window": lambda rates, _: InMemoryBucket(rates, FixedWindow()),
    "gcra": lambda rates, _: StateBucket(rates),
    "multiprocess": lambda rates, _: MultiprocessBucket.init(rates),
    "multiprocess gcra": lambda rates, _: StateBucket(rates, store=MultiprocessStateStore.init()),
    "sqlite": lambda rates, _: SQLiteBucket.init_from_file(rates),
    "sqlite gcra": lambda rates, ends: StateBucket(
        rates, store=SQLiteStateStore(ends.folder / "states.db", fresh_key())
    ),
    "redis": lambda rates, ends: RedisBucket.init(rates, ends.redis(), fresh_key()),
    "redis gcra": lambda rates, ends: StateBucket(
        rates, store=RedisStateStore(ends.redis(), fresh_key())
    ),
    "postgres": lambda rates, ends: PostgresBucket(ends.pool(), postgres.table(), rates),
    "postgres gcra": lambda rates, ends: StateBucket(
        rates, store=PostgresStateStore(ends.pool(), postgres.table())
    ),
}

# The logs of all backends, in fixed windows.
WINDOWS = {
    "windows": KINDS["fixed window"],
    "multiprocess windows": lambda rates, _: MultiprocessBucket.init(rates, FixedWindow()),
    "sqlite windows": lambda rates, _: SQLiteBucket.init_from_file(rates, algorithm=FixedWindow()),
    "redis windows": lambda rates, ends: RedisBucket.init(
        rates, ends.redis(), fresh_key(), FixedWindow()
    ),
    "postgres windows": lambda rates, ends: PostgresBucket(
        ends.pool(), postgres.table(), rates, FixedWindow()
    ),
}


class Ends:
    """The folder, clients and pools of a test; all are closed at its end."""

    def __init__(self, folder, stack):
        self.folder = folder
        self._stack = stack

    def redis(self):
        return self._stack.enter_context(redis.Redis.from_url(shared_url()))

    def pool(self):
        pool = postgres.pool(size=2)
        self._stack.callback(pool.close)
        return pool

    def make(self, kind, rates):
        """A new, empty bucket."""
        bucket = {**KINDS, **WINDOWS}[kind](rates, self)
        self._stack.callback(bucket.close)
        return bucket


@contextlib.contextmanager
def ends(folder):
    with contextlib.ExitStack() as stack:
        yield Ends(folder, stack)
