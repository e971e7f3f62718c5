from pyrate_limiter import GCRA, BucketAsyncWrapper, StateBucket, TokenBucket
from pyrate_limiter.testing import BucketConformance


class TestGCRA(BucketConformance):
    claims = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, GCRA())


class TestTokenBucket(BucketConformance):
    claims = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return StateBucket(rates, TokenBucket())


class TestWrappedGCRA(BucketConformance):
    claims = True
    holds = True
    units = False

    def make_bucket(self, rates):
        return BucketAsyncWrapper(StateBucket(rates))
