"""What a `RedisBucket` asks of its server: programs that yield requests and are sent answers."""

from __future__ import annotations

import os
import time
from random import Random
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.awaiting import discard, is_awaitable
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.checks import name_text
from pyrate_limiter.buckets.redis_outage import Down
from pyrate_limiter.buckets.redis_server import LAST_MS, Request, Script, Server, numbers_of
from pyrate_limiter.buckets.redis_spare import Spare, stand_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.utils import RateList

LOG_SCRIPT = Script.read("buckets", "redis_log.lua")
PATIENT_MS = 1 << 52  # the largest that Lua counts exactly, and for ever

_MOST_DOUBTS = 1000
_ID = -17  # where in a label the colon and the id begin

# One of our own: a program that seeds the common one must not get the same ids again.
_random = Random()  # noqa: S311 - the ids need to be different, not secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


class Claim:
    """What a bucket notes on an item that it has stored."""

    __slots__ = ("ask", "due", "label", "late", "spare", "wait", "weight")

    def __init__(self, label: str, weight: int) -> None:
        self.label: str = label  # "name:id", as in the names of the members
        self.weight: int = weight
        self.wait: int | None = 0  # as in the names of the members; None: not known
        # On the monotonic clock: when to go, and from when on it is late.
        self.due: float
        self.late: float
        self.ask: bool = False
        self.spare: Spare | None = None


