"""The log in Redis."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, overload

from pyrate_limiter._core.awaitables import named, then
from pyrate_limiter._core.closing import Closable
from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter._core.waited_for import is_unchanged, waited_for
from pyrate_limiter._older import TakesKeywordsOf2x
from pyrate_limiter.abstracts.algorithm import LogAlgorithm, SlidingWindowLog
from pyrate_limiter.buckets.redis.algorithms import checked, kind_of
from pyrate_limiter.buckets.redis.client import Server
from pyrate_limiter.buckets.redis.commands import LOG_SCRIPT
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.request import MOST_UNITS, Head, Step
from pyrate_limiter.buckets.redis.reservations import (
    StepsInDoubt,
    check_in_reach,
    label_of,
    stored_by,
)
from pyrate_limiter.buckets.redis.unit_commands import RedisUnits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from typing_extensions import Self

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.redis.protocols import AsyncClient, RedisClient, SyncClient
    from pyrate_limiter.buckets.remote.fallback import Fallback, OnError

    Rates: TypeAlias = Rate | Sequence[Rate]
    Log: TypeAlias = LogAlgorithm | None

_STOCK = SlidingWindowLog()


class LuaScript:
    """The script that a `RedisBucket` runs."""

    __module__ = "pyrate_limiter.buckets.redis_bucket"

    PUT_ITEM = LOG_SCRIPT.text


class RedisBucket(TakesKeywordsOf2x, Closable, RedisUnits):
    """A log of units in a Redis sorted set, shared by all who use the key.

    Each acquisition is one round trip, in which the server's own clock is read. The key expires by
    itself some time after its last unit has. It can be shared with programs that run 4.5.1.

    Args:
        rates: the limits; all of them hold.
        redis: a client of the ``redis`` package, sync or asyncio: standalone, Sentinel, cluster.
            It stays the caller's: `close` leaves it open.
        bucket_key: the key of the sorted set.
        script_hash: what loading the script gave. The script is loaded again when the server has
            lost it.
        algorithm: a `SlidingWindowLog`, the default, or a `FixedWindow`.
        on_error: what happens while the server is away: ``"raise"`` passes the driver's error on,
            ``"allow"`` admits, ``"deny"`` refuses; a bucket, or a function that makes one from
            rates, takes its place. All but the first log once, and probe until it is back.
        call_timeout: seconds that one call to the server may take, whatever the client's timeouts
            and retries are; 1, where ``on_error`` is given. A caller's own timeout bounds it too.
        denial_memory_ms: a refusal is repeated without asking the server until its wait is over,
            and for so long at the most: a `flush` or `cancel` by others is seen after that.
            0 switches this off.

    Raises:
        MissingDriver: the ``redis`` package is not installed.
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: it is another algorithm, or a subclass with methods of its own, which a
            script inside Redis cannot call.
        WrongType: an argument is of another type.
    """

    __module__ = "pyrate_limiter.buckets.redis_bucket"

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_algorithm",
        "_clock",
        "_fallback",
        "_full",
        "_head",
        "_in_doubt",
        "_learnt",
        "_rates",
        "_server",
        "blocks",
        "bucket_key",
        "failing_rate",
        "is_async",
        "script_hash",
    )

    answers_in_order = True

    bucket_key: str
    """The key of the sorted set."""

    script_hash: str
    """What loading the script gave."""

    is_async: bool
    blocks: bool

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        redis: RedisClient,
        bucket_key: str,
        script_hash: str = LOG_SCRIPT.sha,
        algorithm: LogAlgorithm | None = None,
        *,
        on_error: OnError = "raise",
        call_timeout: float | None = None,
        denial_memory_ms: int = 1000,
    ) -> None:
        server = Server(redis, on_error, call_timeout, denial_memory_ms)
        self._start(server, rates, bucket_key, script_hash, algorithm)

    def _start(
        self, server: Server, rates: Rates, bucket_key: str, script_hash: str, algorithm: Log
    ) -> None:
        self._algorithm = _STOCK if algorithm is None else checked(algorithm)
        self._server = server
        self._clock = server.clock
        self.is_async = server.is_async
        self.blocks = not server.is_async
        self.bucket_key = bucket_key
        self.script_hash = script_hash
        self.failing_rate = None
        self._in_doubt = StepsInDoubt()
        self._fallback: Fallback | None = None
        self.rates = rates

    @classmethod
    def on_server(
        cls, server: Server, rates: Rates, bucket_key: str, algorithm: Log = None
    ) -> RedisBucket:
        """A bucket that shares a server with others."""
        bucket = cls.__new__(cls)
        bucket._start(server, rates, bucket_key, LOG_SCRIPT.sha, algorithm)
        return bucket

    @overload
    @classmethod
    def init(
        cls,
        rates: Rates,
        redis: AsyncClient,
        bucket_key: str,
        algorithm: Log = ...,
        **options: object,
    ) -> Awaitable[Self]: ...
    @overload
    @classmethod
    def init(
        cls,
        rates: Rates,
        redis: SyncClient,
        bucket_key: str,
        algorithm: Log = ...,
        **options: object,
    ) -> Self: ...
    @classmethod
    def init(
        cls,
        rates: Rates,
        redis: RedisClient,
        bucket_key: str,
        algorithm: Log = None,
        **options: Any,  # a subclass may take others than this one
    ) -> Awaitable[Self] | Self:
        """Load the script, and make a bucket; for an asyncio client, an awaitable of it.

        ``options`` are the keyword arguments of the class. Where the server is away, and
        ``on_error`` says to go on without it, so does this.
        """
        bucket = cls(rates, redis, bucket_key, LOG_SCRIPT.sha, algorithm, **options)

        def load() -> Program[Self]:
            try:
                yield from bucket._server.command("script_load", LOG_SCRIPT.text, key=bucket_key)
            except Exception as error:
                if not bucket._server.outage.failed(error, bucket_key):
                    raise
            return bucket

        return named(bucket._server.run(load()), "RedisBucket.init(...)")

    @property
    def redis(self) -> Any:  # whatever kind of client it was given
        """The client."""
        return self._server.client

    @property
    def store_id(self) -> object:
        """What the buckets of one client have in common."""
        return id(self._server.client)

    @property
    def rates(self) -> RateList:
        return self._rates

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        self._rates = sorted_rates(rates)
        if not hasattr(self, "_server"):
            return  # assigned before `__init__`, which does it again
        numbers = [f"{limit}/{interval}" for limit, interval, _ in self._rates.bounds]
        sliding = int(kind_of(self._algorithm) is SlidingWindowLog)
        line = f"~ ~ {sliding} {' '.join(numbers)}"
        self._head = Head(LOG_SCRIPT, self.bucket_key, (line,))
        self._full = self._learnt = None

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; None where a subclass differs."""
        at_once = not self.is_async and is_unchanged(type(self), RedisBucket)
        return self.take if at_once else None

    def asking(self) -> Callable[[str, int], bool | None] | None:
        """`ask`, where it does what `put` would do; None where a subclass differs."""
        return None if self.straight() is None else self.ask

    def take(self, name: str, weight: int) -> bool | None:
        """False where a refusal is remembered, else None: the server has to say."""
        del name
        full = self._full
        if full is None or weight < full.weight or self._chosen or time.monotonic() >= full.until:
            return None
        self.failing_rate = full.rate
        return False

    def ask(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, whose refusal `take` does not remember, by one call.

        Returns:
            None where it takes more than that: somebody waits, the bucket's clock is another one or
            a method of it was replaced, the call has a time limit, there is an outage.
        """
        plain = not self._in_doubt and weight <= MOST_UNITS and self._server.is_plain
        if not plain or self._chosen or vars(self) or (waited_for and id(self) in waited_for):
            return None
        sent = time.monotonic()
        try:
            step = Step("reserve", weight, 0, 0, label_of(name))
            outcome = self._answer_at_once(self._head, step)
        except Down:
            return None
        if outcome.verdict:
            self._refuse(weight, sent, outcome)
            return False
        self.failing_rate = None
        return True

    def put(self, item: RateItem) -> bool | Awaitable[bool]:
        """See `AbstractBucket.put`. The item is judged by its own timestamp."""
        return then(self.put_decision(item), bool)

    def put_decision(self, item: RateItem) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.put_decision`. The item is judged by its own timestamp."""
        check_in_reach(item)
        return self._server.run(self._reserve(item, 0, 0, item.timestamp, 0))

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.reserve`.

        The server's clock counts, not the item's timestamp, unless ``bucket._clock`` was replaced.
        """
        del brief
        check_in_reach(item)
        limit_ms = max_wait_ms if limit_ms is None else limit_ms
        stamp = self._stamp(item.timestamp)
        return self._server.run(self._reserve(item, max_wait_ms, buffer_ms, stamp, limit_ms))

    def check(self, item: RateItem) -> Decision | Awaitable[Decision]:
        check_in_reach(item)
        return self._server.run(self._look(item, self._stamp(item.timestamp)))

    def waiting(self, item: RateItem) -> int | Awaitable[int]:
        if self.failing_rate is None:
            return 0
        learnt = self._learnt
        if learnt is not None and learnt.weight == item.weight:
            return learnt.waiting(item)
        check_in_reach(item)

        def wait_of(decision: Decision) -> int:
            retry_after_ms = 0 if decision else decision.retry_after_ms
            return -1 if retry_after_ms is None else retry_after_ms

        return then(self._server.run(self._look(item, item.timestamp)), wait_of)

    def pause(self, reservation: Reservation) -> float:
        stored = stored_by(reservation)
        if stored is not None and stored.fallback is not None:
            return stored.fallback.pause()
        if stored is not None and not self._chosen:
            return max(0.0, stored.due - time.monotonic())
        return self._clock.pause(reservation.item.timestamp, reservation.wait_ms)

    def retire(self, now: int) -> bool:
        """True: all that counts is in Redis, and a new bucket finds it there."""
        del now  # it is that of the server's clock
        return self._fallback is None or self._fallback.retire()
