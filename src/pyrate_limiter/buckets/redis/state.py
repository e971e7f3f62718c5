"""The state of a `StateAlgorithm` in Redis."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import then
from pyrate_limiter._core.clocks import WallClock
from pyrate_limiter._core.timeline import NO_CLOCK
from pyrate_limiter._core.validation import check_whole
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.redis.algorithms import is_stock, script_of
from pyrate_limiter.buckets.redis.client import Server
from pyrate_limiter.buckets.redis.errors import driver_errors
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.state_commands import BESIDE, StateSteps, take_step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.redis.protocols import RedisClient
    from pyrate_limiter.buckets.remote.fallback import Fallback, OnError


class RedisStateStore(StateSteps, StateStore):
    """One state in a Redis hash, shared by all who use the key.

    Reservations are judged by the server's own clock, read in the same round trip, unless the bucket was
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
    answers_in_order = True
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
        self._usual = (None, None, None)
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
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.check`. ``now`` counts, not the server's clock.

        Raises:
            NoRedisImplementation: there is no script that does what the algorithm does.
        """
        if not is_stock(algorithm):
            script = script_of(algorithm)
            return self._server.run(self._check(script, algorithm, rates, now, weight))
        server, clock = self._server, self._own(clock)
        if clock is not NO_CLOCK or server.is_async or not server.is_plain(0):
            return server.run(self._take(algorithm, rates, now, weight, clock))
        head = self._head(algorithm, rates, now)
        try:
            answer = self._answer_at_once(head, take_step(weight), by_server=False)
        except Down:
            return server.run(self._without(rates, RateItem("", now, weight)))
        return self._verdict(rates, answer)

    def _own(self, clock: AbstractClock) -> AbstractClock:
        """A bucket's clock, unless it is the server's: where stamps are to count."""
        return NO_CLOCK if clock is self._server.clock else clock

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State | Awaitable[State]:
        return self._server.run(self._read(algorithm, rates))

    def reset(self) -> Awaitable[None] | None:
        def ask() -> Program[None]:
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

    def reserve(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int,
        clock: AbstractClock = NO_CLOCK,
        limit_ms: int | None = None,
    ) -> Decision | Awaitable[Decision]:
        terms = (max_wait_ms, buffer_ms, max_wait_ms if limit_ms is None else limit_ms, clock)
        return self._server.run(self._reserve(algorithm, rates, item, *terms))

    def take_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], weight: int
    ) -> Decision | None:
        """`reserve` by the server's clock for a caller who takes units now or not at all.

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
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.forecast`. ``now`` counts, not the server's clock."""
        return self._server.run(self._forecast(algorithm, rates, now, weight, self._own(clock)))

    def confirm(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        reservation: Reservation,
        now: int,
        max_wait_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        terms = (now, max_wait_ms, clock)
        return self._server.run(self._confirm(algorithm, rates, reservation, *terms))

    def cancel(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> bool | Awaitable[bool]:
        self._full = None
        return self._server.run(self._cancel(algorithm, rates, reservation))

    def hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        hold_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> int | Awaitable[int]:
        """See `StateStore.hold`. An outage is an error, whatever ``on_error`` says."""
        answer = self._server.run(self._hold(algorithm, rates, now, hold_ms, clock))
        return then(answer, lambda said: said[1])

    def release_hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> bool | Awaitable[bool]:
        """See `StateStore.release_hold`, and of an outage `hold`."""
        answer = self._server.run(self._hold(algorithm, rates, now, -1, clock))
        return then(answer, lambda said: said[0] > 0)

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """True: all that counts is in Redis, and a new bucket finds it there."""
        del algorithm, rates, now
        return True
