"""What every bucket has to do, as a pytest class. Importing this module needs pytest."""

from __future__ import annotations

from pyrate_limiter.testing._holding_conformance import Holding
from pyrate_limiter.testing._limiting_conformance import Limiting
from pyrate_limiter.testing._reserving_conformance import Reserving
from pyrate_limiter.testing._storing_conformance import Storing


class BucketConformance(Storing, Reserving, Holding, Limiting, suite=True):
    """Holds a bucket, sync or async, to what `Limiter` and its users rely on.

    Subclass it in a test module, under a name that pytest collects, and say how to make a bucket:

        class TestMyBucket(BucketConformance):
            def make_bucket(self, rates):
                return MyBucket(rates)

    The bucket has to be empty each time. The attributes below say what kind of bucket it is where
    the suite cannot see that for itself.
    """
