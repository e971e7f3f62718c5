"""Checked by mypy --strict and pyright, and never run: the types of the older APIs."""

from collections.abc import Awaitable
from typing import Any

from typing_extensions import assert_type

import pyrate_limiter.bucket
import pyrate_limiter.exceptions
from pyrate_limiter import BucketFullException, RequestRate, TimeClock
from pyrate_limiter.compat import v2, v3

old = v2.Limiter(v2.RequestRate(2, v2.Duration.SECOND * 5), v2.RequestRate(3, 60.5))
v2.Limiter(RequestRate(1, 5), bucket_class=v2.SQLiteBucket, bucket_kwargs={"path": "calls.db"})
v2.Limiter(v3.Rate(1, 5))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert_type(old.get_current_volume("x"), int)
assert_type(old.flush_all(), int)
assert_type(old.bucket_group, dict[Any, v2.AbstractBucket])
assert_type(old.ratelimit("x", delay=True, max_delay=5), v2.LimitContextDecorator)
assert_type(old.ratelimit("x").delay_or_reraise(BucketFullException("x", "1/5", 2.5)), float)
with old.ratelimit("x"):
    pass


@old.ratelimit("x", delay=True)
def add(left: int, right: str = "") -> float:
    """Keep its parameters and its result."""
    return left + len(right)


assert_type(add(1, right="x"), float)
add("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@old.ratelimit("x", delay=True)
async def fetch(url: str) -> bytes:
    """Stay a coroutine function."""
    return url.encode()


class Times(v2.AbstractBucket):
    """A user's bucket for 2.x, as the types allow it."""

    def size(self) -> int:
        """How many."""
        return 0

    def put(self, item: float) -> int:
        """One more."""
        return int(item)

    def get(self, number: int) -> int:
        """Fewer."""
        return number

    def all_items(self) -> list[float]:
        """All."""
        return []

    def flush(self) -> None:
        """None."""


v2.Limiter(v2.RequestRate(1, 5), bucket_class=Times)
assert_type(pyrate_limiter.bucket.MemoryListBucket(5).all_items(), list[float])

limiter = v3.Limiter(v3.Rate(1, 300), TimeClock(), raise_when_fail=False, max_delay=v3.Duration.DAY)
v3.Limiter([v3.Rate(1, 300)], max_delay=1_000, retry_until_max_delay=True, buffer_ms=10)
v3.Limiter(v3.Rate(1, 300), blocking=True)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
assert_type(limiter.try_acquire("x", 2), bool | Awaitable[bool])
limiter.try_acquire("x", blocking=False)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
assert_type(limiter.max_delay, float | None)
limiter.max_delay = v3.Duration.MINUTE
limiter.max_delay = None
assert_type(limiter.raise_when_fail, bool)
assert_type(v3.limiter_factory.create_inmemory_limiter(max_delay=v3.Duration.HOUR), v3.Limiter)
assert_type(v3.binary_search([v3.RateItem("x", 1)], 5), int)


def cost(number: int) -> tuple[str, int]:
    """Name and weigh a call."""
    return "x", number


@limiter.as_decorator()(cost)
def double(number: int) -> int:
    """Keep its parameters and its result."""
    return 2 * number


assert_type(double(3), int)


async def use() -> None:
    """Await what has to be awaited."""
    assert_type(await limiter.try_acquire_async("x"), bool)
    assert_type(await fetch("x"), bytes)
    async with old.ratelimit("x"):
        pass


class PerName(v3.BucketFactory):
    """A user's factory for 3.x, as the types allow it."""

    def wrap_item(self, name: str, weight: int = 1) -> v3.RateItem:
        """Sync."""
        return v3.RateItem(name, 0, weight)

    def get(self, item: v3.RateItem) -> v3.AbstractBucket:
        """Sync."""
        return self.create(v3.TimeClock(), v3.InMemoryBucket, [v3.Rate(1, 300)])


try:
    limiter.try_acquire("x")
except pyrate_limiter.exceptions.LimiterDelayException as error:
    assert_type(error.actual_delay, int)
    assert_type(error.meta_info, dict[str, Any])
