"""The least that a user's own bucket may be: put, leak, flush, count and peek, sync or async."""

import pytest

from pyrate_limiter import AbstractBucket, BucketAsyncWrapper, RateItem
from pyrate_limiter.testing import BucketConformance, StateStoreConformance


class OwnBucket(AbstractBucket):
    def __init__(self, rates):
        self.rates = rates
        self.units = []

    def put(self, item):
        for rate in self.rates:
            live = sum(unit.timestamp >= item.timestamp - rate.interval for unit in self.units)
            if item.weight and live + item.weight > rate.limit:
                self.failing_rate = rate
                return False
        self.failing_rate = None
        self.units += [RateItem(item.name, item.timestamp) for _ in range(item.weight)]
        return True

    def leak(self, current_timestamp=None):
        now = self.now() if current_timestamp is None else current_timestamp
        oldest, before = now - self.rates[-1].interval, len(self.units)
        self.units = [unit for unit in self.units if unit.timestamp >= oldest]
        return before - len(self.units)

    def flush(self):
        self.failing_rate = None
        self.units.clear()

    def count(self):
        return len(self.units)

    def peek(self, index):
        return self.units[-1 - index] if index < len(self.units) else None


class OwnAsyncBucket(OwnBucket):
    async def put(self, item):
        return super().put(item)

    async def leak(self, current_timestamp=None):
        return super().leak(current_timestamp)

    async def flush(self):
        super().flush()

    async def count(self):
        return super().count()

    async def peek(self, index):
        return super().peek(index)


class OwnMixedBucket(OwnBucket):
    async def peek(self, index):
        return super().peek(index)

    async def flush(self):
        super().flush()


class TestOwnBucket(BucketConformance):
    reserves = False

    def make_bucket(self, rates):
        return OwnBucket(rates)


class TestOwnAsyncBucket(BucketConformance):
    reserves = False

    def make_bucket(self, rates):
        return OwnAsyncBucket(rates)


class TestOwnMixedBucket(BucketConformance):
    reserves = False

    def make_bucket(self, rates):
        return OwnMixedBucket(rates)


class TestWrappedOwnBucket(BucketConformance):
    reserves = False

    def make_bucket(self, rates):
        return BucketAsyncWrapper(OwnBucket(rates))


@pytest.mark.parametrize("suite", [BucketConformance, StateStoreConformance])
def test_a_suite_that_some_have_left_tests_out_of_has_all_of_them_itself(suite):
    assert all(test for name, test in vars(suite).items() if name.startswith("test_"))
