"""An acquisition from its first step to its last, written once for both drivers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyrate_limiter._engine.line import line_of, tickets
from pyrate_limiter._engine.steps import Acquire, AwaitTurn, Cleanup, Gates, Pause, Turn, Work
from pyrate_limiter._engine.time_limit import within
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, StateAlgorithm
from pyrate_limiter.abstracts.awaiting import discard, is_awaitable
from pyrate_limiter.abstracts.bucket import AbstractBucket, BucketFactory
from pyrate_limiter.abstracts.checks import pad_ms
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper
from pyrate_limiter.errors import BucketRetired, InvalidBucket, WrongType

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._engine.steps import Program
    from pyrate_limiter._engine.terms import Terms
    from pyrate_limiter.abstracts.rate import Rate


class Acquisition:
    """What all acquisitions of one limiter share.

    Args:
        factory: finds the bucket of an item.
        lock: held while a user's own bucket is asked.
        reserve_ahead: see `Limiter`.
        only: the bucket of all items, if there is just one.
    """

    __slots__ = ("_gates", "_lock", "_only", "_reserve_ahead", "factory")

    def __init__(
        self,
        factory: BucketFactory,
        lock: Any,
        *,
        reserve_ahead: bool,
        only: AbstractBucket | None = None,
    ) -> None:
        self.factory = factory
        self._lock = lock
        self._gates = Gates()
        self._reserve_ahead = reserve_ahead
        self._only = only if only is not None and keeps_claims(only) else None

    def acquire(self, name: str, weight: int, terms: Terms) -> Program[Decision]:
        """Find the item's bucket, and admit it there."""
        while True:
            item, bucket = yield from self._route(name, weight, terms)
            try:
                return (yield from self.at_bucket(bucket, item, terms))
            except BucketRetired:  # dropped by its factory after we got it
                continue

    def start(self, name: str, weight: int, terms: Terms) -> Decision | Program[Decision]:
        """`acquire`, whose first claim is made at once where its bucket is called in this thread.

        Most calls end with that one, and are spared the program.
        """
        bucket = self._only
        item = _stamped(bucket, name, weight) if bucket is not None and bucket.blocks else None
        if bucket is None or item is None:
            return self.acquire(name, weight, terms)
        ticket = next(tickets)
        return self._started(bucket, item, self._ask(bucket, item, terms), ticket, terms)

    async def start_async(
        self, name: str, weight: int, terms: Terms
    ) -> Decision | Program[Decision]:
        """`start` where the claim is awaited."""
        bucket = self._only
        item = _stamped(bucket, name, weight) if bucket is not None and bucket.is_async else None
        if bucket is None or item is None:
            return self.acquire(name, weight, terms)
        ticket = next(tickets)
        verdict = self._ask(bucket, item, terms)
        decision = await verdict if is_awaitable(verdict) else verdict
        return self._started(bucket, item, decision, ticket, terms)

    def _started(
        self, bucket: AbstractBucket, item: RateItem, first: Decision, ticket: int, terms: Terms
    ) -> Decision | Program[Decision]:
        if first.wait_ms:
            return self._wait(bucket, item, first, ticket, terms)
        if first.failing_rate is None or not terms.blocking:
            return first
        return self.at_bucket(bucket, item, terms, first)

    def check(self, name: str, weight: int) -> Program[Decision]:
        """What the item's bucket would say, without taking anything."""
        while True:
            item, bucket = yield from self._route(name, weight, None)
            try:
                decision: Decision = yield _work(bucket, bucket.check, item)
            except BucketRetired:
                continue
            else:
                return decision

    def _route(
        self, name: str, weight: int, terms: Terms | None
    ) -> Program[tuple[RateItem, AbstractBucket]]:
        item = yield within(self.factory.wrap_item(name, weight), terms)
        if item is None:
            raise WrongType("what the factory's wrap_item returns", item, "a RateItem")
        bucket = yield within(self.factory.get(item), terms)
        if not isinstance(bucket, AbstractBucket):
            where = f"Invalid bucket: item: {name}: what the factory's get returns"
            raise InvalidBucket(bucket, where)
        return item, bucket

    def at_bucket(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        terms: Terms,
        refused: Decision | None = None,
    ) -> Program[Decision]:
        """Admit the item in its bucket, waiting as long as the terms allow.

        ``refused`` is what the bucket has already said.
        """
        native = keeps_claims(bucket)
        while True:
            if refused is not None:
                decision, refused = refused, None
            elif native:
                decision = yield from self._claim(bucket, item, terms)
            else:
                decision = yield from self._attempt(bucket, item, terms)
            if decision.allowed or not terms.blocking or decision.retry_after_ms is None:
                return decision
            wait, patience = decision.retry_after_ms, terms.patience_ms()
            if patience == 0 or (wait > patience and terms.known):
                return decision
            if wait > patience:
                terms.blocking = False  # the last attempt is at the end of the caller's time
                wait = patience
            else:
                pad = self._pad(bucket, decision.failing_rate, terms)
                wait = min(patience, max(1, wait + pad))
            yield Pause(wait / 1000)
            item = yield from self._restamp(item, wait, terms)

    def _ask(self, bucket: AbstractBucket, item: RateItem, terms: Terms) -> Any:
        """What the bucket makes of the item, or an awaitable of it."""
        patience = terms.patience_ms() if self._reserve_ahead else 0
        brief = None if terms.known else bucket.claim_in_brief
        if brief is None:
            return bucket.claim(item, patience, terms.buffer_ms)
        return brief(item, patience, terms.buffer_ms, terms.limit_ms())

    def _claim(self, bucket: AbstractBucket, item: RateItem, terms: Terms) -> Program[Decision]:
        ticket = next(tickets)
        step = _work(bucket, self._ask, bucket, item, terms)
        try:
            decision: Decision = yield step
        except BaseException:
            # Cancelled while a worker thread was at it: what it stores is nobody's.
            if isinstance(step, Work) and not _leave_release(bucket, item, step) and step.result:
                yield Cleanup(_work(bucket, bucket.release, item))
            raise
        if decision.wait_ms:
            return (yield from self._wait(bucket, item, decision, ticket, terms))
        return decision

    def _wait(
        self,
        bucket: AbstractBucket,
        item: RateItem,
        decision: Decision,
        ticket: int,
        terms: Terms,
    ) -> Program[Decision]:
        """Sleep until the claim is due, and go; or on, where others who were late are before it."""
        waited, now = 0, item.timestamp
        # One who has to sleep on keeps the place in the line, and with it the order of arrival.
        place = line_of(bucket).join(item.timestamp, ticket)
        delay = place.delay
        step: Any = None
        try:
            while decision.wait_ms:
                waited += decision.wait_ms
                yield Pause(bucket.pause(item, decision) + delay)
                yield Turn(place)
                if bucket.blocks or bucket.answers_in_order:
                    place.leave()  # the others must not wait for a disk or a network
                now = yield bucket.stamp()
                step = _work(bucket, bucket.settle, item, now, terms.patience_ms())
                decision = yield step
                delay = 0.0
        except GeneratorExit:
            if not _leave_release(bucket, item, step):
                discard(bucket.release(item))
            raise
        except BaseException:
            if not _leave_release(bucket, item, step):
                yield Cleanup(_work(bucket, bucket.release, item))
            raise
        finally:
            place.leave()
        if terms.known and decision.allowed:
            fresh = yield _work(bucket, bucket.check, RateItem(item.name, now, 0))
            return Decision(None, None, waited, fresh.remaining, fresh.reset_after_ms)
        return decision

    def _attempt(self, bucket: AbstractBucket, item: RateItem, terms: Terms) -> Program[Decision]:
        """One try at a user's own bucket, while no other is at it."""
        shared = bucket.limiter_lock()
        if shared is not None and not (yield Acquire(shared, terms.lock_seconds())):
            return Decision(bucket.rates[0], 0)
        try:
            if not (yield Acquire(self._lock, terms.lock_seconds())):
                return Decision(bucket.rates[0], 0)
            try:
                # An async `put` does nothing yet: it runs when it is its task's turn.
                admitted: Any = bucket.put(item)
                waiting: Any = 0
                if not is_awaitable(admitted) and not admitted:
                    waiting = bucket.waiting(item)
            finally:
                self._lock.release()
            if is_awaitable(admitted) or is_awaitable(waiting):
                turn = self._attempt_in_turn(bucket, item, admitted, waiting)
                admitted, waiting = yield from turn
        finally:
            if shared is not None:
                shared.release()
        if admitted:
            return ADMITTED
        failing_rate = bucket.failing_rate or bucket.rates[0]
        return Decision(failing_rate, None if waiting < 0 else waiting)

    def _attempt_in_turn(
        self, bucket: AbstractBucket, item: RateItem, admitted: Any, waiting: Any
    ) -> Program[tuple[bool, int]]:
        try:
            gate = yield AwaitTurn(self._gates)
        except BaseException:
            discard(admitted)
            discard(waiting)
            raise
        try:
            if is_awaitable(admitted):
                admitted = yield admitted
                if not admitted:
                    waiting = bucket.waiting(item)
            return admitted, (yield waiting)
        finally:
            gate.release()

    def _restamp(self, item: RateItem, waited_ms: int, terms: Terms) -> Program[RateItem]:
        fresh: RateItem = yield within(self.factory.wrap_item(item.name, item.weight), terms)
        if fresh.timestamp >= item.timestamp:
            # A sleep that was cut short, as tests do, still counts as slept.
            fresh.timestamp = max(fresh.timestamp, item.timestamp + waited_ms)
        return fresh

    @staticmethod
    def _pad(bucket: AbstractBucket, rate: Rate | None, terms: Terms) -> int:
        if terms.buffer_ms is not None or rate is None:
            return terms.buffer_ms or 0
        one_unit = isinstance(bucket._algorithm, StateAlgorithm)
        return pad_ms(rate.interval // rate.limit if one_unit else rate.interval)


def keeps_claims(bucket: AbstractBucket) -> bool:
    """Whether `claim` is the bucket's own, and does not bypass what a subclass overrides."""
    if type(bucket) is BucketAsyncWrapper:
        return keeps_claims(bucket.bucket)
    return _claims_by_itself(type(bucket))


@lru_cache(maxsize=256)
def _claims_by_itself(kind: type[AbstractBucket]) -> bool:
    lineage = kind.__mro__

    def definer(name: str) -> int:
        return next(depth for depth, base in enumerate(lineage) if name in vars(base))

    claim = definer("claim")
    return lineage[claim] is not AbstractBucket and all(
        claim <= definer(name) for name in ("put", "put_decision", "waiting")
    )


def _work(bucket: AbstractBucket, call: Callable[..., Any], *args: Any) -> Any:
    return Work(call, *args) if bucket.blocks else call(*args)


def _stamped(bucket: AbstractBucket, name: str, weight: int) -> RateItem | None:
    """An item of this moment; None where the bucket's time has to be awaited."""
    now = bucket.stamp()
    if isinstance(now, int):
        return RateItem(name, now, weight)
    discard(now)
    return None


def _leave_release(bucket: AbstractBucket, item: RateItem, step: Any) -> bool:
    """Leave it to the thread that is still at a step to give back what it takes, if one is."""
    return isinstance(step, Work) and step.afterwards(
        lambda decision: decision and bucket.release(item)
    )
