"""A bucket of its own for every name, in bounded memory."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.closing import refuse, retires
from pyrate_limiter._core.fork_safe_locks import shared_lock
from pyrate_limiter._core.leaker import Leaker
from pyrate_limiter._core.rate_list import sorted_rates
from pyrate_limiter._core.validation import check_whole
from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory
from pyrate_limiter.abstracts.bucket_factory import id_of
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.buckets.state.bucket import StateBucket
from pyrate_limiter.errors import InvalidBucket, TooManyKeys, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from threading import RLock

    from typing_extensions import TypeIs

    from pyrate_limiter._core.rate_list import RateList

    _MakesByName = Callable[[RateList, str], AbstractBucket]
    _MakesMember = Callable[[RateList, RLock], AbstractBucket]

_LOOKED_AT = 64  # keys, by a call that needs room
_RESCAN_SECONDS = 1.0  # after a look at all keys that found no idle one
_SLICE = 256  # keys that a sweep looks at before it lets other threads in


class KeyedStore(Protocol):
    """A place that keeps the buckets of all names by itself; `Limiter.per_key` takes one."""

    def keyed(self, rates: Rate | Sequence[Rate]) -> BucketFactory | AbstractBucket:
        """The factory of its buckets, or one bucket that tells the names apart by itself."""


class KeyedBucketFactory(BucketFactory):
    """Routes each name to a bucket of its own, made on first use.

    A bucket in which nothing counts any more is dropped, by the sweep every `leak_interval` and
    where room is needed. One that still limits somebody is never dropped: with ``max_keys`` of
    those, a further name gets `TooManyKeys`, so that a flood of made-up names can neither fill the
    memory nor wash out the limits of others. A call that needs room looks at a few keys, the next
    one at those that follow; when all have been looked at in vain, a second passes before the next
    look.

    Threads that meet a new name together may each have a bucket made for it; one of them is used.

    Args:
        rates: the limits that each name is held to.
        bucket: makes a bucket from a list of rates: a bucket class, or any function. Where it has
            a method ``for_name(rates, name)``, as `RedisKeys`, that is asked. Only a bucket
            that has `retire`, as `InMemoryBucket` and `StateBucket` do, is ever dropped.
        max_keys: how many buckets there may be at a time.

    Raises:
        InvalidRateList: some rate of the list can never matter.
        WrongType: ``max_keys`` is no whole number, or ``bucket`` cannot make a bucket from rates.
        OutOfRange: ``max_keys`` is below 1.
    """

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        *,
        bucket: Callable[[list[Rate]], AbstractBucket] = InMemoryBucket,
        max_keys: int = 100_000,
    ) -> None:
        self._rates = sorted_rates(rates)
        _check_maker(bucket)
        self._make = bucket
        self._for_name: _MakesByName | None = getattr(bucket, "for_name", None)
        is_kind = isinstance(bucket, type) and issubclass(bucket, AbstractBucket)
        self._kind = bucket if is_kind else None  # what it makes needs no check, key by key
        is_stock = is_kind and "member" in vars(bucket)
        self._member: _MakesMember | None = getattr(bucket, "member", None) if is_stock else None
        self.max_keys: int = check_whole("max_keys", max_keys, least=1)
        self._keys = _Keys()

    def wrap_item(self, name: str, weight: int = 1) -> RateItem | Awaitable[RateItem]:
        """Stamp an item with the time of its bucket."""
        return then(self.bucket(name).stamp(), lambda now: RateItem(name, now, weight))

    def _stamps_by_bucket(self) -> bool:
        return type(self).wrap_item is KeyedBucketFactory.wrap_item

    def _gets_at_once(self) -> bool:
        return type(self).get is KeyedBucketFactory.get

    def get(self, item: RateItem) -> AbstractBucket:
        """The bucket of the item's name."""
        return self.bucket(item.name)

    def bucket(self, name: str) -> AbstractBucket:
        """The bucket of a name.

        Raises:
            TooManyKeys: it has none, and no other can be dropped.
        """
        bucket = self._keys.usable(name)
        return self._add(name) if bucket is None else bucket

    def look(self, name: str) -> AbstractBucket:
        """`bucket`, for somebody who takes nothing: one that has to be made is not kept."""
        bucket = self._keys.usable(name)
        return self._made(name) if bucket is None else bucket

    def _add(self, name: str) -> AbstractBucket:
        keys, at_most = self._keys, self.max_keys
        while True:
            if len(keys.buckets) >= at_most and not keys.make_room(at_most):
                raise TooManyKeys(name, at_most)
            bucket = self._made(name)  # under no lock: it may be slow, or wait for another thread
            kept = keys.keep(name, bucket, at_most)
            if kept is not None:
                break
        if self._leaker is None:
            self._leaker = Leaker(self._leak_interval)
            self._leaker.sync_buckets[id(keys)] = keys  # type: ignore[assignment] # it leaks alike
            self._leaker.start()
        return kept

    def _made(self, name: str) -> AbstractBucket:
        if self._member is not None:
            return self._member(self._rates, self._keys.lock)
        if self._for_name is None:
            bucket = self._make(self._rates)
        else:
            bucket = self._for_name(self._rates, name)
        if bucket.__class__ is not self._kind and not isinstance(bucket, AbstractBucket):
            raise InvalidBucket(bucket, "what a keyed factory's bucket function returns")
        return bucket

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where all buckets have one."""
        stock = isinstance(self._make, type) and type(self) is KeyedBucketFactory
        straight = getattr(self._made(""), "straight", None) if stock else None
        return self.take if straight is not None and straight() is not None else None

    def take(self, name: str, weight: int) -> bool | None:
        """The straight path of the name's bucket; None where it was dropped meanwhile."""
        bucket: Any = self._keys.buckets.get(name)  # of a class that `straight` has looked at
        if bucket is None:
            bucket = self._add(name)
        return bucket.take(name, weight)  # type: ignore[no-any-return] # as `straight` says

    def get_buckets(self) -> list[AbstractBucket]:
        """All buckets there are at the moment."""
        return list(self._keys.buckets.values())

    def dispose(self, bucket: int | AbstractBucket) -> bool:
        """Drop a bucket, live or not, given itself or its ``id``.

        Raises:
            InvalidBucket: it is neither.
        """
        wanted = id_of(bucket)
        with self._keys.lock:
            for name, kept in list(self._keys.buckets.items()):
                if id(kept) == wanted:
                    return self._keys.buckets.pop(name, None) is kept
        return False

    def close(self) -> None:
        """Stop sweeping, close and drop the buckets, and make no others. May be called again."""
        self._member = refuse
        owned = self.owned_buckets()
        self._keys.buckets.clear()
        super().close()
        while owned:  # so each is gone before the next one is closed
            owned.pop().close()

    def __len__(self) -> int:
        return len(self._keys.buckets)

    def __getstate__(self) -> dict[str, object]:
        own = ("_keys", "_leaker")
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        return {**state, "_buckets": dict(self._keys.buckets)}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._keys = _Keys()
        self._keys.buckets.update(self.__dict__.pop("_buckets"))


