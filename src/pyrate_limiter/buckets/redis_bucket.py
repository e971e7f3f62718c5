"""The log in Redis."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import (
    ADMITTED,
    Decision,
    FixedWindow,
    LogAlgorithm,
    SlidingWindowLog,
)
from pyrate_limiter.abstracts.awaiting import is_awaitable, then
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.checks import check_item
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.redis_outage import Down
from pyrate_limiter.buckets.redis_server import Command, Request, Script, Server
from pyrate_limiter.errors import AlgorithmMismatch, InvalidTimestamp
from pyrate_limiter.utils import RateList, id_generator, sorted_rates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

__all__ = [
    "ADMITTED",
    "AbstractBucket",
    "Decision",
    "LogAlgorithm",
    "LuaScript",
    "Rate",
    "RateItem",
    "RedisBucket",
    "id_generator",
]

_SCRIPT = Script.read("buckets", "redis_log.lua")
_STOCK = SlidingWindowLog()
_KINDS = {SlidingWindowLog: "sliding", FixedWindow: "fixed"}
_WIDTH = 6  # fields of a step
_PATIENT_MS = 1 << 52  # the largest that Lua counts exactly, and for ever
_MOST_DOUBTS = 1000


class LuaScript:
    """The script that a `RedisBucket` runs."""

    PUT_ITEM = _SCRIPT.text


class _Claim:
    """What a bucket notes on an item that it has stored."""

    __slots__ = ("ask", "due", "fallback", "late", "name", "uid", "wait", "weight")

    def __init__(self, name: str, weight: int, uid: str) -> None:
        self.name, self.weight, self.uid = name, weight, uid
        self.wait: int | None = 0  # as in the names of the members; None: not known
        self.due = self.late = (
            0.0  # on the monotonic clock: when to go, and from when on it is late
        )
        self.ask = False
        self.fallback: RateItem | None = None


class RedisBucket(AbstractBucket):
    """A log of units in a Redis sorted set, shared by all who use the key.

    Each acquisition is one round trip, in which the server's own clock is read. The key expires by
    itself some time after its last unit has. It can be shared with programs that run 4.5.1.

    Args:
        rates: the limits; all of them hold.
        redis: a client of the ``redis`` package, sync or asyncio: standalone, Sentinel, cluster.
            It stays the caller's: `close` leaves it open.
        bucket_key: the key of the sorted set.
        script_hash: what loading the script gave. The script is loaded again when the server has
            lost it.
        algorithm: a `SlidingWindowLog`, the default, or a `FixedWindow`.
        on_error: what happens while the server is away: ``"raise"`` passes the driver's error on,
            ``"allow"`` admits, ``"deny"`` refuses; a bucket, or a function that makes one from
            rates, takes its place. All but the first log once and probe the server until it is back.
        call_timeout: seconds that one call to the server may take, whatever the client's timeouts
            and retries are. A caller's own timeout bounds its call in any case.
        denial_memory_ms: a refusal is repeated without asking the server until its wait is over,
            and for so long at the most: a `flush` or `release` by others is seen after that.
            0 switches this off.

    Raises:
        MissingDriver: the ``redis`` package is not installed.
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: it is another algorithm, or a subclass with methods of its own, which a
            script inside Redis cannot call.
        WrongType: an argument is of another type.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_algorithm",
        "_clock",
        "_doubts",
        "_fallback",
        "_full",
        "_header",
        "_learnt",
        "_rates",
        "_server",
        "bucket_key",
        "failing_rate",
        "script_hash",
    )

    bucket_key: str
    """The key of the sorted set."""

    script_hash: str
    """What loading the script gave."""

    # Until when on the monotonic clock, from which weight on, and by which rate all is refused.
    _full: tuple[float, int, Rate] | None
    # Of the last refusal: the weight, and the moment at which it fits, None for never.
    _learnt: tuple[int, int | None] | None

    def __init__(
        self,
        rates: Sequence[Rate],
        redis: Any,
        bucket_key: str,
        script_hash: str = _SCRIPT.sha,
        algorithm: LogAlgorithm | None = None,
        *,
        on_error: Any = "raise",
        call_timeout: float | None = None,
        denial_memory_ms: int = 1000,
    ) -> None:
        server = Server(redis, on_error, call_timeout, denial_memory_ms)
        self._start(server, rates, bucket_key, script_hash, algorithm)

    def _start(
        self,
        server: Server,
        rates: Sequence[Rate],
        bucket_key: str,
        script_hash: str,
        algorithm: LogAlgorithm | None,
    ) -> None:
        self._algorithm = _STOCK if algorithm is None else _checked(algorithm)
        self._server = server
        self._clock = server.clock
        self.bucket_key = bucket_key
        self.script_hash = script_hash
        self.failing_rate = None
        self._doubts: Any = ()
        self._fallback: AbstractBucket | None = None
        self.rates = rates

    @classmethod
    def on_server(
        cls,
        server: Server,
        rates: Sequence[Rate],
        bucket_key: str,
        algorithm: LogAlgorithm | None = None,
    ) -> RedisBucket:
        """A bucket that shares a server with others."""
        bucket = cls.__new__(cls)
        bucket._start(server, rates, bucket_key, _SCRIPT.sha, algorithm)
        return bucket

    @classmethod
    def init(
        cls,
        rates: Sequence[Rate],
        redis: Any,
        bucket_key: str,
        algorithm: LogAlgorithm | None = None,
        **options: Any,
    ) -> Any:
        """Load the script, and make a bucket; for an asyncio client, an awaitable of it.

        ``options`` are the keyword arguments of the class. Where the server is away, and
        ``on_error`` says to go on without it, so does this.
        """
        bucket = cls(rates, redis, bucket_key, _SCRIPT.sha, algorithm, **options)

        def load() -> Generator[Any, Any, RedisBucket]:
            try:
                yield Command(bucket._server.limit(), "script_load", _SCRIPT.text)
            except Exception as error:
                if not bucket._server.outage.covers(error):
                    raise
                bucket._server.outage.failed(error)
            return bucket

        return bucket._server.run(load())

    @property
    def redis(self) -> Any:
        """The client."""
        return self._server.client

    @property
    def is_async(self) -> bool:  # type: ignore[override] # it is the client's affair
        """See `AbstractBucket.is_async`."""
        return self._server.is_async

    @property
    def blocks(self) -> bool:  # type: ignore[override] # it is the client's affair
        """See `AbstractBucket.blocks`."""
        return not self._server.is_async

    @property
    def rates(self) -> RateList:
        """See `AbstractBucket.rates`."""
        return self._rates

    @rates.setter
    def rates(self, rates: Sequence[Rate]) -> None:
        self._rates = sorted_rates(rates)
        numbers = [
            number for limit, interval, _ in self._rates.bounds for number in (limit, interval)
        ]
        self._header = (_KINDS[_kind(self._algorithm)], len(self._rates), *numbers)
        self._full = self._learnt = None

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """`take`, where it does what `put` would do; None where a subclass differs."""
        changed = self.is_async or any(
            getattr(type(self), name) is not getattr(RedisBucket, name)
            for name in ("put", "put_decision", "waiting", "claim", "now", "limiter_lock")
        )
        return None if changed else self.take

    def take(self, name: str, weight: int) -> bool | None:
        """False where a refusal is remembered, else None: the server has to say."""
        del name
        full = self._remembered(weight)
        if full is None:
            return None
        self.failing_rate = full[2]
        return False

    def put(self, item: RateItem) -> bool | Awaitable[bool]:
        """See `AbstractBucket.put`. The item is judged by its own timestamp."""
        return then(self.put_decision(item), _allowed)

    def put_decision(self, item: RateItem) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.put_decision`. The item is judged by its own timestamp."""
        self._check(item)
        return self._server.run(self._claim(item, 0, 0, item.timestamp))

    def claim(
        self, item: RateItem, patience_ms: int = 0, buffer_ms: int | None = None
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.claim`.

        The server's clock counts, not the item's timestamp, unless ``bucket._clock`` was replaced.
        """
        self._check(item)
        pad = -1 if buffer_ms is None else buffer_ms
        return self._server.run(self._claim(item, patience_ms, pad, self._stamp(item.timestamp)))

    def check(self, item: RateItem) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.check`."""
        self._check(item)
        return self._server.run(self._look(item, self._stamp(item.timestamp)))

    def waiting(self, item: RateItem) -> int | Awaitable[int]:
        """See `AbstractBucket.waiting`."""
        if self.failing_rate is None:
            return 0
        learnt = self._learnt
        if learnt is not None and learnt[0] == item.weight:
            return -1 if learnt[1] is None else max(0, learnt[1] - item.timestamp)
        self._check(item)
        return then(self._server.run(self._look(item, item.timestamp)), _wait)

    def settle(
        self, item: RateItem, now: int, patience_ms: int = 0
    ) -> Decision | Awaitable[Decision]:
        """See `AbstractBucket.settle`. It asks the server only where that can change anything."""
        return self._server.run(self._settle(item, now, patience_ms))

    def release(self, item: RateItem) -> bool | Awaitable[bool]:
        """See `AbstractBucket.release`."""
        self._full = None
        return self._server.run(self._release(item))

    def pause(self, item: RateItem, decision: Decision) -> float:
        """See `AbstractBucket.pause`."""
        claim: _Claim | None = item._note
        if claim is not None and claim.fallback is not None and self._fallback is not None:
            return self._fallback.pause(claim.fallback, decision)
        if claim is not None and not self._chosen:
            return max(0.0, claim.due - time.monotonic())
        exact = self._clock.seconds_until(item.timestamp)
        return decision.wait_ms / 1000 if exact is None else max(0.0, exact)

    def leak(self, current_timestamp: int | None = None) -> int | Awaitable[int]:
        """See `AbstractBucket.leak`."""
        if current_timestamp is None:
            if not self._chosen:
                return self._server.run(self._leak())
            return then(self._clock.now(), self._leak_at)
        return self._leak_at(current_timestamp)

    def _leak_at(self, now: int) -> Any:
        bound = f"({self._algorithm.leak_bound(self._rates, now)}"
        return self._command("zremrangebyscore", self.bucket_key, "-inf", bound)

    def flush(self) -> Awaitable[None] | None:
        """See `AbstractBucket.flush`."""

        def done(_: Any) -> None:
            self.failing_rate = self._full = self._learnt = None

        return then(self._command("delete", self.bucket_key), done)

    def count(self) -> int | Awaitable[int]:
        """See `AbstractBucket.count`."""
        return self._command("zcard", self.bucket_key)  # type: ignore[no-any-return]

    def peek(self, index: int) -> RateItem | None | Awaitable[RateItem | None]:
        """See `AbstractBucket.peek`."""
        place = index if index >= 0 else 1 << 52
        units = self._command("zrevrange", self.bucket_key, place, place, withscores=True)
        return then(units, _first_unit)

    def retire(self, now: int) -> bool:
        """True: all that counts is in Redis, and a new bucket finds it there."""
        retire = getattr(self._fallback, "retire", None)
        return retire is None or bool(retire(now))

    @property
    def _chosen(self) -> bool:
        return self._clock is not self._server.clock

    def _stamp(self, timestamp: int) -> int | None:
        return timestamp if self._chosen else None

    @staticmethod
    def _check(item: RateItem) -> None:
        check_item(item)
        if not -_PATIENT_MS < item.timestamp < _PATIENT_MS:
            raise InvalidTimestamp(item.timestamp)

    def _command(self, method: str, *args: Any, **options: Any) -> Any:
        def ask() -> Generator[Any, Any, Any]:
            return (yield Command(self._server.limit(), method, *args, **options))

        return self._server.run(ask())

    def _remembered(self, weight: int) -> tuple[float, int, Rate] | None:
        full = self._full
        if full is None or weight < full[1] or self._chosen or time.monotonic() >= full[0]:
            return None
        return full

    def _ask(
        self, stamp: int | None, patience_ms: int, *step: Any, uid: str | None = None
    ) -> Generator[Any, Any, list[int]]:
        """Run one step, behind those that make good what earlier calls have left in doubt."""
        server, clock = self._server, ""
        if stamp is not None and self._chosen:
            reading: Any = self._clock.now()
            clock = (yield reading) if is_awaitable(reading) else reading
        if not server.outage.may_try():
            raise Down
        doubts, self._doubts = self._doubts, ()
        steps = [field for doubt in doubts for field in ("forget", "", doubt, 0, 0, 0)] + list(step)
        header = ("" if stamp is None else stamp, clock, *self._header)
        limit = server.limit(patience_ms)

        def orphaned(answer: list[int]) -> Request | None:
            if uid is None or answer[-5] != 0:
                return None
            forget = ["forget", "", uid, 0, 0, 0]
            return Request(_SCRIPT, self.bucket_key, header, forget, server.call_timeout, _nothing)

        sent = time.time_ns()
        try:
            answer = yield Request(_SCRIPT, self.bucket_key, header, steps, limit, orphaned, _WIDTH)
        except BaseException as error:
            self._doubts = (*doubts, *self._doubts, *([] if uid is None else [uid]))[-_MOST_DOUBTS:]
            if isinstance(error, Exception) and server.outage.covers(error):
                server.outage.failed(error)
                raise Down from error
            raise
        server.outage.answered()
        if stamp is None:
            server.clock.learn(sent, answer[0])
        return [answer[0], *answer[-5:]]

    def _claim(
        self, item: RateItem, patience_ms: int, pad: int, stamp: int | None
    ) -> Generator[Any, Any, Decision]:
        name, weight = item.name, item.weight
        if weight == 0 and not patience_ms and stamp is not None:
            self.failing_rate = None
            return ADMITTED
        sent = time.monotonic()
        full = self._remembered(weight) if stamp is None else None
        if full is not None and full[0] - sent > patience_ms / 1000:
            self.failing_rate = full[2]
            return Decision(full[2], int((full[0] - sent) * 1000) + 1)
        claim = _Claim(name, weight, secrets.token_hex(8))
        patience = min(patience_ms, _PATIENT_MS)
        step = ("claim", name, claim.uid, weight, patience, pad)
        try:
            answer = yield from self._ask(stamp, patience_ms, *step, uid=claim.uid)
        except Down:
            return (yield from self._without(item, patience_ms, pad))
        now, verdict, wait, slack, free, reset = answer
        if verdict:
            return self._refuse(weight, sent, now, verdict, wait, free, reset)
        self.failing_rate = None
        item._note = claim
        if stamp is None or wait:
            item.timestamp = now + wait
        self._placed(claim, sent, wait, slack)
        return Decision(None, None, wait, free, reset)

    @staticmethod
    def _placed(claim: _Claim, sent: float, wait: int, slack: int) -> None:
        claim.wait, claim.ask = wait, slack < 0
        claim.due = time.monotonic() + wait / 1000
        claim.late = sent + (wait + max(0, slack) + 1) / 1000

    def _refuse(
        self, weight: int, sent: float, now: int, verdict: int, wait: int, free: int, reset: int
    ) -> Decision:
        rate = self._rates[verdict - 1]
        self.failing_rate = rate
        if wait < 0:
            self._learnt = (weight, None)
            return Decision(rate, None, 0, free, reset)
        self._learnt = (weight, now + wait)
        self._full = (sent + min(wait / 1000, self._server.denial_memory), weight, rate)
        return Decision(rate, wait, 0, free, reset)

    def _look(self, item: RateItem, stamp: int | None) -> Generator[Any, Any, Decision]:
        step = ("claim", item.name, "", item.weight, -1, 0)
        try:
            answer = yield from self._ask(stamp, 0, *step)
        except Down:
            return (yield from self._without(item, -1, 0))
        _, verdict, wait, _, free, reset = answer
        if not verdict:
            return Decision(None, None, 0, free, reset)
        return Decision(self._rates[verdict - 1], None if wait < 0 else wait, 0, free, reset)

    def _settle(self, item: RateItem, now: int, patience_ms: int) -> Generator[Any, Any, Decision]:
        claim: _Claim | None = item._note
        if claim is None or claim.wait is None:
            return ADMITTED
        if claim.fallback is not None and self._fallback is not None:
            clock = self._fallback.now()
            clock = (yield clock) if is_awaitable(clock) else clock
            verdict = self._fallback.settle(claim.fallback, clock, patience_ms)
            return (yield verdict) if is_awaitable(verdict) else verdict  # type: ignore[return-value]
        sent = time.monotonic()
        if not self._chosen and not claim.ask and sent <= claim.late:
            return ADMITTED
        wait, claim.wait = claim.wait, None
        step = ("settle", claim.name, claim.uid, claim.weight, min(patience_ms, _PATIENT_MS), wait)
        try:
            answer = yield from self._ask(self._stamp(now), patience_ms, *step)
        except Down:
            return ADMITTED
        time_there, verdict, further, slack, free, reset = answer
        if verdict:
            item._note = None
            return self._refuse(claim.weight, sent, time_there, verdict, further, free, reset)
        claim.wait = 0 if slack > 0 else wait
        if further:
            item.timestamp = time_there + further
            self._placed(claim, sent, further, slack)
        return Decision(None, None, further)

    def _release(self, item: RateItem) -> Generator[Any, Any, bool]:
        claim: _Claim | None = item._note
        item._note = None
        if claim is None:
            return False
        if claim.fallback is not None and self._fallback is not None:
            released = self._fallback.release(claim.fallback)
            return bool((yield released) if is_awaitable(released) else released)
        # A settle of unknown outcome may have renamed the members.
        if claim.wait is None:
            step: tuple[Any, ...] = ("forget", "", claim.uid, 0, 0, 0)
        else:
            step = ("release", claim.name, claim.uid, claim.weight, claim.wait, 0)
        try:
            answer = yield from self._ask(self._stamp(item.timestamp), 0, *step, uid=claim.uid)
        except Down:
            return False
        return answer[1] > 0

    def _leak(self) -> Generator[Any, Any, int]:
        try:
            answer = yield from self._ask(None, 0, "leak", "", "", 0, 0, 0)
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
        now = fallback.now()
        now = (yield now) if is_awaitable(now) else now
        copy = RateItem(item.name, now, item.weight)
        if patience_ms < 0:
            verdict = fallback.check(copy)
        else:
            verdict = fallback.claim(copy, patience_ms, None if pad < 0 else pad)
        decision: Decision = (yield verdict) if is_awaitable(verdict) else verdict
        self.failing_rate = decision.failing_rate
        claim = item._note = _Claim(item.name, item.weight, "")
        claim.fallback = copy
        item.timestamp = copy.timestamp
        return decision


