"""What answers in the server's place while it is away: all that ``on_error`` can say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.closing import retires
from pyrate_limiter._core.rate_list import sorted_rates
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.rate import Rate

    # "raise", "allow", "deny", a bucket, or a function that makes one from rates.
    OnError: TypeAlias = str | AbstractBucket | Callable[[RateList], AbstractBucket]

_WORDS = ("raise", "allow", "deny")
_MOST_MADE = 10_000  # buckets, of one fallback


def check_on_error(on_error: OnError, *, is_async: bool, buckets: bool = True) -> OnError:
    """What to do while the server is away, if that is one of the things that can be done.

    Args:
        on_error: what the user said.
        is_async: whether calls to the server are awaited: then those to the fallback may be, too.
        buckets: whether a bucket may take the server's place.

    Raises:
        WrongType: it is something else.
    """
    if isinstance(on_error, str):
        known = on_error in _WORDS
    else:
        known = buckets and (isinstance(on_error, AbstractBucket) or callable(on_error))
    if not known:
        expected = "'raise', 'allow' or 'deny'"
        if buckets:
            expected = "'raise', 'allow', 'deny', a bucket, or a function that makes one from rates"
        raise WrongType("on_error", on_error, expected)
    if isinstance(on_error, AbstractBucket) and on_error.is_async and not is_async:
        raise WrongType("on_error", on_error, "a sync bucket, for the server's client is sync")
    return on_error


class FallbackUnits:
    """Units that a fallback bucket holds for an item.

    Args:
        bucket: the fallback.
        reservation: what it has stored.
    """

    __slots__ = ("bucket", "reservation")

    def __init__(self, bucket: AbstractBucket, reservation: Reservation) -> None:
        self.bucket: AbstractBucket = bucket
        self.reservation: Reservation = reservation

    def confirm(self, max_wait_ms: int) -> Program[Decision]:
        """See `AbstractBucket.confirm`."""
        now: int = yield self.bucket.now()
        decision: Decision = yield self.bucket.confirm(self.reservation, now, max_wait_ms)
        if isinstance(decision, Reservation):
            self.reservation = decision
        return decision

    def cancel(self) -> Program[bool]:
        """See `AbstractBucket.cancel`."""
        cancelled: bool = yield self.bucket.cancel(self.reservation)
        return cancelled

    def pause(self) -> float:
        """Seconds to sleep before they may be used, see `AbstractBucket.pause`."""
        return self.bucket.pause(self.reservation)


class Fallback:
    """Answers in the server's place.

    Args:
        on_error: what to do, as `check_on_error` has let it through.
    """

    __slots__ = ("_made", "on_error")

    def __init__(self, on_error: OnError) -> None:
        self.on_error: OnError = on_error
        self._made: dict[str, AbstractBucket] = {}

    def decide(
        self,
        rates: Sequence[Rate],
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int | None,
        retry_ms: int,
        key: str = "",
    ) -> Program[tuple[Decision, FallbackUnits | None]]:
        """The verdict on an item, and what the fallback bucket has stored, if anything.

        Args:
            rates: the limits.
            item: what it asks for; it is left as it is.
            max_wait_ms: see `AbstractBucket.reserve`; -1 only looks.
            buffer_ms: see `AbstractBucket.reserve`.
            retry_ms: milliseconds until the server is asked again.
            key: which of the buckets that are limited apart from each other.
        """
        bucket = self.bucket(rates, key)
        if bucket is None:
            return self.verdict(rates, retry_ms), None
        now: int = yield bucket.now()
        copy = RateItem(item.name, now, item.weight)
        decision: Decision = yield (
            bucket.check(copy) if max_wait_ms < 0 else bucket.reserve(copy, max_wait_ms, buffer_ms)
        )
        if not isinstance(decision, Reservation):
            return decision, None
        return decision, FallbackUnits(bucket, decision)

    def verdict(self, rates: Sequence[Rate], retry_ms: int) -> Decision:
        """What there is to say without a bucket that takes the server's place."""
        return ADMITTED if self.on_error == "allow" else Decision(rates[0], retry_ms)

    def bucket(self, rates: Sequence[Rate], key: str = "") -> AbstractBucket | None:
        """The bucket that takes the server's place, if one does; made when it is first used."""
        on_error = self.on_error
        if isinstance(on_error, str):
            return None
        if isinstance(on_error, AbstractBucket):
            return on_error
        bucket = self._made.get(key)
        if bucket is None:
            if len(self._made) >= _MOST_MADE:
                self._made = {}
            bucket = self._made.setdefault(key, on_error(sorted_rates(rates)))
        return bucket

    def retire(self) -> bool:
        """Refuse all use of the buckets that were made here, unless one still holds units."""
        return all(map(retires, [*self._made.values()]))
