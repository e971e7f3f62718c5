"""What a `RedisStateStore` asks: programs that yield requests and are sent answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.timeline import LATEST_MS, NO_CLOCK
from pyrate_limiter._core.validation import Unread
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.redis.algorithms import is_stock, knows_reservations, script_of
from pyrate_limiter.buckets.redis.calling import Asks
from pyrate_limiter.buckets.redis.client import LAST_MS
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.request import Request, Script
from pyrate_limiter.buckets.redis.reservations import Stored, new_id, stored_by
from pyrate_limiter.buckets.remote.denials import Denial
from pyrate_limiter.buckets.state.reservations import ABANDONED_MS
from pyrate_limiter.errors import CannotHold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.clocks import AbstractClock

    Head = tuple[Script, str, str]
    """What a call begins with: the script of GCRA, the key, and the line of what is the same for
    all steps."""

GCRA_CONSTANTS = {"abandoned": ABANDONED_MS, "latest": LATEST_MS}
"""What the script of GCRA has in common with the rest of the library."""

GCRA_SCRIPT = Script.read("gcra.lua", "gcra_steps.lua", **GCRA_CONSTANTS)
BESIDE = "~replies"  # ends the name of the hash that the script keeps beside the state
_PATIENT_MS = 1 << 42  # 139 years: in microseconds Lua still counts it exactly


class StateSteps(Asks):
    """The programs. The store that they belong to holds the data."""

    if not TYPE_CHECKING:
        __slots__ = ()

    if TYPE_CHECKING:
        key: str
        ttl_ms: int | None
        # What a call begins with by the server's clock, for which rates, and which `ttl_ms`.
        _usual: tuple[Head | None, Sequence[Rate] | None, int | None]

    def _life(self, rates: Sequence[Rate]) -> int:
        if self.ttl_ms is not None:
            return self.ttl_ms
        return max(1, 2 * max(rate.burst * rate.emission_us for rate in rates) // 1000)

    def _head(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        stamp: int | str = "~",
        reading: int | str = "~",
    ) -> Head:
        """What calls of the script of GCRA begin with; apart from stamps always the same."""
        by_server, of, ttl = self._usual
        if by_server is None or of is not rates or ttl != self.ttl_ms:
            numbers = algorithm.redis_args(rates)
            each = [f"{spacing}/{burst}" for spacing, burst in zip(numbers[::2], numbers[1::2])]
            # In a cluster a key of another name may lie on another node.
            beside = "" if hasattr(self._server.client, "keyslot") else BESIDE
            line = f"~ ~ {self._life(rates)} {rates[0].interval} {beside} {' '.join(each)}"
            by_server = (GCRA_SCRIPT, self.key, line)
            self._usual = (by_server, rates, self.ttl_ms)
        if stamp == "~":
            return by_server
        return (GCRA_SCRIPT, self.key, f"{stamp} {reading}{by_server[2][3:]}")

    def _head_at(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        stamp: int | str,
        clock: AbstractClock,
    ) -> Program[Head]:
        """`_head` for a stamp of a clock, which is asked what it says now; the server's is not."""
        if clock is self._server.clock:
            return self._head(algorithm, rates)
        now: object = clock.now()
        if self._server.is_async and is_awaitable(now):
            now = yield now
        if isinstance(now, int):
            return self._head(algorithm, rates, now if stamp.__class__ is Unread else stamp, now)
        discard(now)  # a sync store cannot ask that clock
        return self._head(algorithm, rates, stamp)

    def _undo(self, request: Request, answer: list[int]) -> Request | None:
        now, verdict, wait = answer[:3]
        kind, weight, _ = request.steps[0].split(" ", 2)
        if verdict or kind == "cancel":
            return None
        step = f"cancel {weight} {now + wait if wait else 0} 0 {new_id()}"
        return Request(request.head, [step], self._server.call_timeout)

    def _ask(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        stamp: int | str,
        step: str,
        clock: AbstractClock = NO_CLOCK,
        *,
        wait_ms: int = 0,
        doubtful: bool = True,
    ) -> Program[list[int]]:
        by_server = clock is self._server.clock
        head = yield from self._head_at(algorithm, rates, stamp, clock)
        return (
            yield from self._send(head, [step], wait_ms, doubtful=doubtful, by_server=by_server)
        )

    def _without(
        self, rates: Sequence[Rate], item: RateItem, max_wait_ms: int = 0, buffer_ms: int = 0
    ) -> Program[Decision]:
        """Answer while the server is away. -1 ms of waiting only looks."""
        decision, units = yield from self._fall_back(rates, item, max_wait_ms, buffer_ms)
        if units is None:
            return decision
        stored = Stored("", 0)
        stored.fallback = units
        item.timestamp += decision.wait_ms
        return Reservation.of(item, decision, stored)

    def _check(
        self,
        script: Script,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
    ) -> Program[Decision]:
        """One step of a script of the user's own."""
        if not self._server.outage.may_ask(self.key):
            return (yield from self._without(rates, RateItem("", now, weight)))
        words = (now, weight, self._life(rates), len(rates), *algorithm.redis_args(rates))
        request = Request((script, self.key, *words), [], self._server.limit(), shared=False)
        try:
            answer = yield self._server.call(request)
        except BaseException as error:
            if self._failed(error, [], self.key):
                return (yield from self._without(rates, RateItem("", now, weight)))
            raise
        self._server.outage.answered()
        failing, retry = int(answer[0]), int(answer[1])
        return ADMITTED if failing < 0 else Decision(rates[failing], None if retry < 0 else retry)

    def _take(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock,
    ) -> Program[Decision]:
        try:
            answer = yield from self._ask(algorithm, rates, now, take_step(weight), clock)
        except Down:
            return (yield from self._without(rates, RateItem("", now, weight)))
        return self._verdict(rates, answer)

    @staticmethod
    def _verdict(rates: Sequence[Rate], answer: list[int]) -> Decision:
        _, verdict, wait = answer[:3]
        return Decision(rates[verdict - 1], None if wait < 0 else wait) if verdict else ADMITTED

    def _reserve(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int,
        limit_ms: int,
        clock: AbstractClock,
    ) -> Program[Decision]:
        if not is_stock(algorithm):
            script = script_of(algorithm)
            return (yield from self._check(script, algorithm, rates, item.timestamp, item.weight))
        sent = time.monotonic() if clock is self._server.clock else None
        refused = None if sent is None else self._refused(rates, item.weight, max_wait_ms, sent)
        if refused is not None:
            return refused
        step = reserve_step(item, max_wait_ms, buffer_ms)
        try:
            stamp = item.timestamp
            answer = yield from self._ask(algorithm, rates, stamp, step, clock, wait_ms=limit_ms)
        except Down:
            return (yield from self._without(rates, item, max_wait_ms, buffer_ms))
        return self._decide(rates, item, sent, answer)

    def _refused(
        self, rates: Sequence[Rate], weight: int, max_wait_ms: int, now: float
    ) -> Decision | None:
        full = self._full
        if full is None or now >= full.until or weight < full.weight or rates is not full.rates:
            return None
        return None if full.fits - now <= max_wait_ms / 1000 else full.again(now)

    def _decide(
        self, rates: Sequence[Rate], item: RateItem, sent: float | None, answer: list[int]
    ) -> Decision:
        """The verdict; ``sent`` is when it was asked for by the server's clock."""
        now, verdict, wait, _, remaining, reset = answer
        if verdict:
            return self._refuse(rates, item.weight, sent, answer)
        item.timestamp = now + wait
        return Reservation(item, wait, Stored("", item.weight), remaining, reset)

    def _refuse(
        self, rates: Sequence[Rate], weight: int, sent: float | None, answer: list[int]
    ) -> Decision:
        _, verdict, wait, _, remaining, reset = answer
        failing = rates[verdict - 1]
        if wait < 0:
            return Decision(failing, None, 0, remaining, reset)
        if sent is not None:
            until = sent + min(wait / 1000, self._server.denial_memory)
            self._full = Denial(until, sent + wait / 1000, weight, rates, failing)
        return Decision(failing, wait, 0, remaining, reset)

    def _forecast(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        weight: int,
        clock: AbstractClock,
    ) -> Program[Decision]:
        script_of(algorithm)
        if not knows_reservations(algorithm):
            state = yield from self._read(algorithm, rates)
            verdict = algorithm.step(rates, state, now, weight)[1] if weight else ADMITTED
            remaining, reset = algorithm.outlook(rates, state, now)
            return Decision(verdict.failing_rate, verdict.retry_after_ms, 0, remaining, reset)
        step = f"reserve {int(weight)} -1 0 {new_id()}"
        try:
            answer = yield from self._ask(algorithm, rates, now, step, clock, doubtful=False)
        except Down:
            return (yield from self._without(rates, RateItem("", now, weight), -1))
        _, failing, wait, _, free, over = answer
        if not failing:
            return Decision(None, None, 0, free, over)
        return Decision(rates[failing - 1], None if wait < 0 else wait, 0, free, over)

    def _confirm(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        reservation: Reservation,
        now: int,
        max_wait_ms: int,
        clock: AbstractClock,
    ) -> Program[Decision]:
        stored, item = stored_by(reservation), reservation.item
        if stored is not None and stored.fallback is not None:
            decision = yield from stored.fallback.confirm(max_wait_ms)
            return Reservation(item, decision.wait_ms, stored) if decision.allowed else decision
        if stored is None or not reservation.wait_ms:
            return ADMITTED
        step = (
            f"confirm {stored.weight} {item.timestamp} {min(max_wait_ms, _PATIENT_MS)} {new_id()}"
        )
        limit = max(max_wait_ms, LAST_MS)
        try:
            answer = yield from self._ask(algorithm, rates, now, step, clock, wait_ms=limit)
        except Down:
            return ADMITTED
        there, verdict, further, _, free, reset = answer
        if verdict:
            stored.weight = 0
            return Decision(rates[verdict - 1], None if further < 0 else further, 0, free, reset)
        if further:
            item.timestamp = there + further
        return Reservation(item, further, stored)

    def _cancel(
        self, algorithm: StateAlgorithm, rates: Sequence[Rate], reservation: Reservation
    ) -> Program[bool]:
        stored, item = stored_by(reservation), reservation.item
        if stored is None:
            return False
        if stored.fallback is not None:
            units, stored.fallback = stored.fallback, None
            return (yield from units.cancel())
        weight = min(int(item.weight), stored.weight)
        stored.weight -= weight
        moment = item.timestamp if reservation.wait_ms else 0
        step = f"cancel {weight} {moment} 0 {new_id()}"
        try:
            answer = yield from self._ask(algorithm, rates, "=", step)
        except Down:
            return False
        return answer[1] > 0

    def _hold(
        self,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        now: int,
        hold_ms: int,
        clock: AbstractClock,
    ) -> Program[list[int]]:
        """Hold, or for -1 ms end that, whatever the outage policy: nothing stands in for it.

        Returns:
            Whether a hold stood, and in how many ms the one that stands now is over.
        """
        script_of(algorithm)
        if not knows_reservations(algorithm):
            raise CannotHold(algorithm)
        head = yield from self._head_at(algorithm, rates, now, clock)
        step = f"hold 0 {hold_ms} 0 {new_id()}"
        answer = yield from self._server.ask(Request(head, [step], self._server.limit()))
        self._full = None
        return answer[1:3]

    def _read(self, algorithm: StateAlgorithm, rates: Sequence[Rate]) -> Program[State]:
        fields = [f"tat{number + 1}" for number in range(len(rates))]
        stored = yield from self._server.command("hmget", self.key, fields)
        if any(value is None for value in stored):
            return algorithm.initial(rates)
        return algorithm.decode(stored)


def reserve_step(item: RateItem, max_wait_ms: int, pad: int) -> str:
    """The step that reserves for an item."""
    return f"reserve {int(item.weight)} {min(max_wait_ms, _PATIENT_MS)} {pad} {new_id()}"


def take_step(weight: int) -> str:
    """The step that takes units now or not at all."""
    return f"take {int(weight)} 0 0 {new_id()}"
