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
from pyrate_limiter.buckets.redis.state_commands import (
    BESIDE,
    KeepsState,
    StateSteps,
    take_step,
    verdict_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter._core.clocks import AbstractClock
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import Decision, State, StateAlgorithm
    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.redis.protocols import RedisClient
    from pyrate_limiter.buckets.remote.fallback import Fallback, OnError


class RedisStateStore(KeepsState, StateStore):
    """One state in a Redis hash, shared by all who use the key.

    Callers are judged by the server's own clock, read in the same round trip, unless the bucket was
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
        server, clock = self._server, self._own(clock)
        if not is_stock(algorithm):
            script_of(algorithm)
        elif clock is NO_CLOCK and not server.is_async and server.is_plain:
            head = self._head(algorithm, rates, now)
            try:
                outcome = self._answer_at_once(head, take_step(weight), by_server=False)
            except Down:
                return server.run(self._fall_back(rates, RateItem("", now, weight), 0, 0))
            return verdict_of(rates, outcome)
        return server.run(StateSteps(self, algorithm, rates, clock).check(now, weight))

    def _own(self, clock: AbstractClock) -> AbstractClock:
        """A bucket's clock, unless it is the server's: where stamps are to count."""
        return NO_CLOCK if clock is self._server.clock else clock

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State | Awaitable[State]:
        return self._server.run(StateSteps(self, algorithm, rates).read())

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
        steps = StateSteps(self, algorithm, rates, clock)
        limit_ms = max_wait_ms if limit_ms is None else limit_ms
        return self._server.run(steps.reserve(item, max_wait_ms, buffer_ms, limit_ms))

    def take_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], weight: int
    ) -> Decision | None:
        """`reserve` by the server's clock for a caller who takes units now or not at all.

        Returns:
            None where that takes more than one call of a sync client: an algorithm of the user's
            own, a time limit, an outage.
        """
        server = self._server
        if not server.is_plain or not is_stock(algorithm):
            return None
        sent = time.monotonic()
        refused = self._known(rates, weight, 0, sent)
        if refused is not None:
            return refused
        try:
            outcome = self._answer_at_once(self._head(algorithm, rates), take_step(weight))
        except Down:
            return None
        if not outcome.verdict:
            return ADMITTED
        if outcome.wait >= 0:
            self._remember(rates, weight, sent, outcome)
        return outcome.decision(rates)

    def forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.forecast`. ``now`` counts, not the server's clock."""
        steps = StateSteps(self, algorithm, rates, self._own(clock))
        return self._server.run(steps.forecast(now, weight))

    def confirm(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        reservation: Reservation,
        now: int,
        max_wait_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> Decision | Awaitable[Decision]:
        steps = StateSteps(self, algorithm, rates, clock)
        return self._server.run(steps.confirm(reservation, now, max_wait_ms))

    def cancel(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> bool | Awaitable[bool]:
        self._full = None
        return self._server.run(StateSteps(self, algorithm, rates).cancel(reservation))

    def hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        hold_ms: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> int | Awaitable[int]:
        """See `StateStore.hold`. An outage is an error, whatever ``on_error`` says."""
        held = self._server.run(StateSteps(self, algorithm, rates, clock).hold(now, hold_ms))
        return then(held, lambda outcome: outcome.wait)

    def release_hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        clock: AbstractClock = NO_CLOCK,
    ) -> bool | Awaitable[bool]:
        """See `StateStore.release_hold`, and of an outage `hold`."""
        held = self._server.run(StateSteps(self, algorithm, rates, clock).hold(now, -1))
        return then(held, lambda outcome: outcome.verdict > 0)

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """True: all that counts is in Redis, and a new bucket finds it there."""
        del algorithm, rates, now
        return True