def _kind(algorithm: LogAlgorithm) -> type[LogAlgorithm]:
    return FixedWindow if isinstance(algorithm, FixedWindow) else SlidingWindowLog


def _checked(algorithm: LogAlgorithm) -> LogAlgorithm:
    expected = "a SlidingWindowLog or FixedWindow as they are: a script in Redis runs no Python"
    if not isinstance(algorithm, (SlidingWindowLog, FixedWindow)):
        raise AlgorithmMismatch(algorithm, "RedisBucket", expected)
    stock = _kind(algorithm)
    for name in vars(LogAlgorithm) | vars(stock) | {"max_weight": 0}:
        own = name in getattr(algorithm, "__dict__", ()) or (
            getattr(type(algorithm), name, None) is not getattr(stock, name, None)
        )
        if own and not name.startswith("_"):
            raise AlgorithmMismatch(
                algorithm, "RedisBucket", f"{expected}, not one with its own {name}"
            )
    return algorithm


def _first_unit(units: Sequence[Any]) -> RateItem | None:
    if not units:
        return None
    member, score = units[0]
    if isinstance(member, bytes):
        member = member.decode("utf-8", "surrogateescape")
    return RateItem(member.rsplit(":", 2)[0], int(score))


def _allowed(decision: Decision) -> bool:
    return decision.allowed


def _wait(decision: Decision) -> int:
    if decision.failing_rate is None:
        return 0
    return -1 if decision.retry_after_ms is None else decision.retry_after_ms


def _nothing(answer: list[int]) -> None:
    del answer
