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
from pyrate_limiter.buckets.redis.request import Head, Request, Script, Step
from pyrate_limiter.buckets.redis.reservations import Stored, new_id, stored_by
from pyrate_limiter.buckets.state.reservations import ABANDONED_MS
from pyrate_limiter.errors import CannotHold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import State, StateAlgorithm
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.redis.request import Answer, Outcome
    from pyrate_limiter.clocks import AbstractClock

GCRA_CONSTANTS = {"abandoned": ABANDONED_MS, "latest": LATEST_MS}
"""What the script of GCRA has in common with the rest of the library."""

GCRA_SCRIPT = Script.read("gcra.lua", "gcra_steps.lua", **GCRA_CONSTANTS)
BESIDE = "~replies"  # ends the name of the hash that the script keeps beside the state
_PATIENT_MS = 1 << 42  # 139 years: in microseconds Lua still counts it exactly


class KeepsState(Asks):
    """What the programs need of the store that they belong to."""

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
            by_server = Head(GCRA_SCRIPT, self.key, (line,))
            self._usual = (by_server, rates, self.ttl_ms)
        if stamp == "~":
            return by_server
        return by_server.at(stamp, reading)

    def _undo(self, step: Step, outcome: Outcome) -> Step | None:
        if outcome.verdict or step.kind == "cancel":
            return None
        moment = outcome.now + outcome.wait if outcome.wait else 0
        return Step("cancel", step.weight, moment, 0, new_id())


