"""The limiter of 2.x: a bucket for each identity, and an exception where it is full."""

# mypy: disable-error-code="override"
# The methods have the signatures of 2.x.

from __future__ import annotations

import threading
import time
import warnings
from contextlib import ExitStack
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, NoReturn

from pyrate_limiter import AbstractBucket as CurrentBucket
from pyrate_limiter import Limiter as CurrentLimiter
from pyrate_limiter import RedisBucket as CurrentRedisBucket
from pyrate_limiter import SlidingWindowLog
from pyrate_limiter import SQLiteBucket as CurrentSQLiteBucket
from pyrate_limiter.compat.exceptions import BucketFullException, InvalidParams
from pyrate_limiter.compat.v2.bucket import AbstractBucket, MemoryQueueBucket, RedisBucket
from pyrate_limiter.compat.v2.limit_context_decorator import LimitContextDecorator
from pyrate_limiter.compat.v2.request_rate import RequestRate
from pyrate_limiter.compat.v2.sqlite_bucket import SQLiteBucket
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from typing_extensions import Self

    from pyrate_limiter import Rate
    from pyrate_limiter.abstracts.rate import Duration

__all__ = [
    "AbstractBucket",
    "BucketFullException",
    "InvalidParams",
    "LimitContextDecorator",
    "Limiter",
    "MemoryQueueBucket",
    "RequestRate",
]


class HalfOpenWindow(SlidingWindowLog):
    """`SlidingWindowLog` in which a unit that is exactly one interval old no longer counts."""

    def window_start(self, rate: Rate, now: int) -> int:
        """One interval back, without the edge."""
        return super().window_start(rate, now) + 1

    def retry_after(self, rate: Rate, now: int, blocking_timestamp: int | None) -> int:
        """Until the blocking unit is one interval old."""
        return max(0, super().retry_after(rate, now, blocking_timestamp) - 1)


_POLICY = HalfOpenWindow()
_SUCCESSORS: dict[object, type[AbstractBucket]] = {
    CurrentSQLiteBucket: SQLiteBucket,
    CurrentRedisBucket: RedisBucket,
}


class _Absent:
    """A name of later releases: programs look for it to see which release is there."""

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError("a Limiter of 2.x has no such attribute: see the page on migration")


