"""What a `RedisBucket` asks of its server: programs that yield requests and are sent answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.timeline import LATEST_MS, ROUNDS
from pyrate_limiter._core.validation import LARGEST_PAD_MS, PADS_IN_INTERVAL
from pyrate_limiter.abstracts.algorithm import ADMITTED
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.log.moments import LogMoments
from pyrate_limiter.buckets.redis.calling import Asks
from pyrate_limiter.buckets.redis.client import LAST_MS
from pyrate_limiter.buckets.redis.errors import may_have_run
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.request import MOST_UNITS, Script, Step
from pyrate_limiter.buckets.redis.reservations import (
    PATIENT_MS,
    Stored,
    check_in_reach,
    label_of,
    mark_of,
    undoing,
)
from pyrate_limiter.buckets.remote.denials import LastDenial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.buckets.redis.request import Head, Outcome
    from pyrate_limiter.buckets.redis.reservations import StepsInDoubt

_EXTRA_MS = 60_000  # a key is kept so much longer than its units count, at the most
_SLACK = 128  # units beside twice as many as count, before the expired ones are dropped

LOG_CONSTANTS = {
    "forever": PATIENT_MS,
    "largest_pad": LARGEST_PAD_MS,
    "latest": LATEST_MS,
    "looks": LogMoments._looks,
    "most_units": MOST_UNITS,
    "pads": PADS_IN_INTERVAL,
    "rounds": ROUNDS,
    "slack": _SLACK,
    "extra": _EXTRA_MS,
}
"""What the script of the log has in common with the rest of the library."""

LOG_SCRIPT = Script.read("log.lua", "log_steps.lua", **LOG_CONSTANTS)
_MOST_IN_LINE = 100  # waiters of a line, in one call


class RedisSteps(Asks, AbstractBucket):
    """The programs. The bucket that they belong to holds the data."""

    __slots__ = ()

    if TYPE_CHECKING:
        _rates: RateList
        bucket_key: str
        _head: Head  # its words are one line about clocks and rates
        _in_doubt: StepsInDoubt
        _learnt: LastDenial | None

    @property
    def _chosen(self) -> bool:
        """Whether the caller has chosen the bucket's clock."""
        return self._clock is not self._server.clock

    def _stamp(self, timestamp: int) -> int | None:
        return timestamp if self._chosen else None

    def _undo(self, step: Step, outcome: Outcome) -> Step | None:
        return undoing(step, outcome)

    def _ask(
        self, stamp: int | None, max_wait_ms: int, steps: list[Step], *, doubtful: bool = True
    ) -> Program[list[Outcome]]:
        """Run steps, judged by a stamp or, where that is None, by the server's clock."""
        by_server = stamp is None
        head = self._head if stamp is None else (yield from self._head_at(stamp))
        return (
            yield from self._send(head, steps, max_wait_ms, doubtful=doubtful, by_server=by_server)
        )

    def _head_at(self, stamp: int) -> Program[Head]:
        """What a call begins with that is judged by a stamp."""
        if not self._chosen:
            return self._head.at(stamp, "~")
        clock: object = self._clock.now()
        if is_awaitable(clock):
            if self._server.is_async:
                clock = yield clock
            else:
                discard(clock)  # a sync bucket cannot ask that clock
                clock = "~"
        return self._head.at(stamp, clock)

    def _reserve(
        self,
        item: RateItem,
        max_wait_ms: int,
        buffer_ms: int | None,
        stamp: int | None,
        limit_ms: int,
    ) -> Program[Decision]:
        if item.weight == 0 and not max_wait_ms and stamp is not None:
            self.failing_rate = None
            return ADMITTED
        sent = time.monotonic()
        refused = None if stamp is not None else self._refused(item.weight, max_wait_ms, sent)
        if refused is not None:
            return refused
        step = _step_for("reserve", item, max_wait_ms, buffer_ms)
        try:
            if MOST_UNITS < item.weight <= self._rates[0].limit:
                outcome = yield from self._reserve_in_parts(step, stamp, limit_ms)
            else:
                (outcome,) = yield from self._ask(stamp, limit_ms, [step])
        except Down:
            return (yield from self._without(item, max_wait_ms, buffer_ms))
        return self._decide(item, step, stamp, sent, outcome)

    def _reserve_in_parts(self, whole: Step, stamp: int | None, limit_ms: int) -> Program[Outcome]:
        """Take a great weight now or not at all, in calls that do not hold up the server.

        Each part is stored if all that is left fits. So the limit holds at any time; where others
        have taken the room in between, the parts go back.
        """
        parts: list[Step] = []
        stored = 0
        try:
            while True:
                left = whole.weight - stored
                part = Step("part", min(MOST_UNITS, left), left, stored + 1, whole.label)
                (outcome,) = yield from self._ask(stamp, limit_ms, [part])
                if outcome.verdict:
                    return outcome
                parts.append(part)
                stored += part.weight
                if stored == whole.weight:
                    parts = []
                    return outcome
        finally:
            self._in_doubt.add(parts)

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """See `AbstractBucket.reserve_several`. It is one call of the script for up to 100 items.

        ``limit_ms`` is how long that call may take; as long as the patience, if left out.
        """
        for item in items:
            check_in_reach(item)
        first, stamp = items[0], self._stamp(items[0].timestamp)
        limit = max_wait_ms if limit_ms is None else limit_ms

        def program() -> Program[list[Decision]]:
            sent = time.monotonic()
            refused = None if stamp is not None else self._refused(first.weight, max_wait_ms, sent)
            if refused is not None:
                return [refused]
            if first.weight > MOST_UNITS:
                return [(yield from self._reserve(first, max_wait_ms, buffer_ms, stamp, limit))]
            units = 0
            steps = [Step("after", 0, -1 if not_before is None else not_before, 0, ":")]
            for item in items[:_MOST_IN_LINE]:
                units += item.weight
                if units > MOST_UNITS:
                    break
                steps.append(_step_for("next", item, max_wait_ms, buffer_ms))
            try:
                outcomes = yield from self._ask(stamp, limit, steps)
            except Down:
                return [(yield from self._without(first, max_wait_ms, buffer_ms))]
            decisions = [
                self._decide(item, step, stamp, sent, outcome)
                for item, step, outcome in zip(items, steps[1:], outcomes[1:])
                if outcome.verdict >= 0
            ]
            if len(decisions) > 1 or not_before is not None:
                self._full = None  # what is true behind others of a line is not true of everybody
            return decisions

        return self._server.run(program())

    def _refused(self, weight: int, max_wait_ms: int, now: float) -> Decision | None:
        refused = self._known(self._rates, weight, max_wait_ms, now)
        if refused is not None:
            self.failing_rate = refused.failing_rate
        return refused

    def _decide(
        self, item: RateItem, step: Step, stamp: int | None, sent: float, outcome: Outcome
    ) -> Decision:
        now, verdict, wait, _, free, reset = outcome
        if verdict:
            return self._refuse(item.weight, sent, outcome)
        self.failing_rate = None
        stored = Stored(step.label, item.weight)
        stored.place(sent, step, outcome)
        item.timestamp = now + wait if stamp is None or wait else int(item.timestamp)
        return Reservation(item, wait, stored, free, reset)

    def _refuse(self, weight: int, sent: float, outcome: Outcome) -> Decision:
        decision = outcome.decision(self._rates)
        self.failing_rate = decision.failing_rate
        if decision.retry_after_ms is None:
            self._learnt = LastDenial(weight, None)
        else:
            self._learnt = LastDenial(weight, outcome.now + outcome.wait)
            self._remember(self._rates, weight, sent, outcome)
        return decision

    def _look(self, item: RateItem, stamp: int | None) -> Program[Decision]:
        step = Step("reserve", int(item.weight), -1, 0, ":")
        try:
            (outcome,) = yield from self._ask(stamp, 0, [step], doubtful=False)
        except Down:
            return (yield from self._without(item, -1, 0))
        return outcome.decision(self._rates)

    def confirm(
        self, reservation: Reservation, now: int, max_wait_ms: int = 0
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.confirm`. It asks the server only where that can change anything."""
        return self._server.run(self._confirm(reservation, now, max_wait_ms))

    def _confirm(self, reservation: Reservation, now: int, max_wait_ms: int) -> Program[Decision]:
        stored: Stored | None = reservation.handle
        item = reservation.item
        if stored is None or not item.weight:
            return reservation.with_wait()
        if stored.fallback is not None:
            decision = yield from stored.fallback.confirm(max_wait_ms)
            return reservation.with_wait(decision.wait_ms) if decision else decision
        if not stored.weight or stored.mark is None:  # given back, or in doubt, which is dropped
            limit = max(max_wait_ms, LAST_MS)
            return (yield from self._reserve(item, max_wait_ms, 0, self._stamp(now), limit))
        if not self._chosen and not stored.ask and time.monotonic() <= stored.late:
            return reservation.with_wait()
        mark, patience = stored.mark, min(max_wait_ms, PATIENT_MS)
        step = Step("confirm", stored.weight, mark, patience, stored.label)
        return (yield from self._confirm_there(reservation, stored, step, now, max_wait_ms))

    def _confirm_there(
        self, reservation: Reservation, stored: Stored, step: Step, now: int, max_wait_ms: int
    ) -> Program[Decision]:
        """Ask the server whether a waiter may go."""
        sent, item, mark = time.monotonic(), reservation.item, stored.mark
        limit, stored.mark = max(max_wait_ms, LAST_MS), None
        try:
            (outcome,) = yield from self._ask(self._stamp(now), limit, [step])
        except Down as down:
            if down.__cause__ is None or not may_have_run(down.__cause__):
                stored.mark = mark
                return reservation.with_wait()  # the units stay where they are
            stored.weight = 0
            return (yield from self._without(item, max_wait_ms, 0))
        except BaseException as error:
            if may_have_run(error):
                stored.weight = 0  # it is in doubt, and dropped when the server answers again
            else:
                stored.mark = mark
            raise
        if outcome.verdict:
            stored.weight = 0
            return self._refuse(step.weight, sent, outcome)
        stored.mark = mark_of(step, outcome)
        if outcome.wait:
            stored.place(sent, step, outcome)
            item.timestamp = outcome.now + outcome.wait
        return reservation.with_wait(outcome.wait)

    def cancel(self, reservation: Reservation) -> bool | Awaitable[bool]:
        self._full = None
        return self._server.run(self._cancelled(reservation, self._give_back))

    def _give_back(self, reservation: Reservation, stored: Stored, weight: int) -> Program[bool]:
        stamp = self._stamp(reservation.item.timestamp)
        # A confirm of unknown outcome may have renamed the members.
        kind, mark = ("forget", "0") if stored.mark is None else ("cancel", stored.mark)
        end, gone = stored.weight + weight, 0
        for first in range(stored.weight + 1, end + 1, MOST_UNITS):
            step = Step(kind, min(MOST_UNITS, end + 1 - first), mark, first, stored.label)
            try:
                (outcome,) = yield from self._ask(stamp, 0, [step])
            except Down:
                self._in_doubt.add([step])
            else:
                gone += outcome.verdict
        return gone > 0

    def _without(
        self, item: RateItem, max_wait_ms: int, buffer_ms: int | None
    ) -> Program[Decision]:
        decision = yield from self._fall_back(self._rates, item, max_wait_ms, buffer_ms)
        self.failing_rate, self._learnt = decision.failing_rate, None
        return decision


def _step_for(kind: str, item: RateItem, max_wait_ms: int, buffer_ms: int | None) -> Step:
    """The step that reserves for an item, under a label of its own."""
    pad, patience = -1 if buffer_ms is None else buffer_ms, min(max_wait_ms, PATIENT_MS)
    return Step(kind, int(item.weight), patience, pad, label_of(item.name))
