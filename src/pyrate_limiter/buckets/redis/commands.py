"""What a `RedisBucket` asks of its server: programs that yield requests and are sent answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._core.timeline import LATEST_MS, ROUNDS
from pyrate_limiter._core.validation import LARGEST_PAD_MS, PADS_IN_INTERVAL
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.log.moments import LogMoments
from pyrate_limiter.buckets.redis.calling import Asks
from pyrate_limiter.buckets.redis.client import LAST_MS, Server
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.request import MOST_UNITS, NUMBERS, Request, Script
from pyrate_limiter.buckets.redis.reservations import (
    PATIENT_MS,
    UNMARKED,
    StepsInDoubt,
    Stored,
    label_of,
    stored_by,
    undoing,
)
from pyrate_limiter.buckets.remote.denials import Denial, LastDenial

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.rate import RateItem

_SPARE_MS = 60_000  # a key is kept so much longer than its units count, at the most
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
    "spare": _SPARE_MS,
}
"""What the script of the log has in common with the rest of the library."""

LOG_SCRIPT = Script.read("log.lua", "log_steps.lua", **LOG_CONSTANTS)
_MOST_IN_LINE = 100  # waiters of a line, in one call


class RedisSteps(Asks, AbstractBucket):
    """The programs. The bucket that they belong to holds the data."""

    __slots__ = ()

    if TYPE_CHECKING:
        _rates: RateList
        _server: Server
        bucket_key: str
        # What each call begins with: the script, the key, and a line about clocks and rates.
        _head: tuple[Script, str, str]
        _in_doubt: StepsInDoubt
        _learnt: LastDenial | None

    @property
    def _chosen(self) -> bool:
        """Whether the caller has chosen the bucket's clock."""
        return self._clock is not self._server.clock

    def _stamp(self, timestamp: int) -> int | None:
        return timestamp if self._chosen else None

    def _remembered(self, weight: int) -> Denial | None:
        full = self._full
        if full is None or weight < full.weight or self._chosen or time.monotonic() >= full.until:
            return None
        return full

    def _ask(
        self, stamp: int | None, max_wait_ms: int, steps: list[str], *, doubtful: bool
    ) -> Generator[Any, Any, list[int]]:
        """Run steps, judged by a stamp or, where that is None, by the server's clock."""
        if stamp is None:
            return self._send(self._head, steps, max_wait_ms, doubtful=doubtful, by_server=True)
        return self._ask_at(stamp, max_wait_ms, steps, doubtful=doubtful)

    def _ask_at(
        self, stamp: int, max_wait_ms: int, steps: list[str], *, doubtful: bool
    ) -> Generator[Any, Any, list[int]]:
        head = yield from self._head_at(stamp)
        return (yield from self._send(head, steps, max_wait_ms, doubtful=doubtful, by_server=False))

    def _head_at(self, stamp: int) -> Generator[Any, Any, tuple[Any, ...]]:
        """What a call begins with that is judged by a stamp."""
        head, clock = self._head, "~"
        if self._chosen:
            reading: Any = self._clock.now()
            if is_awaitable(reading) and not self._server.is_async:
                discard(reading)  # a sync bucket cannot ask that clock
            else:
                clock = (yield reading) if is_awaitable(reading) else reading
        return (*head[:-1], f"{stamp} {clock}{head[-1][3:]}")

    def _undo(self, request: Request, answer: list[int]) -> Request | None:
        steps = undoing(request.steps, answer)
        return Request(request.head, steps, self._server.call_timeout) if steps else None

    def _reserve(
        self, item: RateItem, max_wait_ms: int, pad: int, stamp: int | None, limit_ms: int
    ) -> Generator[Any, Any, Decision]:
        if item.weight == 0 and not max_wait_ms and stamp is not None:
            self.failing_rate = None
            return ADMITTED
        sent = time.monotonic()
        refused = self._refused(item.weight, max_wait_ms, sent) if stamp is None else None
        if refused is not None:
            return refused
        label, step = _reserve_step("reserve", item, max_wait_ms, pad)
        try:
            if MOST_UNITS < item.weight <= self._rates[0].limit:
                answer = yield from self._reserve_in_parts(label, int(item.weight), stamp, limit_ms)
            else:
                answer = yield from self._ask(stamp, limit_ms, [step], doubtful=True)
        except Down:
            return (yield from self._without(item, max_wait_ms, pad))
        return self._decide(item, label, stamp, sent, answer)

    def _reserve_in_parts(
        self, label: str, weight: int, stamp: int | None, limit_ms: int
    ) -> Generator[Any, Any, list[int]]:
        """Take a great weight now or not at all, in calls that do not hold up the server.

        Each part is stored if all that is left fits. So the limit holds at any time; where others
        have taken the room in between, the parts go back.
        """
        parts: list[str] = []
        answer: list[int] = []
        try:
            for first in range(1, weight + 1, MOST_UNITS):
                size = min(MOST_UNITS, weight + 1 - first)
                step = f"part {size} {weight + 1 - first} {first} {label}"
                answer = yield from self._ask(stamp, limit_ms, [step], doubtful=True)
                if answer[1]:
                    break
                parts.append(step)
            else:
                parts = []
        finally:
            self._in_doubt.add(parts)
        return answer

    def _reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int,
        pad: int,
        stamp: int | None,
        not_before: int | None,
        limit_ms: int,
    ) -> Generator[Any, Any, list[Decision]]:
        sent = time.monotonic()
        refused = self._refused(items[0].weight, max_wait_ms, sent) if stamp is None else None
        if refused is not None:
            return [refused]
        units = 0
        labels: list[str] = []
        if items[0].weight > MOST_UNITS:
            return [(yield from self._reserve(items[0], max_wait_ms, pad, stamp, limit_ms))]
        steps = [f"after 0 {-1 if not_before is None else not_before} 0 :"]
        for item in items[:_MOST_IN_LINE]:
            units += item.weight
            if units > MOST_UNITS:
                break
            label, step = _reserve_step("next", item, max_wait_ms, pad)
            labels.append(label)
            steps.append(step)
        try:
            answer = yield from self._ask(stamp, limit_ms, steps, doubtful=True)
        except Down:
            return [(yield from self._without(items[0], max_wait_ms, pad))]
        decisions: list[Decision] = []
        for number, label in enumerate(labels, 1):
            its = answer[1 + NUMBERS * number :][:NUMBERS]
            if its[0] < 0:
                break
            its = [answer[0], *its]
            decisions.append(self._decide(items[number - 1], label, stamp, sent, its))
        if len(decisions) > 1 or not_before is not None:
            self._full = None  # what is true behind the others of a line is not true of everybody
        return decisions

    def _refused(self, weight: int, max_wait_ms: int, now: float) -> Decision | None:
        full = self._remembered(weight)
        if full is None or full.fits - now <= max_wait_ms / 1000:
            return None
        self.failing_rate = full.rate
        return full.again(now)

    def _decide(
        self, item: RateItem, label: str, stamp: int | None, sent: float, answer: list[int]
    ) -> Decision:
        now, verdict, wait, slack, free, reset = answer
        if verdict:
            return self._refuse(item.weight, sent, answer)
        self.failing_rate = None
        stored = Stored(label, item.weight)
        stored.place(sent, wait, slack)
        item.timestamp = now + wait if stamp is None or wait else int(item.timestamp)
        return Reservation(item, wait, stored, free, reset)

    def _refuse(self, weight: int, sent: float, answer: list[int]) -> Decision:
        now, verdict, wait, _, free, reset = answer
        rate = self._rates[verdict - 1]
        self.failing_rate = rate
        if wait < 0:
            self._learnt = LastDenial(weight, None)
            return Decision(rate, None, 0, free, reset)
        self._learnt = LastDenial(weight, now + wait)
        until = sent + min(wait / 1000, self._server.denial_memory)
        self._full = Denial(until, sent + wait / 1000, weight, self._rates, rate)
        return Decision(rate, wait, 0, free, reset)

    def _look(self, item: RateItem, stamp: int | None) -> Generator[Any, Any, Decision]:
        try:
            answer = yield from self._ask(
                stamp, 0, [f"reserve {int(item.weight)} -1 0 :"], doubtful=False
            )
        except Down:
            return (yield from self._without(item, -1, 0))
        _, verdict, wait, _, free, reset = answer
        if not verdict:
            return Decision(None, None, 0, free, reset)
        return Decision(self._rates[verdict - 1], None if wait < 0 else wait, 0, free, reset)

    def _confirm(
        self, reservation: Reservation, now: int, max_wait_ms: int
    ) -> Generator[Any, Any, Decision]:
        stored = stored_by(reservation)
        if stored is None or stored.mark is None:
            return reservation.with_wait()
        if stored.fallback is not None:
            decision = yield from stored.fallback.confirm(max_wait_ms)
            return reservation.with_wait(decision.wait_ms) if decision else decision
        sent = time.monotonic()
        if not self._chosen and not stored.ask and sent <= stored.late:
            return reservation.with_wait()
        mark, stored.mark = stored.mark, None
        patience = min(max_wait_ms, PATIENT_MS)
        step = f"confirm {stored.weight} {mark} {patience} {stored.label}"
        try:
            limit = max(max_wait_ms, LAST_MS)
            answer = yield from self._ask(self._stamp(now), limit, [step], doubtful=True)
        except Down:
            return reservation.with_wait()
        except Exception:
            stored.weight = 0  # it is in doubt, and dropped when the server answers again
            raise
        time_there, verdict, further, slack = answer[:4]
        if verdict:
            weight, stored.weight = stored.weight, 0
            return self._refuse(weight, sent, answer)
        stored.mark = f"={mark[1:]}" if slack > 0 else UNMARKED
        if further:
            stored.place(sent, further, slack)
            reservation.item.timestamp = time_there + further
        return reservation.with_wait(further)

    def _cancel(self, reservation: Reservation) -> Generator[Any, Any, bool]:
        stored, item = stored_by(reservation), reservation.item
        if stored is None:
            return False
        if stored.fallback is not None:
            units, stored.fallback = stored.fallback, None
            return (yield from units.cancel())
        weight = min(int(item.weight), stored.weight)
        stored.weight -= weight
        # A confirm of unknown outcome may have renamed the members.
        kind, mark = ("forget", 0) if stored.mark is None else ("cancel", stored.mark)
        end, gone = stored.weight + weight, 0
        stamp = self._stamp(item.timestamp)
        for first in range(stored.weight + 1, end + 1, MOST_UNITS):
            step = f"{kind} {min(MOST_UNITS, end + 1 - first)} {mark} {first} {stored.label}"
            try:
                answer = yield from self._ask(stamp, 0, [step], doubtful=True)
            except Down:
                self._in_doubt.add([step])
            else:
                gone += answer[1]
        return gone > 0

    def _without(self, item: RateItem, max_wait_ms: int, pad: int) -> Generator[Any, Any, Decision]:
        """Answer while the server is away. -1 ms of waiting only looks."""
        buffer_ms = None if pad < 0 else pad
        decision, units = yield from self._fall_back(self._rates, item, max_wait_ms, buffer_ms)
        self.failing_rate, self._learnt = decision.failing_rate, None
        if units is None:
            return decision
        stored = Stored("", item.weight)
        stored.fallback = units
        item.timestamp = units.reservation.item.timestamp
        return Reservation.of(item, decision, stored)


def _reserve_step(kind: str, item: RateItem, max_wait_ms: int, pad: int) -> tuple[str, str]:
    """A label of its own for an item, and the step that reserves under it."""
    label = label_of(item.name)
    return label, f"{kind} {int(item.weight)} {min(max_wait_ms, PATIENT_MS)} {pad} {label}"