class StateSteps:
    """The programs, under a policy and its rates.

    Args:
        store: it holds the data.
        algorithm: the policy.
        rates: the limits.
        clock: the bucket's. The server's is read in the same step; of another the stamps count.
    """

    __slots__ = ("_algorithm", "_clock", "_rates", "_store")

    def __init__(
        self,
        store: KeepsState,
        algorithm: StateAlgorithm,
        rates: Sequence[Rate],
        clock: AbstractClock = NO_CLOCK,
    ) -> None:
        self._store = store
        self._algorithm = algorithm
        self._rates = rates
        self._clock = clock

    def _head_at(self, stamp: int | str) -> Program[Head]:
        """What a call begins with at a stamp of the clock, which is asked what it says now."""
        store, clock = self._store, self._clock
        if clock is store._server.clock:
            return store._head(self._algorithm, self._rates)
        now: object = clock.now()
        if store._server.is_async and is_awaitable(now):
            now = yield now
        if isinstance(now, int):
            stamp = now if stamp.__class__ is Unread else stamp
            return store._head(self._algorithm, self._rates, stamp, now)
        discard(now)  # a sync store cannot ask that clock
        return store._head(self._algorithm, self._rates, stamp)

    def _ask(
        self, stamp: int | str, step: Step, wait_ms: int = 0, *, doubtful: bool = True
    ) -> Program[Outcome]:
        head, by_server = (yield from self._head_at(stamp)), self._is_by_server
        (outcome,) = yield from self._store._send(
            head, [step], wait_ms, doubtful=doubtful, by_server=by_server
        )
        return outcome

    @property
    def _is_by_server(self) -> bool:
        return self._clock is self._store._server.clock

    def _without(
        self, item: RateItem, max_wait_ms: int = 0, buffer_ms: int = 0
    ) -> Program[Decision]:
        return self._store._fall_back(self._rates, item, max_wait_ms, buffer_ms)

    def check(self, now: int, weight: int) -> Program[Decision]:
        """See `StateStore.check`."""
        if not is_stock(self._algorithm):
            return (yield from self._check_by_own(RateItem("", now, weight)))
        try:
            outcome = yield from self._ask(now, take_step(weight))
        except Down:
            return (yield from self._without(RateItem("", now, weight)))
        return verdict_of(self._rates, outcome)

    def _check_by_own(self, item: RateItem) -> Program[Decision]:
        """One step of a script of the user's own."""
        store, algorithm, rates = self._store, self._algorithm, self._rates
        server, key, script = store._server, store.key, script_of(algorithm)
        if not server.outage.may_ask(key):
            return (yield from self._without(item))
        numbers = algorithm.redis_args(rates)
        words = (item.timestamp, item.weight, store._life(rates), len(rates), *numbers)
        request = Request(Head(script, key, words), [], server.limit(), shared=False)
        try:
            answer: Answer = yield server.call(request)
        except BaseException as error:
            if store._failed(error, [], key):
                return (yield from self._without(item))
            raise
        server.outage.answered()
        failing, retry = int(answer[0]), int(answer[1])
        return ADMITTED if failing < 0 else Decision(rates[failing], None if retry < 0 else retry)

    def reserve(
        self, item: RateItem, max_wait_ms: int, buffer_ms: int, limit_ms: int
    ) -> Program[Decision]:
        """See `StateStore.reserve`."""
        if not is_stock(self._algorithm):
            return (yield from self._check_by_own(item))
        store, rates, sent = self._store, self._rates, time.monotonic()
        if self._is_by_server:
            refused = store._known(rates, item.weight, max_wait_ms, sent)
            if refused is not None:
                return refused
        patience = min(max_wait_ms, _PATIENT_MS)
        step = Step("reserve", int(item.weight), patience, buffer_ms, new_id())
        try:
            outcome = yield from self._ask(item.timestamp, step, limit_ms)
        except Down:
            return (yield from self._without(item, max_wait_ms, buffer_ms))
        now, verdict, wait, _, remaining, reset = outcome
        if verdict:
            if wait >= 0 and self._is_by_server:
                store._remember(rates, item.weight, sent, outcome)
            return outcome.decision(rates)
        item.timestamp = now + wait
        return Reservation(item, wait, Stored("", item.weight), remaining, reset)

    def forecast(self, now: int, weight: int) -> Program[Decision]:
        """See `StateStore.forecast`."""
        algorithm, rates = self._algorithm, self._rates
        script_of(algorithm)
        if not knows_reservations(algorithm):
            state = yield from self.read()
            verdict = algorithm.step(rates, state, now, weight)[1] if weight else ADMITTED
            remaining, reset = algorithm.remaining_and_reset(rates, state, now)
            return Decision(verdict.failing_rate, verdict.retry_after_ms, 0, remaining, reset)
        step = Step("reserve", int(weight), -1, 0, new_id())
        try:
            outcome = yield from self._ask(now, step, doubtful=False)
        except Down:
            return (yield from self._without(RateItem("", now, weight), -1))
        return outcome.decision(rates)

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int) -> Program[Decision]:
        """See `StateStore.confirm`."""
        stored, item = stored_by(reservation), reservation.item
        if stored is not None and stored.fallback is not None:
            decision = yield from stored.fallback.confirm(max_wait_ms)
            return reservation.with_wait(decision.wait_ms) if decision else decision
        if stored is None or not reservation.wait_ms:
            return ADMITTED
        patience, limit = min(max_wait_ms, _PATIENT_MS), max(max_wait_ms, LAST_MS)
        step = Step("confirm", stored.weight, item.timestamp, patience, new_id())
        try:
            outcome = yield from self._ask(now, step, limit)
        except Down:
            return ADMITTED
        if outcome.verdict:
            stored.weight = 0
            return outcome.decision(self._rates)
        if outcome.wait:
            item.timestamp = outcome.now + outcome.wait
        return reservation.with_wait(outcome.wait)

    def cancel(self, reservation: Reservation) -> Program[bool]:
        """See `StateStore.cancel`."""
        return self._store._cancelled(reservation, self._give_back)

    def _give_back(self, reservation: Reservation, _: Stored, weight: int) -> Program[bool]:
        moment = reservation.item.timestamp if reservation.wait_ms else 0
        try:
            outcome = yield from self._ask("=", Step("cancel", weight, moment, 0, new_id()))
        except Down:
            return False
        return outcome.verdict > 0

    def hold(self, now: int, hold_ms: int) -> Program[Outcome]:
        """See `Asks._hold_from`."""
        script_of(self._algorithm)
        if not knows_reservations(self._algorithm):
            raise CannotHold(self._algorithm)
        return (yield from self._store._hold_from((yield from self._head_at(now)), hold_ms))

    def read(self) -> Program[State]:
        """See `StateStore.read`."""
        fields = [f"tat{number + 1}" for number in range(len(self._rates))]
        stored = yield from self._store._server.command("hmget", self._store.key, fields)
        if any(value is None for value in stored):
            return self._algorithm.initial(self._rates)
        return self._algorithm.decode(stored)


def take_step(weight: int) -> Step:
    """The step that takes units now or not at all."""
    return Step("take", int(weight), 0, 0, new_id())


def verdict_of(rates: Sequence[Rate], outcome: Outcome) -> Decision:
    """The bare verdict, as `StateAlgorithm.step` gives it."""
    if not outcome.verdict:
        return ADMITTED
    return Decision(rates[outcome.verdict - 1], None if outcome.wait < 0 else outcome.wait)
