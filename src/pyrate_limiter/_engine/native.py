"""What a bucket can do by itself, and how one is asked that can do little."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard, is_awaitable
from pyrate_limiter._engine.queues import unwrapped
from pyrate_limiter.abstracts.algorithm import Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.abstracts.reservation import Reservation

if TYPE_CHECKING:
    from pyrate_limiter._engine.wait_options import Terms


def stores_ahead(bucket: AbstractBucket) -> bool:
    """Whether `reserve` is the bucket's own, and does not bypass what a subclass overrides."""
    return _reserves_by_itself(unwrapped(bucket).__class__)


@lru_cache(maxsize=256)
def _reserves_by_itself(kind: type[AbstractBucket]) -> bool:
    lineage = kind.__mro__

    def definer(name: str) -> int:
        return next(depth for depth, base in enumerate(lineage) if name in vars(base))

    reserve = definer("reserve")
    return lineage[reserve] is not AbstractBucket and all(
        reserve <= definer(name) for name in ("put", "put_decision", "waiting")
    )


@lru_cache(maxsize=256)
def takes_limit(kind: type[AbstractBucket]) -> bool:
    """Whether the `reserve` of a class takes ``limit_ms`` and ``brief``."""
    from inspect import signature  # slow to import, needed only here

    return {"limit_ms", "brief"} <= signature(kind.reserve).parameters.keys()


def puts_at_once(bucket: Any) -> bool:
    """Whether `put` admits in one step in this process's memory, as `reserve` would."""
    return is_unchanged(bucket.__class__) and bucket.puts_at_once


@lru_cache(maxsize=256)
def is_unchanged(kind: type) -> bool:
    """Whether a class has `put` and what goes with it from the one that knows how it works."""
    knows = next((base for base in kind.__mro__ if "puts_at_once" in vars(base)), None)
    methods = ("put", "put_decision", "waiting", "reserve", "limiter_lock")
    return knows is not None and all(
        getattr(kind, name) is getattr(knows, name) for name in methods
    )


def asks_in_turn(
    bucket: AbstractBucket, weight: int, terms: Terms, *, blocked: bool, on_loop: bool
) -> bool:
    """Whether even the first try is made in the order of arrival, from the front of the queue."""
    if not stores_ahead(bucket):
        return True
    if weight != 1 and (
        not weight or any(weight > bucket._algorithm.max_weight(rate) for rate in bucket.rates)
    ):
        return False  # it is told at once that it never fits, or always
    if blocked:
        return True
    if terms.replaced or terms.max_wait_ms() == 0:
        return False
    return not bucket.answers_in_order if bucket.is_async else bucket.blocks and on_loop


def stamped(bucket: AbstractBucket, name: str, weight: int) -> RateItem | None:
    """An item of this moment; None where the bucket's time has to be awaited."""
    now = bucket.stamp()
    if isinstance(now, int):
        return RateItem(name, now, weight)
    discard(now)
    return None


def put_and_wait(bucket: AbstractBucket, item: RateItem) -> tuple[Any, Any]:
    """What `put` says, and `waiting` if that is a refusal. What is async runs when awaited."""
    admitted: Any = bucket.put(item)
    refused = not is_awaitable(admitted) and not admitted
    return admitted, bucket.waiting(item) if refused else 0


def reservation_of(item: RateItem, decision: Decision) -> Reservation:
    """What was stored for an item that was admitted; where nothing was, one that says so."""
    return decision if isinstance(decision, Reservation) else Reservation.of(item, decision)


def made_by(answer: Any) -> list[Reservation]:
    """The reservations in what a bucket has answered, if it has."""
    answers = answer if isinstance(answer, list) else [answer]
    return [each for each in answers if isinstance(each, Reservation)]


def cancel_made(bucket: AbstractBucket, answer: object) -> Any:
    """Give back what was stored for somebody who is not there any more."""
    made = made_by(answer)
    return bucket.cancel_several(made) if made else None


def told(decision: Decision, waited_ms: int, outlook: Decision) -> Decision:
    """What a caller is told who has waited: the outlook is as of now."""
    remaining, reset = outlook.remaining, outlook.reset_after_ms
    if isinstance(decision, Reservation):
        return Reservation(decision.item, waited_ms, decision.handle, remaining, reset)
    return Decision(None, None, waited_ms, remaining, reset)
