"""PostgresBucket, held to what every bucket has to do, on a real server."""

import pytest

from pyrate_limiter import FixedWindow, PostgresBucket, PostgresStateStore, StateBucket
from pyrate_limiter.testing import BucketConformance, StateStoreConformance
from tests.support import postgres_fixtures as postgres

pool = postgres.shared_pool


class _OnPool(BucketConformance):
    @pytest.fixture(autouse=True)
    def _pool(self, pool):
        self.pool = pool


class TestPostgresBucket(_OnPool):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return PostgresBucket(self.pool, postgres.table(), rates)


class TestPostgresBucketOnTheServersClock(_OnPool):
    reserves = True
    holds = True
    manual_clock = False

    def make_bucket(self, rates):
        return PostgresBucket(self.pool, postgres.table(), rates)


class TestPostgresFixedWindow(_OnPool):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return PostgresBucket(self.pool, postgres.table(), rates, FixedWindow())


class TestPostgresPolicyInThisProcess(_OnPool):
    reserves = True
    holds = True
    fills_room = False

    def make_bucket(self, rates):
        class Own(FixedWindow):
            pass

        return PostgresBucket(self.pool, postgres.table(), rates, Own())


class TestPostgresState(_OnPool):
    reserves = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, store=PostgresStateStore(self.pool, postgres.table()))


class TestAsyncPostgresBucket(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return _opened(lambda pool: PostgresBucket(pool, postgres.table(), rates))


class TestAsyncPostgresState(BucketConformance):
    reserves = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return _opened(
            lambda pool: StateBucket(rates, store=PostgresStateStore(pool, postgres.table()))
        )


class TestPostgresStore(StateStoreConformance):
    @pytest.fixture(autouse=True)
    def _pool(self, pool):
        self.pool = pool

    def make_store(self):
        return PostgresStateStore(self.pool, postgres.table())


class TestAsyncPostgresStore(StateStoreConformance):
    def make_store(self):
        return _opened(lambda pool: PostgresStateStore(pool, postgres.table()))


async def _opened(make):
    """What ``make`` makes on a pool that is closed with the event loop."""
    keeper = _pool_until_the_end()
    _keepers.append(keeper)
    return make(await anext(keeper))


async def _pool_until_the_end():
    pool = await postgres.async_pool(size=2)
    try:
        yield pool
    finally:
        await pool.close()


_keepers = []
