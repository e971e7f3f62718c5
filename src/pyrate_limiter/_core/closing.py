"""The end of a bucket: one that was closed admits nothing, and an idle one may be dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.errors import BucketClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.abstracts.bucket import AbstractBucket


class StoppedClock(AbstractClock):
    """The clock of a closed bucket."""

    __slots__ = ()

    def now(self) -> NoReturn:
        """Refuse.

        Raises:
            BucketClosed: always.
        """
        raise BucketClosed


def refuse(*_arguments: object, **_keywords: object) -> NoReturn:
    """Take the place of a method.

    Raises:
        BucketClosed: always.
    """
    raise BucketClosed


def _leak_nothing(current_timestamp: int | None = None) -> int:
    del current_timestamp
    return 0


async def _leak_nothing_async(current_timestamp: int | None = None) -> int:
    return _leak_nothing(current_timestamp)


# The methods of a closed bucket.
_SYNC: dict[str, object] = {
    "check": refuse,
    "reserve": refuse,
    "reserve_several": refuse,
    "follow": refuse,
    "leak": _leak_nothing,
    "put": refuse,
    "put_decision": refuse,
    "confirm": refuse,
    "confirm_several": refuse,
    "waiting": refuse,
}
_ASYNC: dict[str, object] = {**_SYNC, "leak": _leak_nothing_async}


class Closable:
    """A bucket that can be closed; it comes before `AbstractBucket` among the bases."""

    __slots__ = ()

    is_async: bool | None

    def close(self) -> None:
        """Admit nothing any more. May be called again.

        From now on each attempt raises `BucketClosed`. What the bucket holds can still be looked
        at, flushed and given back. What was handed in, such as a client or a pool, stays open.
        """
        vars(self).update(_ASYNC if self.is_async else _SYNC)

    def _let_go(self) -> None:
        """Nothing: programs close one limiter after the other over the same bucket."""


def retires(bucket: AbstractBucket) -> bool:
    """Have an idle bucket refuse all use from now on; False if it goes on.

    A bucket goes on that has no ``retire``, or whose clock has to be awaited.
    """
    retire: Callable[[int], bool] | None = getattr(bucket, "retire", None)
    if retire is None:
        return False
    now = bucket.now()
    if is_awaitable(now):
        discard(now)
        return False
    return retire(now)
