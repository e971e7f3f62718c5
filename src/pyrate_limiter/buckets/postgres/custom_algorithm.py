"""A user's own policy over the log in Postgres: it runs here, on what the server has stored.

The server hands out what is stored, the policy decides, and the server stores that if the log is
still the one that the policy saw; else all begins anew. Its lock is held only while it works.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.timeline import ROUNDS
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.postgres.custom_log import look
from pyrate_limiter.buckets.postgres.rows import CHANGED, Answer, Confirmed
from pyrate_limiter.buckets.postgres.session import at_work
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Busy, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.postgres.literals import Limits
    from pyrate_limiter.buckets.postgres.rows import Ask, ConfirmRequest, Units
    from pyrate_limiter.buckets.postgres.statements import Steps

    T = TypeVar("T")


def reserve_by_policy(steps: Steps, ask: Ask, units: Units) -> Program[list[Answer]]:
    """`Steps.reserve` for any policy: the live units are judged as those in memory are."""
    begun, limits = time.monotonic(), steps.limits
    yield from steps.make_good()
    yield from steps.note_lookback(seconds_of(ask.limit))

    def decide(seconds: float | None) -> Program[Answer | None]:
        seen = yield from look(steps, units, ask.now, seconds, ask)
        bucket = seen.log(limits.rates, limits.algorithm)
        judged = RateItem(units.name, seen.now, units.weight)
        if not ask.store:
            decision = bucket.check(judged)
        else:
            layout = yield from steps.layout()
            left = ask.max_wait if layout.has_columns else 0
            if ask.now is None:
                left = max(0, left - int((time.monotonic() - begun) * 1000))
            decision = bucket.reserve(judged, left, ask.buffer)
        if ask.store and decision.allowed:
            placed = ask._replace(
                max_wait=FOREVER,
                limit=_limit(seconds),
                buffer=0,
                now=seen.now,  # by when it comes to be stored, its moment may have passed
                at=judged.timestamp,
                digest=int(seen.digest),
                bound=seen.bound,
            )
            (stored,) = yield from steps.reserve(placed, [units])
            if stored.failing == CHANGED:
                return None
            return stored._replace(remaining=decision.remaining)
        failing = decision.failing_rate
        wait = decision.wait_ms if failing is None else decision.retry_after_ms
        return Answer(
            failing=_number(limits, failing),
            moment=None if wait is None else seen.now + wait,
            now=seen.now,
            remaining=decision.remaining,
            newest=seen.rows[-1][0] if seen.rows else None,
            swept=None,
            held=seen.hold[0] if seen.hold else None,
            read=seen.now,
        )

    return [(yield from _until_unchanged(steps, units, ask.limit, decide))]


def confirm_by_policy(steps: Steps, ask: ConfirmRequest, units: Units) -> Program[list[Confirmed]]:
    """`Steps.confirm` for any policy."""
    limits = steps.limits

    def decide(seconds: float | None) -> Program[Confirmed | None]:
        seen = yield from look(steps, units, ask.now, seconds)
        stamp = next((at for at, _, own in seen.rows if own), None)
        if stamp is None:
            return Confirmed(0, None, seen.now, seen.now)
        now = max(stamp, seen.now)  # its time has come, whatever the clock says
        moment, failing = seen.log(limits.rates, limits.algorithm)._held(now), None
        for _ in range(ROUNDS):
            others = seen.others(limits.rates, limits.algorithm, moment)
            fits, short = others._next_fit(moment, others._total + units.weight, units.weight)
            if fits == moment:
                break
            moment, failing = fits, short
        if moment == stamp:
            return Confirmed(0, moment, now, now)
        placed = ask._replace(now=now, at=moment, digest=int(seen.digest), bound=seen.bound)
        (said,) = yield from steps.confirm(placed, [units])
        if said.failing == CHANGED:
            return None
        if said.failing:
            said = said._replace(failing=_number(limits, failing) or 1)
        return said

    limit = max(ask.max_wait, LEAST_MS)
    return [(yield from _until_unchanged(steps, units, limit, decide))]


def _number(limits: Limits, failing: Rate | None) -> int:
    """Which of the rates that is, from 1 on; 0 for none."""
    return 0 if failing is None else limits.rates.index(failing) + 1


def _limit(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, int(seconds * 1000))


def _until_unchanged(
    steps: Steps, units: Units, limit: int, decide: Callable[[float | None], Program[T | None]]
) -> Program[T]:
    """``decide(seconds left)``, a program, again where it gives None: the log has changed.

    Raises:
        Busy: it went on changing for as long as the caller is willing to wait.
    """
    seconds = seconds_of(limit)

    def work(left: float | None) -> Program[T]:
        give_up = time.monotonic() + (steps.session.pool.timeout if left is None else left)
        while True:
            answer = yield from decide(left)
            if answer is not None:
                return answer
            if time.monotonic() >= give_up:
                raise at_work() if seconds is None else Busy
            if left is not None:
                left = give_up - time.monotonic()

    busy = None if seconds is None else Busy()
    return steps.session.in_turn(steps.fair_lock(units.name), seconds, work, busy)