def for_each_key(
    rates: Rate | Sequence[Rate],
    bucket: Callable[[list[Rate]], AbstractBucket] | KeyedStore,
    max_keys: int,
) -> BucketFactory | AbstractBucket:
    """What holds each name to the rates by itself; see `Limiter.per_key`."""
    if _keeps_all_names(bucket):
        return bucket.keyed(rates)
    return KeyedBucketFactory(rates, bucket=bucket, max_keys=max_keys)


def _keeps_all_names(bucket: object) -> TypeIs[KeyedStore]:
    return hasattr(bucket, "keyed")


_FOR_EACH_NAME = {
    "RedisBucket": "RedisKeys(client, prefix)",
    "PostgresBucket": "PostgresKeys(pool, table)",
    "SQLiteBucket": "SQLiteBucket.per_key(path)",
    "MultiprocessBucket": "MultiprocessBucket.init",
}


def _check_maker(bucket: object) -> None:
    expected = "a bucket class such as InMemoryBucket, or a function that makes a bucket from rates"
    if not (callable(bucket) or hasattr(bucket, "for_name")):
        raise WrongType("bucket", bucket, expected)
    if isinstance(bucket, type) and bucket not in {InMemoryBucket, StateBucket}:
        from inspect import getattr_static, signature  # slow to import, and only needed here

        try:
            signature(bucket).bind(None)
            initialize = getattr_static(bucket, "__init__")  # Python 3.10 may look at __new__ alone
            signature(initialize).bind(bucket, None)
        except TypeError:
            names = (base.__name__ for base in bucket.__mro__)
            fix = next((_FOR_EACH_NAME[name] for name in names if name in _FOR_EACH_NAME), expected)
            raise WrongType("bucket", bucket, f"made from rates alone: give {fix}") from None


class _Keys:
    """The buckets by name, apart from their factory, so that the sweeper does not hold that."""

    is_async = False
    blocks = False

    def __init__(self) -> None:
        # Also the lock of the buckets themselves, where they run no code of the user's.
        self.lock = shared_lock()
        self.buckets: dict[str, AbstractBucket] = {}
        self._round: list[str] = []  # the names that are still to be looked at, in reverse
        self._in_vain = 0  # how many were looked at since the last idle one
        self._next_scan = 0.0

    def usable(self, name: str) -> AbstractBucket | None:
        """The bucket of a name, unless it is about to be dropped."""
        bucket = self.buckets.get(name)
        return None if getattr(bucket, "retired", False) else bucket

    def keep(self, name: str, bucket: AbstractBucket, at_most: int) -> AbstractBucket | None:
        """The bucket of a name from now on: this one, or one that came first. None: no room."""
        with self.lock:
            kept = self.buckets.get(name)
            if kept is None or getattr(kept, "retired", False):
                if kept is None and len(self.buckets) >= at_most:
                    return None
                kept = self.buckets[name] = bucket
            return kept

    def make_room(self, at_most: int) -> bool:
        """Have fewer than so many buckets; a few of them are looked at, at the most."""
        now = time.monotonic()
        # Further away than that, it was another clock that was read: tests freeze it.
        if now < self._next_scan <= now + _RESCAN_SECONDS:
            return False
        for _ in range(_LOOKED_AT):
            if not self._round:
                self._round = list(reversed(self.buckets))
            with suppress(IndexError):  # another thread was faster
                self._in_vain = 0 if self._drop_if_idle(self._round.pop()) else self._in_vain + 1
            if self._in_vain >= len(self.buckets):
                self._in_vain = 0
                if len(self.buckets) >= at_most:
                    self._next_scan = now + _RESCAN_SECONDS
                break
        return len(self.buckets) < at_most

    def leak(self) -> int:
        """Drop the buckets in which nothing counts any more, and say how many."""
        dropped, failed = 0, None
        for number, name in enumerate(list(self.buckets)):
            if number % _SLICE == _SLICE - 1:
                time.sleep(0)
            try:
                dropped += self._drop_if_idle(name)
            except Exception as error:  # noqa: BLE001 - a user's clock may raise anything
                failed = error
        if failed is not None:
            raise failed
        return dropped

    def _drop_if_idle(self, name: str) -> bool:
        bucket = self.buckets.get(name)
        if bucket is None or not retires(bucket):
            return False
        with self.lock:
            return self.buckets.get(name) is bucket and self.buckets.pop(name, None) is bucket