class RedisSteps(AbstractBucket):
    """The programs. The bucket that they belong to holds the data."""

    __slots__ = ()

    if TYPE_CHECKING:
        _rates: RateList
        _server: Server
        bucket_key: str
        # What each call begins with: the script, the key, and a line about clocks and rates.
        _head: tuple[Script, str, str]
        # How such a call begins on the wire, where there is a short way to the server.
        _beginning: bytes | None
        # Ids of what may have been stored by calls whose answers never came.
        _doubts: tuple[str, ...]
        _fallback: AbstractBucket | None
        # Until when a refusal is repeated, from which weight on, by which rate, and when it would
        # fit; both times on the monotonic clock.
        _full: tuple[float, int, Rate, float] | None
        # Of the last refusal: the weight, and the moment at which it fits, None for never.
        _learnt: tuple[int, int | None] | None

    @property
    def _chosen(self) -> bool:
        """Whether the caller has chosen the bucket's clock."""
        return self._clock is not self._server.clock

    def _stamp(self, timestamp: int) -> int | None:
        return timestamp if self._chosen else None

    def _remembered(self, weight: int) -> tuple[float, int, Rate, float] | None:
        full = self._full
        if full is None or weight < full[1] or self._chosen or time.monotonic() >= full[0]:
            return None
        return full

    def _ask(
        self, stamp: int | None, patience_ms: int, step: str, *, doubtful: bool
    ) -> Generator[Any, Any, list[int]]:
        """Run one step, behind those that make good what earlier calls have left in doubt.

        If ``doubtful``, the step may have stored something even where no answer comes.
        """
        server, clock = self._server, "~"
        if stamp is not None and self._chosen:
            reading: Any = self._clock.now()
            if is_awaitable(reading) and not server.is_async:
                discard(reading)  # a sync bucket cannot ask that clock
            else:
                clock = (yield reading) if is_awaitable(reading) else reading
        if not server.outage.may_try():
            raise Down
        doubts, self._doubts = self._doubts, ()
        steps = [f"forget 0 0 0 {doubt}" for doubt in doubts]
        head = self._head
        if stamp is not None:
            head = (*head[:-1], f"{stamp} {clock}{head[-1][3:]}")
        steps.append(step)
        orphaned = self._forget if doubtful else None
        sent = time.time_ns()
        try:
            answer = yield Request(head, steps, server.limit(patience_ms), orphaned)
        except BaseException as error:
            self._doubt(*doubts)
            if self._failed(error, step if doubtful else None):
                raise Down from error
            raise
        server.outage.answered()
        if stamp is None:
            server.clock.learn(sent, answer[0])
        return [answer[0], *answer[-5:]]

    def _doubt(self, *uids: str) -> None:
        """Have the next call drop what may be stored under these ids."""
        self._doubts = (*self._doubts, *uids)[-_MOST_DOUBTS:]

    def _failed(self, error: BaseException, step: str | None) -> bool:
        """Note that a call has failed; the step, if any, may have been done all the same.

        Returns:
            Whether that is an outage, and the policy is to go on.
        """
        if step is not None:
            self._doubt(step[_ID:])
        outage = self._server.outage
        if not isinstance(error, Exception) or not outage.covers(error):
            return False
        outage.failed(error)
        return True

    def _forget(self, request: Request, answer: list[int]) -> Request | None:
        """What undoes a step whose answer nobody waits for."""
        if answer[-5] != 0:
            return None
        forget = f"forget 0 0 0 {request.steps[-1][_ID:]}"
        return Request(request.head, [forget], self._server.call_timeout)

    def _claim(
        self, item: RateItem, patience_ms: int, pad: int, stamp: int | None
    ) -> Generator[Any, Any, Decision]:
        if item.weight == 0 and not patience_ms and stamp is not None:
            self.failing_rate = None
            return ADMITTED
        sent = time.monotonic()
        refused = self._refused(item.weight, patience_ms, sent) if stamp is None else None
        if refused is not None:
            return refused
        label, step = _claim_step(item, patience_ms, pad)
        try:
            answer = yield from self._ask(stamp, patience_ms, step, doubtful=True)
        except Down:
            return (yield from self._without(item, patience_ms, pad))
        return self._decide(item, label, stamp, sent, answer)

    # The same again with nothing in the way: the server's clock, no time limit, no outage.

    def _claim_now(self, item: RateItem, patience_ms: int, pad: int) -> Any:
        server, sent = self._server, time.monotonic()
        refused = self._refused(item.weight, patience_ms, sent)
        if refused is not None:
            return refused
        label, step = _claim_step(item, patience_ms, pad)
        sent_ns = time.time_ns()
        try:
            answer = server.crews.ask(self, step)
        except BaseException as error:
            if self._failed(error, step):
                return server.run(self._without(item, patience_ms, pad))
            raise
        server.clock.learn(sent_ns, answer[0])
        return self._decide(item, label, None, sent, answer)

    async def _claim_soon(self, item: RateItem, patience_ms: int, pad: int) -> Any:
        server, sent = self._server, time.monotonic()
        refused = self._refused(item.weight, patience_ms, sent)
        if refused is not None:
            return refused
        label, step = _claim_step(item, patience_ms, pad)
        sent_ns = time.time_ns()
        try:
            answer = await server.lanes.ask(Request(self._head, [step], None, self._forget))
        except BaseException as error:
            if self._failed(error, step):
                without: Any = server.run(self._without(item, patience_ms, pad))
                return await without
            raise
        server.clock.learn(sent_ns, answer[0])
        return self._decide(item, label, None, sent, answer)

    def evaluate(self, *steps: str) -> list[int]:
        """Run steps, and return the reply; over the short way where there is one for so few."""
        server, wire = self._server, self._server.wire
        if wire is not None and len(steps) == 1 and self._beginning is not None and wire.is_open():
            try:
                return numbers_of(wire.call(self._beginning, steps[0]))
            except server.errors.NoScriptError:
                pass
        return server.evaluate(*self._head, *steps)

    def _refused(self, weight: int, patience_ms: int, now: float) -> Decision | None:
        full = self._remembered(weight)
        if full is None or full[3] - now <= patience_ms / 1000:
            return None
        self.failing_rate = full[2]
        return Decision(full[2], int((full[3] - now) * 1000) + 1)

    def _decide(
        self, item: RateItem, label: str, stamp: int | None, sent: float, answer: list[int]
    ) -> Decision:
        now, verdict, wait, slack, free, reset = answer
        if verdict:
            return self._refuse(item.weight, sent, answer)
        self.failing_rate = None
        claim = item._note = Claim(label, item.weight)
        if stamp is None or wait:
            item.timestamp = now + wait
        self._placed(claim, sent, wait, slack)
        return Decision(None, None, wait, free, reset)

    @staticmethod
    def _placed(claim: Claim, sent: float, wait: int, slack: int) -> None:
        claim.wait, claim.ask = wait, slack < 0
        claim.due = time.monotonic() + wait / 1000 if wait else sent
        claim.late = sent + (wait + max(0, slack) + 1) / 1000

    def _refuse(self, weight: int, sent: float, answer: list[int]) -> Decision:
        now, verdict, wait, _, free, reset = answer
        rate = self._rates[verdict - 1]
        self.failing_rate = rate
        if wait < 0:
            self._learnt = (weight, None)
            return Decision(rate, None, 0, free, reset)
        self._learnt = (weight, now + wait)
        until = sent + min(wait / 1000, self._server.denial_memory)
        self._full = (until, weight, rate, sent + wait / 1000)
        return Decision(rate, wait, 0, free, reset)

    def _look(self, item: RateItem, stamp: int | None) -> Generator[Any, Any, Decision]:
        try:
            answer = yield from self._ask(stamp, 0, f"claim {item.weight} -1 0 :", doubtful=False)
        except Down:
            return (yield from self._without(item, -1, 0))
        _, verdict, wait, _, free, reset = answer
        if not verdict:
            return Decision(None, None, 0, free, reset)
        return Decision(self._rates[verdict - 1], None if wait < 0 else wait, 0, free, reset)

    def _settle(self, item: RateItem, now: int, patience_ms: int) -> Generator[Any, Any, Decision]:
        claim: Claim | None = item._note
        if claim is None or claim.wait is None:
            return ADMITTED
        if claim.spare is not None:
            return (yield from claim.spare.settle(patience_ms))
        sent = time.monotonic()
        if not self._chosen and not claim.ask and sent <= claim.late:
            return ADMITTED
        wait, claim.wait = claim.wait, None
        patience = min(patience_ms, PATIENT_MS)
        step = f"settle {claim.weight} {patience} {wait} {claim.label}"
        try:
            limit = max(patience_ms, LAST_MS)
            answer = yield from self._ask(self._stamp(now), limit, step, doubtful=True)
        except Down:
            return ADMITTED
        except Exception:
            item._note = None  # it is in doubt, and dropped when the server answers again
            raise
        time_there, verdict, further, slack = answer[:4]
        if verdict:
            item._note = None
            return self._refuse(claim.weight, sent, answer)
        claim.wait = 0 if slack > 0 else wait
        if further:
            item.timestamp = time_there + further
            self._placed(claim, sent, further, slack)
        return Decision(None, None, further)

    def _release(self, item: RateItem) -> Generator[Any, Any, bool]:
        claim: Claim | None = item._note
        item._note = None
        if claim is None:
            return False
        if claim.spare is not None:
            return (yield from claim.spare.release())
        # A settle of unknown outcome may have renamed the members.
        if claim.wait is None:
            step = f"forget 0 0 0 {claim.label[_ID:]}"
        else:
            step = f"release {claim.weight} {claim.wait} 0 {claim.label}"
        stamp = self._stamp(item.timestamp)
        try:
            answer = yield from self._ask(stamp, 0, step, doubtful=True)
        except Down:
            self._doubt(claim.label[_ID:])
            return False
        return answer[1] > 0

    def _leak(self) -> Generator[Any, Any, int]:
        try:
            answer = yield from self._ask(None, 0, "leak 0 0 0 :", doubtful=False)
        except Down:
            return 0
        return answer[1]

    def _without(self, item: RateItem, patience_ms: int, pad: int) -> Generator[Any, Any, Decision]:
        """Answer while the server is away. A patience of -1 only looks."""
        buffer_ms = None if pad < 0 else pad
        decision, spare = yield from stand_in(self, self._rates, item, patience_ms, buffer_ms)
        self.failing_rate, self._learnt = decision.failing_rate, None
        item._note = None
        if spare is not None:
            claim = item._note = Claim("", item.weight)
            claim.spare = spare
            item.timestamp = spare.item.timestamp
        return decision


def _claim_step(item: RateItem, patience_ms: int, pad: int) -> tuple[str, str]:
    """A label of its own for an item, and the step that claims under it."""
    label = f"{name_text(item.name)}:{_random.getrandbits(64):016x}"
    return label, f"claim {item.weight} {min(patience_ms, PATIENT_MS)} {pad} {label}"
