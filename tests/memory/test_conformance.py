from pyrate_limiter import BucketAsyncWrapper, FixedWindow, InMemoryBucket
from pyrate_limiter.testing import BucketConformance


class TestSlidingWindowLog(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return InMemoryBucket(rates)


class TestFixedWindow(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return InMemoryBucket(rates, FixedWindow())


class TestWrappedSlidingWindowLog(BucketConformance):
    reserves = True
    holds = True

    def make_bucket(self, rates):
        return BucketAsyncWrapper(InMemoryBucket(rates))


class TestWrappedFixedWindow(BucketConformance):
    reserves = True
    holds = True

    async def make_bucket(self, rates):
        return BucketAsyncWrapper(InMemoryBucket(rates, FixedWindow()))