class Limiter(CurrentLimiter):
    """Lets calls through at the rates, for each identity by itself; the others are refused.

    Args:
        rates: from the shortest interval to the longest, with rising limits.
        bucket_class: makes the bucket of each identity, on its first use.
        bucket_kwargs: for ``bucket_class``, beside ``maxsize`` and ``identity``.
        time_function: gives the time in seconds. Left out, it is ``time.monotonic``: buckets that
            outlive the process, or are shared between hosts, need one such as ``time.time``.

    Raises:
        InvalidParams: there is no rate, or one cannot come before the next.
        WrongType: a rate is none, or ``bucket_class`` is no class of 2.x.
    """

    if not TYPE_CHECKING:  # a checker takes the base class at its word
        acquire = acquire_async = as_decorator = bucket_factory = buckets = buffer_ms = _Absent()
        check = check_async = close = delay_or_raise = dispose = handle_bucket_put = _Absent()
        hold = hold_async = limit = lock = per_key = release_hold = reserve = _Absent()
        release_hold_async = reserve_ahead = reserve_async = try_acquire_async = _Absent()

    def __init__(
        self,
        *rates: RequestRate,
        bucket_class: Callable[..., AbstractBucket] = MemoryQueueBucket,
        bucket_kwargs: Mapping[str, object] | None = None,
        time_function: Callable[[], float] | None = None,
    ) -> None:
        _check_order(rates)
        self._rates: tuple[RequestRate, ...] = rates
        self._windows: list[Rate | None] = [rate.window() for rate in rates]
        self._bkclass: Callable[..., AbstractBucket] = _bucket_class(bucket_class)
        self._bucket_args: dict[str, object] = dict(bucket_kwargs or {})
        self.bucket_group: dict[Any, AbstractBucket] = {}
        self.time_function: Callable[[], float] = time_function or time.monotonic
        self._making = threading.Lock()
        # What cannot be made, or tells no time, is found here and not at the first call.
        self._made("_")
        self.time_function()

    def try_acquire(self, *identities: Hashable) -> None:
        """Admit one call for each identity, or none of them. Without identities, do nothing.

        Raises:
            BucketFullException: one of them is full.
            InvalidParams: an identity is named more often than some rate can ever admit at once.
        """
        if not identities:
            return
        units: dict[Any, int] = {}
        for identity in identities:
            units[identity] = units.get(identity, 0) + 1
        self._check_possible(units)
        in_lock_order = sorted(units) if len(units) > 1 else list(units)
        buckets = {identity: self._bucket(identity) for identity in units}
        if isinstance(buckets[in_lock_order[0]], RedisBucket):
            on_server = {key: one for key, one in buckets.items() if isinstance(one, RedisBucket)}
            self._admit_on_server(on_server, units)
            return
        locked = []
        try:
            for identity in in_lock_order:
                buckets[identity].lock_acquire()
                locked.append(buckets[identity])
            now = self._time()
            for rate, window in zip(self._rates, self._windows):
                for identity, weight in units.items():
                    self._make_room(rate, window, identity, buckets[identity], weight, now)
            for identity in identities:
                buckets[identity].put(now)
        finally:
            for bucket in reversed(locked):
                bucket.lock_release()

    def ratelimit(
        self, *identities: Hashable, delay: bool = False, max_delay: float | Duration | None = None
    ) -> LimitContextDecorator:
        """A decorator and context manager that acquires at each call, or on entering.

        Args:
            identities: as in `try_acquire`. Without any it limits nothing, and warns.
            delay: whether to wait for room instead of raising.
            max_delay: how long to wait at the most, in seconds.
        """
        if not identities:
            warnings.warn("ratelimit() without an identity limits nothing", stacklevel=2)
        return LimitContextDecorator(self, *identities, delay=delay, max_delay=max_delay)

    def get_current_volume(self, identity: Hashable) -> int:
        """How many calls are stored for an identity, those that no longer count included.

        Raises:
            KeyError: it was never used with this limiter.
        """
        return self.bucket_group[identity].size()

    def flush_all(self) -> int:
        """Empty the buckets of all identities, and say how many there are."""
        buckets = list(self.bucket_group.values())
        for bucket in buckets:
            bucket.flush()
        return len(buckets)

    def __copy__(self) -> Self:
        """A limiter of the same buckets."""
        same = type(self).__new__(type(self))
        same.__dict__.update(self.__dict__)
        return same

    def __reduce__(self) -> NoReturn:
        raise WrongType("what is pickled", self, "no Limiter of 2.x: make it anew in each process")

    def _time(self) -> float:
        return round(self.time_function(), 3)

    def _bucket(self, identity: Hashable) -> AbstractBucket:
        known = self.bucket_group.get(identity)
        if known is not None:
            return known
        with self._making:
            if identity not in self.bucket_group:
                self.bucket_group[identity] = self._made(identity)
            return self.bucket_group[identity]

    def _made(self, identity: Hashable) -> AbstractBucket:
        limit = self._rates[-1].limit
        return self._bkclass(maxsize=limit, identity=identity, **self._bucket_args)

    def _check_possible(self, units: Mapping[Hashable, int]) -> None:
        for identity, weight in units.items():
            for rate in self._rates:
                if weight <= rate.limit:  # nor is it too much for the others: limits rise
                    break
                if rate.limit <= 0:
                    raise BucketFullException(identity, rate, 0.0)
                if rate.interval > 0 and weight > ceil(rate.limit):
                    msg = f"{identity} is named {weight} times, which {rate} never admits"
                    raise InvalidParams(msg)

    def _make_room(
        self,
        rate: RequestRate,
        window: Rate | None,
        identity: Hashable,
        bucket: AbstractBucket,
        weight: int,
        now: float,
    ) -> None:
        """Raise if the rate has no room. The last, which looks back longest, drops what is over."""
        size = bucket.size()
        if size + weight <= rate.limit:
            return

        def peek(offset: int) -> int:
            return _ms(bucket.all_items()[-1 - offset])

        live = 0
        if window is not None:  # else its interval has always passed
            live, _ = bucket.inspect_expired_items(_edge(window, now))
            decision = _POLICY.decide([window], [live], weight, _ms(now), peek)
            if not decision:
                raise _full(identity, rate, decision.retry_after_ms or 0, now)
        if rate is self._rates[-1]:
            bucket.get(size - live)

    def _admit_on_server(
        self, buckets: Mapping[Hashable, RedisBucket], units: Mapping[Hashable, int]
    ) -> None:
        """One step for each identity; one that is full gives back what those before it took."""
        now = self._time()
        limiting = [(rate, window) for rate, window in zip(self._rates, self._windows) if window]
        edges = [(window.limit, _edge(window, now)) for _, window in limiting]
        with ExitStack() as admitted:
            for identity, weight in units.items():
                refused = buckets[identity].admit(now, weight, edges)
                if refused is not None:
                    rate, window = limiting[refused[0]]
                    wait = _POLICY.retry_after(window, _ms(now), _ms(refused[1]))
                    raise _full(identity, rate, wait, now)
                admitted.callback(buckets[identity].take_back, now, weight)
            admitted.pop_all()


def _check_order(rates: tuple[RequestRate, ...]) -> None:
    if not rates:
        raise InvalidParams("Rate(s) must be provided")
    for rate in rates:
        if not isinstance(rate, RequestRate):
            raise WrongType("a rate", rate, "a RequestRate: Limiter(RequestRate(5, 10), ...)")
    for shorter, longer in pairwise(rates):
        if shorter.limit >= longer.limit or shorter.interval >= longer.interval:
            raise InvalidParams(f"{shorter} cannot come before {longer}")


def _bucket_class(given: Callable[..., AbstractBucket]) -> Callable[..., AbstractBucket]:
    """The class of 2.x, also where one of this release, or what derives from one, was given."""
    if given in _SUCCESSORS:
        return _SUCCESSORS[given]
    kind: type = given if isinstance(given, type) else object
    if not issubclass(kind, CurrentBucket):
        return given  # it may be anything that makes such buckets
    if issubclass(kind, CurrentRedisBucket) and hasattr(kind, "get_connection"):
        return type(kind.__name__, (RedisBucket,), {"get_connection": kind.get_connection})
    if hasattr(kind, "all_items"):
        # Written for 2.x over today's base, whose other methods it does not need.
        not_needed = dict.fromkeys(("count", "leak", "peek"))
        return type(kind.__name__, (kind, AbstractBucket), not_needed)
    raise WrongType(
        "bucket_class", given, "a class of 2.x: derive it from one of pyrate_limiter.compat.v2"
    )


def _ms(time: float) -> int:
    return round(time * 1000)


def _edge(window: Rate, now: float) -> float:
    """The latest time, in seconds, that no longer counts; exact on a clock of milliseconds."""
    return (_POLICY.window_start(window, _ms(now)) - 1) / 1000


def _full(identity: object, rate: RequestRate, wait_ms: int, now: float) -> BucketFullException:
    whole = isinstance(now, int) and isinstance(rate.interval, int)
    return BucketFullException(identity, rate, wait_ms // 1000 if whole else wait_ms / 1000)
