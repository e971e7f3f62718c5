"""The state of a `StateAlgorithm` in Redis."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.clocks import WallClock
from pyrate_limiter._core.validation import check_whole
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.redis.algorithms import is_stock, script_of
from pyrate_limiter.buckets.redis.client import Server
from pyrate_limiter.buckets.redis.errors import driver_errors
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.reservations import claim_of
from pyrate_limiter.buckets.redis.state_commands import BESIDE, StateSteps, take_step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.buckets.redis.protocols import RedisClient
    from pyrate_limiter.buckets.remote.fallback import Fallback, OnError


class RedisStateStore(StateSteps, StateStore):
    """One state in a Redis hash, shared by all who use the key.

    Claims are judged by the server's own clock, read in the same round trip, unless the bucket was
    given a clock of its own. The key can be shared with programs that run 4.5.1.

    Args:
        redis: a client, as for `RedisBucket`.
        key: the key of the hash.
        ttl_ms: how long the key is kept after its last use; twice the time that a full bucket needs
            to drain, if left out.
        on_error: as for `RedisBucket`. A fallback bucket is told the rates, not the algorithm.
        call_timeout: as for `RedisBucket`.
        denial_memory_ms: as for `RedisBucket`.

    Raises:
        MissingDriver: the ``redis`` package is not installed.
        WrongType: an argument is of another type.
        OutOfRange: ``ttl_ms`` or ``call_timeout`` is not above 0.
    """

    __module__ = "pyrate_limiter.buckets.redis_state"

    default_clock: AbstractClock = WallClock()
    keeps_claims = True
    bounds_claims = True
    keeps_time = True
    answers_in_order = True
    asks_clock = True
    is_async: bool | None = None

    def __init__(
        self,
        redis: RedisClient,
        key: str,
        ttl_ms: int | None = None,
        *,
        on_error: OnError = "raise",
        call_timeout: float | None = None,
        denial_memory_ms: int = 1000,
    ) -> None:
        if ttl_ms is not None:
            ttl_ms = check_whole("ttl_ms", ttl_ms, least=1, unit="milliseconds")
        self._server = Server(redis, on_error, call_timeout, denial_memory_ms)
        self._in_doubt = None  # a state does not tell units apart: what is in doubt drains
        self._fallback: Fallback | None = None
        self._full = None
        self._usual = ((), None, None)
        self.redis = redis
        self.key: str = key
        self.ttl_ms: int | None = ttl_ms
        self.is_async: bool | None = self._server.is_async
        self.blocks: bool = not self._server.is_async
        self.default_clock: AbstractClock = self._server.clock

    def check(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock | None = None,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.check`. ``now`` counts, not the server's clock.

        Raises:
            NoRedisImplementation: there is no script that does what the algorithm does.
        """
        if not is_stock(algorithm):
            script = script_of(algorithm)
            return self._server.run(self._check(script, algorithm, rates, now, weight))
        server = self._server
        own = clock is not None and clock is not server.clock
        if own or server.is_async or not server.is_plain(0):
            return server.run(self._take(algorithm, rates, now, weight, clock))
        head = self._head(algorithm, rates, now)
        try:
            answer = self._answer_at_once(head, take_step(weight), by_server=False)
        except Down:
            return server.run(self._without(rates, RateItem("", now, weight)))
        return self._verdict(rates, answer)

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State | Awaitable[State]:
        """See `StateStore.read`."""
        return self._server.run(self._read(algorithm, rates))

    def reset(self) -> Awaitable[None] | None:
        """See `StateStore.reset`."""

        def ask() -> Generator[Any, Any, None]:
            self._full = None
            yield from self._server.command("unlink", self.key)
            with suppress(driver_errors().NoPermissionError):  # then nothing is held there
                yield from self._server.command("hdel", f"{self.key}{BESIDE}", "hold")
            self._full = None

        return self._server.run(ask())

    @property
    def store_id(self) -> object:
        """What the stores of one client have in common."""
        return id(self._server.client)

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        clock: AbstractClock | None = None,
        limit_ms: int | None = None,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.claim` and `StateStore.bounds_claims`."""
        limit, stamp = patience_ms if limit_ms is None else limit_ms, item.timestamp
        return self._server.run(
            self._claim(algorithm, rates, item, stamp, patience_ms, buffer_ms, limit, clock)
        )

    def claim_several(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        items: Sequence[RateItem],
        patience_ms: int,
        buffer_ms: int,
        not_before: int | None,
        clock: AbstractClock | None = None,
        *,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """See `StateStore.claim_several`. It claims for the first alone."""
        del not_before
        first = self.claim(algorithm, rates, items[0], patience_ms, buffer_ms, clock, limit_ms)
        return then(first, lambda decision: [decision])

    def claim_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
        limit_ms: int | None = None,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.claim_at` and `StateStore.bounds_claims`."""
        limit = patience_ms if limit_ms is None else limit_ms
        program = self._claim(algorithm, rates, item, None, patience_ms, buffer_ms, limit)
        return self._server.run(program)

    def take_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], weight: int
    ) -> Decision | None:
        """`claim_at` for a caller who takes units now or not at all.

        Returns:
            None where that takes more than one call of a sync client: an algorithm of the user's
            own, a time limit, an outage.
        """
        server = self._server
        if not server.is_plain(0) or not is_stock(algorithm):
            return None
        sent = time.monotonic()
        if self._full is not None:
            refused = self._refused(rates, weight, 0, sent)
            if refused is not None:
                return refused
        try:
            answer = self._answer_at_once(self._head(algorithm, rates), take_step(weight))
        except Down:
            return None
        return self._refuse(rates, weight, sent, answer) if answer[1] else ADMITTED

    def forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock | None = None,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.forecast`."""
        return self._server.run(self._forecast(algorithm, rates, now, weight, clock))

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
        clock: AbstractClock | None = None,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.settle`. It asks the server only where the waiter is late."""
        return self._server.run(self._settle(algorithm, rates, item, now, patience_ms, clock))

    def settle_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem, patience_ms: int
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.settle_at`."""
        return self._server.run(self._settle(algorithm, rates, item, None, patience_ms))

    def release(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem
    ) -> bool | Awaitable[bool]:
        """See `StateStore.release`."""
        self._full = None
        return self._server.run(self._release(algorithm, rates, item))

    def hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int | None,
        hold_ms: int,
        clock: AbstractClock | None = None,
    ) -> int | Awaitable[int]:
        """See `StateStore.hold`. An outage is an error, whatever ``on_error`` says."""
        answer = self._server.run(self._hold(algorithm, rates, now, hold_ms, clock))
        return then(answer, lambda said: said[1])

    def release_hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int | None,
        clock: AbstractClock | None = None,
    ) -> bool | Awaitable[bool]:
        """See `StateStore.release_hold`, and of an outage `hold`."""
        answer = self._server.run(self._hold(algorithm, rates, now, -1, clock))
        return then(answer, lambda said: said[0] > 0)

    def seconds_left(self, item: RateItem) -> float:
        """See `StateStore.seconds_left`."""
        claim = claim_of(item)
        if claim is None:
            return 0.0
        return claim.fallback.pause() if claim.fallback else max(0.0, claim.due - time.monotonic())

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """True: all that counts is in Redis, and a new bucket finds it there."""
        del algorithm, rates, now
        return True
