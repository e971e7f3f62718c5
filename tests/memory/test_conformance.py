from pyrate_limiter import BucketAsyncWrapper, FixedWindow, InMemoryBucket
from pyrate_limiter.testing import BucketConformance


class TestSlidingWindowLog(BucketConformance):
    claims = True
    holds = True

    def make_bucket(self, rates):
        return InMemoryBucket(rates)


class TestFixedWindow(BucketConformance):
    claims = True
    holds = True

    def make_bucket(self, rates):
        return InMemoryBucket(rates, FixedWindow())


class TestWrappedSlidingWindowLog(BucketConformance):
    claims = True
    holds = True

    def make_bucket(self, rates):
        return BucketAsyncWrapper(InMemoryBucket(rates))


class TestWrappedFixedWindow(BucketConformance):
    claims = True
    holds = True

    async def make_bucket(self, rates):
        return BucketAsyncWrapper(InMemoryBucket(rates, FixedWindow()))
