"""What the parts of `BucketConformance` stand on: the kinds of buckets, and how one is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyrate_limiter.abstracts.algorithm import FixedWindow, StateAlgorithm
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.limiter import Limiter, SingleBucketFactory
from pyrate_limiter.testing._suite import Suite, get
from pyrate_limiter.testing.clocks import ManualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.bucket import AbstractBucket

_START_MS = 1_000_000_000  # a multiple of every interval in the tests


class BucketSuite(Suite, suite=True):
    """The attributes of `BucketConformance`."""

    manual_clock: bool = True
    """Whether ``bucket._clock`` may be replaced. False for a bucket that asks a server for the
    time: then the waits under a `Limiter` take real time."""

    interval_ms: int = 10_000
    """The interval of the rates in most tests; a multiple of 100. With ``manual_clock`` false the
    tests that wait use a hundredth of it."""

    names: Sequence[str] = (
        "",
        " ",
        "x" * 300,
        "a'b\"c`; DROP TABLE rate_bucket; --",
        "100%s {0} {name} \\ /:*?[]",
        "tab\t newline\n return\r",
        "nul\0 bell\a",
        "čeština 日本語 🦆 e\u0301",
    )
    """Names that items may have."""

    reserves: bool = False
    """Whether the bucket stores items at future moments by itself, as the built-in ones do."""

    holds: bool = False
    """Whether the bucket has `AbstractBucket.hold`, as the built-in ones have."""

    fills_room: bool = True
    """Whether an item goes before others that are reserved, where one was cancelled."""

    units: bool = True
    """Whether the bucket stores units. False for one that runs a `StateAlgorithm`."""

    def make_bucket(self, rates: list[Rate]) -> AbstractBucket | Awaitable[AbstractBucket]:
        """An empty bucket with these rates, or an awaitable of one. To be overridden."""
        raise NotImplementedError

    async def _new(self, *rates: Rate) -> tuple[AbstractBucket, int]:
        """A bucket, and a moment on its clock that is a multiple of its intervals."""
        bucket = await get(self.make_bucket(list(rates)))
        self._made.append(bucket)
        if self.manual_clock:
            bucket._clock = ManualClock(_START_MS)
            return bucket, _START_MS
        longest = max(rate.interval for rate in rates)
        now = await get(bucket.now())
        return bucket, now + (-now % longest if isinstance(bucket._algorithm, FixedWindow) else 0)

    async def _full(self, limit: int) -> tuple[AbstractBucket, int]:
        """A bucket of one rate, and the moment at which it was filled."""
        bucket, t = await self._new(self._rate(limit))
        assert await get(bucket.put(RateItem("a", t, limit)))
        return bucket, t

    def _rate(self, limit: int) -> Rate:
        return Rate(limit, self.interval_ms)


async def reserved(
    bucket: AbstractBucket, item: RateItem, max_wait_ms: int = 1 << 40
) -> Reservation:
    """What the bucket has stored for an item, now or ahead."""
    reservation = reservation_of(await get(bucket.reserve(item, max_wait_ms, 0)))
    assert reservation.item is item
    return reservation


def reservation_of(decision: Decision) -> Reservation:
    """A decision that has to be a reservation."""
    assert isinstance(decision, Reservation)
    return decision


async def unit_of(bucket: AbstractBucket, index: int) -> RateItem:
    """A unit that has to be there, by its place from the newest."""
    unit = await get(bucket.peek(index))
    assert unit is not None
    return unit


def limiter_on(bucket: AbstractBucket) -> Limiter:
    """A limiter on the bucket, which is not swept."""
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False))


def manual(bucket: AbstractBucket) -> ManualClock:
    """The clock of a bucket whose suite says that it can be a manual one."""
    assert isinstance(bucket._clock, ManualClock)
    return bucket._clock


def frees_at(bucket: AbstractBucket, weight: int, since: int) -> int:
    """When ``weight`` fits into a bucket of one rate that was filled at ``since``."""
    rate, algorithm = bucket.rates[0], bucket._algorithm
    if isinstance(algorithm, StateAlgorithm):
        return since + math.ceil(weight * rate.emission_us / 1000)
    if isinstance(algorithm, FixedWindow):
        return since - since % rate.interval + rate.interval
    return since + rate.interval + 1


def is_log(bucket: AbstractBucket) -> bool:
    """Whether the bucket stores units."""
    return not isinstance(bucket._algorithm, StateAlgorithm)
