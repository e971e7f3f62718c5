"""What a `RedisBucket` asks of its server: programs that yield requests and are sent answers."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.awaiting import discard, is_awaitable
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.redis_outage import Down
from pyrate_limiter.buckets.redis_server import LAST_MS, Request, Script, Server

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyrate_limiter.utils import RateList

LOG_SCRIPT = Script.read("buckets", "redis_log.lua")
PATIENT_MS = 1 << 52  # the largest that Lua counts exactly, and for ever

_MOST_DOUBTS = 1000


class Claim:
    """What a bucket notes on an item that it has stored."""

    __slots__ = ("ask", "due", "fallback", "late", "name", "uid", "wait", "weight")

    def __init__(self, name: str, weight: int, uid: str) -> None:
        self.name: str = name
        self.weight: int = weight
        self.uid: str = uid
        self.wait: int | None = 0  # as in the names of the members; None: not known
        # On the monotonic clock: when to go, and from when on it is late.
        self.due: float = 0.0
        self.late: float = 0.0
        self.ask: bool = False
        self.fallback: RateItem | None = None


class RedisSteps(AbstractBucket):
    """The programs. The bucket that they belong to holds the data."""

    __slots__ = ()

    if TYPE_CHECKING:
        _rates: RateList
        _server: Server
        bucket_key: str
        # What each call of the script says about the rates.
        _header: str
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
        self, stamp: int | None, patience_ms: int, *step: Any, uid: str | None = None
    ) -> Generator[Any, Any, list[int]]:
        """Run one step, behind those that make good what earlier calls have left in doubt."""
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
        steps = [field for doubt in doubts for field in ("forget 0 0 0", "", doubt)] + list(step)
        header = (f"{'~' if stamp is None else stamp} {clock} {self._header}",)
        limit = server.limit(patience_ms)

        def orphaned(answer: list[int]) -> Request | None:
            if uid is None or answer[-5] != 0:
                return None
            forget = ["forget 0 0 0", "", uid]
            limit = server.call_timeout
            return Request(
                LOG_SCRIPT, self.bucket_key, header, forget, limit=limit, orphaned=_nothing
            )

        sent = time.time_ns()
        try:
            answer = yield Request(
                LOG_SCRIPT, self.bucket_key, header, steps, limit=limit, orphaned=orphaned
            )
        except BaseException as error:
            self._doubt(*doubts, *([] if uid is None else [uid]))
            if isinstance(error, Exception) and server.outage.covers(error):
                server.outage.failed(error)
                raise Down from error
            raise
        server.outage.answered()
        if stamp is None:
            server.clock.learn(sent, answer[0])
        return [answer[0], *answer[-5:]]

    def _doubt(self, *uids: str) -> None:
        """Have the next call drop what may be stored under these ids."""
        self._doubts = (*self._doubts, *uids)[-_MOST_DOUBTS:]

    def _claim(
        self, item: RateItem, patience_ms: int, pad: int, stamp: int | None
    ) -> Generator[Any, Any, Decision]:
        name, weight = item.name, item.weight
        if weight == 0 and not patience_ms and stamp is not None:
            self.failing_rate = None
            return ADMITTED
        sent = time.monotonic()
        full = self._remembered(weight) if stamp is None else None
        if full is not None and full[3] - sent > patience_ms / 1000:
            self.failing_rate = full[2]
            return Decision(full[2], int((full[3] - sent) * 1000) + 1)
        claim = Claim(name, weight, secrets.token_hex(8))
        patience = min(patience_ms, PATIENT_MS)
        step = (f"claim {weight} {patience} {pad}", name, claim.uid)
        try:
            answer = yield from self._ask(stamp, patience_ms, *step, uid=claim.uid)
        except Down:
            return (yield from self._without(item, patience_ms, pad))
        now, verdict, wait, slack, free, reset = answer
        if verdict:
            return self._refuse(weight, sent, answer)
        self.failing_rate = None
        item._note = claim
        if stamp is None or wait:
            item.timestamp = now + wait
        self._placed(claim, sent, wait, slack)
        return Decision(None, None, wait, free, reset)

    @staticmethod
    def _placed(claim: Claim, sent: float, wait: int, slack: int) -> None:
        claim.wait, claim.ask = wait, slack < 0
        claim.due = time.monotonic() + wait / 1000
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
        step = (f"claim {item.weight} -1 0", item.name, "")
        try:
            answer = yield from self._ask(stamp, 0, *step)
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
        if claim.fallback is not None and self._fallback is not None:
            clock: Any = self._fallback.now()
            clock = (yield clock) if is_awaitable(clock) else clock
            settled: Any = self._fallback.settle(claim.fallback, clock, patience_ms)
            return (yield settled) if is_awaitable(settled) else settled  # type: ignore[no-any-return]
        sent = time.monotonic()
        if not self._chosen and not claim.ask and sent <= claim.late:
            return ADMITTED
        wait, claim.wait = claim.wait, None
        patience = min(patience_ms, PATIENT_MS)
        step = (f"settle {claim.weight} {patience} {wait}", claim.name, claim.uid)
        try:
            limit = max(patience_ms, LAST_MS)
            answer = yield from self._ask(self._stamp(now), limit, *step, uid=claim.uid)
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
        if claim.fallback is not None and self._fallback is not None:
            released = self._fallback.release(claim.fallback)
            return bool((yield released) if is_awaitable(released) else released)
        # A settle of unknown outcome may have renamed the members.
        if claim.wait is None:
            step: tuple[Any, ...] = ("forget 0 0 0", "", claim.uid)
        else:
            step = (f"release {claim.weight} {claim.wait} 0", claim.name, claim.uid)
        try:
            answer = yield from self._ask(self._stamp(item.timestamp), 0, *step, uid=claim.uid)
        except Down:
            self._doubt(claim.uid)
            return False
        return answer[1] > 0

    def _leak(self) -> Generator[Any, Any, int]:
        try:
            answer = yield from self._ask(None, 0, "leak 0 0 0", "", "")
        except Down:
            return 0
        return answer[1]

    def _without(self, item: RateItem, patience_ms: int, pad: int) -> Generator[Any, Any, Decision]:
        """Answer while the server is away. A patience of -1 only looks."""
        policy = self._server.outage.policy
        if policy == "allow":
            self.failing_rate = None
            item._note = None
            return ADMITTED
        if policy == "deny":
            self.failing_rate = self._rates[0]
            self._learnt = None
            return Decision(self._rates[0], self._server.outage.retry_ms())
        if self._fallback is None:
            self._fallback = policy if isinstance(policy, AbstractBucket) else policy(self._rates)
        fallback = self._fallback
        now: Any = fallback.now()
        now = (yield now) if is_awaitable(now) else now
        copy = RateItem(item.name, now, item.weight)
        if patience_ms < 0:
            verdict: Any = fallback.check(copy)
        else:
            verdict = fallback.claim(copy, patience_ms, None if pad < 0 else pad)
        decision: Decision = (yield verdict) if is_awaitable(verdict) else verdict
        self.failing_rate = decision.failing_rate
        claim = item._note = Claim(item.name, item.weight, "")
        claim.fallback = copy
        item.timestamp = copy.timestamp
        return decision


def _nothing(answer: list[int]) -> None:
    del answer
