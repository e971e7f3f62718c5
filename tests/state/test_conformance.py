from pyrate_limiter import GCRA, BucketAsyncWrapper, InMemoryStateStore, StateBucket, TokenBucket
from pyrate_limiter.testing import BucketConformance, StateStoreConformance


class TestGCRA(BucketConformance):
    reserves = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, GCRA())


class TestTokenBucket(BucketConformance):
    reserves = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, TokenBucket())


class TestWrappedGCRA(BucketConformance):
    reserves = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return BucketAsyncWrapper(StateBucket(rates))


class TestInMemoryStore(StateStoreConformance):
    def make_store(self):
        return InMemoryStateStore()
