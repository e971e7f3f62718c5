"""What a bucket that was closed does from then on: it admits nothing, and says so."""

from __future__ import annotations

from typing import Any, NoReturn

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.errors import BucketClosed


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
_SYNC: dict[str, Any] = {
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
_ASYNC: dict[str, Any] = {**_SYNC, "leak": _leak_nothing_async}


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
