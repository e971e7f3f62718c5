"""The state of a `StateAlgorithm` in Redis."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, StateAlgorithm
from pyrate_limiter.abstracts.checks import check_whole
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.redis_outage import Down
from pyrate_limiter.buckets.redis_policy import knows_claims, script_of
from pyrate_limiter.buckets.redis_server import LAST_MS, Command, Request, Server
from pyrate_limiter.buckets.redis_spare import Spare, stand_in
from pyrate_limiter.clocks import WallClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Sequence

    from pyrate_limiter.abstracts.algorithm import State
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.buckets.redis_server import Script
    from pyrate_limiter.clocks import AbstractClock

__all__ = [
    "ADMITTED",
    "Decision",
    "Rate",
    "RedisStateStore",
    "StateAlgorithm",
    "StateStore",
    "WallClock",
]

_PATIENT_MS = 1 << 42  # 139 years: in microseconds Lua still counts it exactly
_STEP = 4  # numbers of a claim's reply before the arrival times


class _Note:
    """What the store notes on an item that holds a claim."""

    __slots__ = ("after", "before", "due", "late", "spare", "weight")

    def __init__(self, weight: int, before: list[int], after: list[int]) -> None:
        self.weight, self.before, self.after = weight, before, after
        self.due = self.late = 0.0
        self.spare: Spare | None = None


class RedisStateStore(StateStore):
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

    Raises:
        MissingDriver: the ``redis`` package is not installed.
        WrongType: an argument is of another type.
        OutOfRange: ``ttl_ms`` or ``call_timeout`` is not above 0.
    """

    default_clock: AbstractClock = WallClock()
    keeps_claims = True
    keeps_time = True
    is_async: bool | None = None

    def __init__(
        self,
        redis: Any,
        key: str,
        ttl_ms: int | None = None,
        *,
        on_error: Any = "raise",
        call_timeout: float | None = None,
    ) -> None:
        if ttl_ms is not None:
            ttl_ms = check_whole("ttl_ms", ttl_ms, least=1, unit="milliseconds")
        self._server = Server(redis, on_error, call_timeout)
        self._fallback: AbstractBucket | None = None
        self.redis = redis
        self.key: str = key
        self.ttl_ms: int | None = ttl_ms
        self.is_async: bool | None = self._server.is_async
        self.blocks: bool = not self._server.is_async
        self.default_clock: AbstractClock = self._server.clock

    def check(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.check`. ``now`` counts, not the server's clock.

        Raises:
            NoRedisImplementation: there is no script that does what the algorithm does.
        """
        script = script_of(algorithm)
        return self._server.run(self._check(script, algorithm, rates, now, weight))

    def read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> State | Awaitable[State]:
        """See `StateStore.read`."""
        return self._server.run(self._read(algorithm, rates))

    def reset(self) -> Awaitable[None] | None:
        """See `StateStore.reset`."""

        def ask() -> Generator[Any, Any, None]:
            yield Command(self._server.limit(), "delete", self.key)

        return self._server.run(ask())

    def claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.claim`."""
        program = self._claim(algorithm, rates, item, item.timestamp, patience_ms, buffer_ms)
        return self._server.run(program)

    def claim_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        patience_ms: int,
        buffer_ms: int,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.claim_at`."""
        program = self._claim(algorithm, rates, item, None, patience_ms, buffer_ms)
        return self._server.run(program)

    def forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.forecast`."""
        return self._server.run(self._forecast(algorithm, rates, now, weight))

    def settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int,
        patience_ms: int,
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.settle`. It asks the server only where the waiter is late."""
        return self._server.run(self._settle(algorithm, rates, item, now, patience_ms))

    def settle_at(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem, patience_ms: int
    ) -> Decision | Awaitable[Decision]:
        """See `StateStore.settle_at`."""
        return self._server.run(self._settle(algorithm, rates, item, None, patience_ms))

    def release(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem
    ) -> bool | Awaitable[bool]:
        """See `StateStore.release`."""
        return self._server.run(self._release(algorithm, rates, item))

    def seconds_left(self, item: RateItem) -> float:
        """See `StateStore.seconds_left`."""
        note: _Note | None = item._note
        if note is not None and note.spare is not None:
            return note.spare.pause()
        return 0.0 if note is None else max(0.0, note.due - time.monotonic())

    def retire(self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int) -> bool:
        """True: all that counts is in Redis, and a new bucket finds it there."""
        del algorithm, rates, now
        return True

    def _header(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int | None, weight: int
    ) -> tuple[Any, ...]:
        ttl = self.ttl_ms
        if ttl is None:
            ttl = max(1, 2 * max(rate.burst * rate.emission_us for rate in rates) // 1000)
        stamp = "" if now is None else now
        return (stamp, weight, ttl, len(rates), *algorithm.redis_args(rates))

    def _ask(
        self,
        script: Script,
        header: tuple[Any, ...],
        *more: Any,
        patience_ms: int = 0,
        undo: Any = None,
    ) -> Generator[Any, Any, list[Any]]:
        server = self._server
        if not server.outage.may_try():
            raise Down
        sent = time.time_ns()
        try:
            head, limit = (script, self.key, *header), server.limit(patience_ms)
            answer: list[Any] = yield Request(head, list(more), limit, undo, shared=False)
        except Exception as error:
            if server.outage.covers(error):
                server.outage.failed(error)
                raise Down from error
            raise
        server.outage.answered()
        if header[0] == "" and len(answer) > _STEP:
            server.clock.learn(sent, answer[2])
        return answer

    def _without(
        self, rates: Sequence[Rate], item: RateItem, patience_ms: int = 0, buffer_ms: int = 0
    ) -> Generator[Any, Any, Decision]:
        """Answer while the server is away. A patience of -1 only looks."""
        decision, spare = yield from stand_in(self, rates, item, patience_ms, buffer_ms)
        item._note = None
        if spare is not None:
            note = item._note = _Note(item.weight, [], [])
            note.spare = spare
            item.timestamp += decision.wait_ms
        return decision

    def _check(
        self,
        script: Script,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
    ) -> Generator[Any, Any, Decision]:
        try:
            answer = yield from self._ask(script, self._header(algorithm, rates, now, weight))
        except Down:
            return (yield from self._without(rates, RateItem("", now, weight)))
        failing, retry = int(answer[0]), int(answer[1])
        return ADMITTED if failing < 0 else Decision(rates[failing], None if retry < 0 else retry)

    def _claim(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        stamp: int | None,
        *more: int,
    ) -> Generator[Any, Any, Decision]:
        script, weight = script_of(algorithm), item.weight
        if not knows_claims(algorithm):
            return (yield from self._check(script, algorithm, rates, item.timestamp, weight))
        header = self._header(algorithm, rates, stamp, weight)

        def undo(_: Request, answer: list[Any]) -> Request | None:
            if answer[0] >= 0:
                return None
            times = [*answer[_STEP + len(rates) :], *answer[_STEP : _STEP + len(rates)]]
            limit = self._server.call_timeout
            steps = ["release", 0, 0, *times]
            return Request((script, self.key, *header), steps, limit, shared=False)

        sent = time.monotonic()
        patience_ms, buffer_ms = more
        step = ("claim", min(patience_ms, _PATIENT_MS), buffer_ms)
        try:
            answer = yield from self._ask(script, header, *step, patience_ms=patience_ms, undo=undo)
        except Down:
            return (yield from self._without(rates, item, patience_ms, buffer_ms))
        failing, wait, now, slack = answer[:_STEP]
        times = [int(number) for number in answer[_STEP:]]
        before, after = times[: len(rates)], times[len(rates) :]
        remaining, reset = algorithm.outlook(rates, tuple(after), now)
        if failing >= 0:
            return Decision(rates[failing], None if wait < 0 else wait, 0, remaining, reset)
        note = item._note = _Note(weight, before, after)
        note.due = time.monotonic() + wait / 1000
        note.late = sent + (wait + slack + 1) / 1000
        item.timestamp = now + wait
        return Decision(None, None, wait, remaining, reset)

    def _forecast(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], now: int, weight: int
    ) -> Generator[Any, Any, Decision]:
        script = script_of(algorithm)
        header = self._header(algorithm, rates, now, weight)
        if not knows_claims(algorithm):
            state = yield from self._read(algorithm, rates)
            verdict = algorithm.step(rates, state, now, weight)[1] if weight else ADMITTED
            remaining, reset = algorithm.outlook(rates, state, now)
            return Decision(verdict.failing_rate, verdict.retry_after_ms, 0, remaining, reset)
        try:
            answer = yield from self._ask(script, header, "claim", -1, 0)
        except Down:
            return (yield from self._without(rates, RateItem("", now, weight), -1))
        failing, wait, at = answer[:3]
        state = tuple(int(number) for number in answer[_STEP : _STEP + len(rates)])
        remaining, reset = algorithm.outlook(rates, state, at)
        if failing < 0:
            return Decision(None, None, 0, remaining, reset)
        return Decision(rates[failing], None if wait < 0 else wait, 0, remaining, reset)

    def _settle(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        now: int | None,
        patience_ms: int,
    ) -> Generator[Any, Any, Decision]:
        note: _Note | None = item._note
        if note is not None and note.spare is not None:
            return (yield from note.spare.settle(patience_ms))
        if note is None or (now is None and time.monotonic() <= note.late):
            return ADMITTED
        header = self._header(algorithm, rates, now, note.weight)
        script = script_of(algorithm)
        with suppress(Down):
            patience_ms = max(patience_ms, LAST_MS)
            yield from self._ask(script, header, "settle", 0, 0, patience_ms=patience_ms)
        return ADMITTED

    def _release(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], item: RateItem
    ) -> Generator[Any, Any, bool]:
        note: _Note | None = item._note
        item._note = None
        if note is None:
            return False
        if note.spare is not None:
            return (yield from note.spare.release())
        times = [str(number) for number in (*note.after, *note.before)]
        header = self._header(algorithm, rates, None, note.weight)
        try:
            yield from self._ask(script_of(algorithm), header, "release", 0, 0, *times)
        except Down:
            return False
        return True

    def _read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> Generator[Any, Any, State]:
        fields = [f"tat{number + 1}" for number in range(len(rates))]
        stored = yield Command(self._server.limit(), "hmget", self.key, fields)
        if any(value is None for value in stored):
            return algorithm.initial(rates)
        return algorithm.decode(stored)
