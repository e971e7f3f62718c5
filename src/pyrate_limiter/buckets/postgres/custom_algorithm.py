"""A user's own policy over the log in Postgres: it runs here, on what the server has stored.

The server hands out what is stored, the policy decides, and the server stores that if the log is
still the one that the policy saw; else all begins anew. Its lock is held only while it works.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.timeline import ROUNDS
from pyrate_limiter._core.validation import FOREVER
from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.postgres.custom_log import PolicyLog
from pyrate_limiter.buckets.postgres.fair_lock import locked
from pyrate_limiter.buckets.postgres.functions import NONE
from pyrate_limiter.buckets.postgres.session import at_work
from pyrate_limiter.buckets.postgres.statements import LEAST_MS, Busy, UnitsInDoubt, seconds_of

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.buckets.postgres.schema import Layout
    from pyrate_limiter.buckets.postgres.session import Attempt
    from pyrate_limiter.buckets.postgres.statements import Ask, Steps

_GUESS_MS = 1000  # how wrong the guess of the server's time may be before it costs a round trip


def reserve_by_policy(
    steps: Steps,
    rates: RateList,
    algorithm: LogAlgorithm,
    ask: Ask,
) -> Program[list[Any]]:
    """`Steps.reserve` for any policy: the live units are judged as those in memory are.

    Returns:
        Verdict, moment (None for never), failing rate, now, remaining, reset.
    """
    begun = time.monotonic()
    since = int(begun * 1000 + steps.session.behind) if ask.now is None else ask.now
    expires: int | None = None
    yield from steps.make_good()
    yield from steps.note_lookback(seconds_of(ask.limit))

    def decide(attempt: Attempt, layout: Layout) -> Program[list[Any] | None]:
        nonlocal expires
        log = PolicyLog(steps, layout, ask.name, ask.token)
        seen = yield from log.look(attempt, algorithm, rates, ask.now, ask)
        bucket = seen.log(rates, algorithm)
        judged = RateItem(ask.name, seen.now, int(ask.weight))
        if not ask.store:
            decision = bucket.check(judged)
        else:
            left = ask.max_wait if layout.has_columns else 0
            if ask.now is None:
                left = max(0, left - int((time.monotonic() - begun) * 1000))
            decision = bucket.reserve(judged, left, ask.buffer)
        if decision.allowed and ask.store:
            expires = steps.session.server_ms(attempt.deadline)
            moment = yield from log.insert(attempt, seen, judged, expires)
            if moment is None:
                return None
            if moment != judged.timestamp:  # an earlier try, whose answer was lost
                return [True, moment, 0, min(moment, seen.now), None, None]
        failing = decision.failing_rate
        wait = decision.wait_ms if failing is None else decision.retry_after_ms
        moment = None if wait is None else seen.now + wait
        place_of_rate = 0 if failing is None else rates.index(failing) + 1
        outlook = [decision.remaining, decision.reset_after_ms]
        return [decision.allowed, moment, place_of_rate, seen.now, *outlook]

    def orphaned() -> None:
        until = FOREVER if expires is None or ask.now is not None else expires
        last = NONE if expires is None else expires
        steps.leave_in_doubt(UnitsInDoubt(*ask[:3], since, until, last))

    answer: list[object] = yield from _run(steps, ask.name, decide, ask.limit, orphaned)
    return answer


def confirm_by_policy(
    steps: Steps,
    rates: RateList,
    algorithm: LogAlgorithm,
    item: RateItem,
    *,
    token: int,
    terms: dict[str, Any],
) -> Program[list[Any]]:
    """`Steps.confirm` for any policy.

    Returns:
        Verdict, moment, failing rate, now.
    """
    max_wait = terms["max_wait"]

    def decide(attempt: Attempt, layout: Layout) -> Program[list[Any] | None]:
        log = PolicyLog(steps, layout, item.name, token)
        seen = yield from log.look(attempt, algorithm, rates, terms["now"])
        stamp = next((at for at, _, own in seen.rows if own), None)
        if stamp is None:
            return [True, None, 0, seen.now]
        now = max(stamp, seen.now)  # its time has come, whatever the clock says
        moment, failing = seen.log(rates, algorithm)._held(now), None
        for _ in range(ROUNDS):
            others = seen.others(rates, algorithm, moment)
            fits, short = others._next_fit(moment, others._total + item.weight, item.weight)
            if fits == moment:
                break
            moment, failing = fits, short
        stays = moment - now <= max_wait
        number = 0 if stays or failing is None else rates.index(failing) + 1
        goes_to = moment if stays else None
        if moment == stamp or (yield from log.move(attempt, seen, stamp, now, goes_to)):
            return [stays, moment, number, now]
        return None

    answer: list[object] = yield from _run(steps, item.name, decide, max(max_wait, LEAST_MS))
    return answer


def _run(steps: Steps, name: str, decide: Any, limit: int, orphaned: Any = None) -> Program[Any]:
    """``decide(attempt, layout)``, a program, again where it gives None: the log has changed.

    Raises:
        Busy: it went on changing for as long as the caller is willing to wait.
    """
    seconds = seconds_of(limit)
    layout = yield from steps.layout(seconds)

    def work(attempt: Attempt) -> Program[Any]:
        give_up = attempt.deadline if seconds is None else time.monotonic() + seconds
        while True:
            answer = yield from decide(attempt, layout)
            if answer is not None:
                return answer
            if time.monotonic() >= give_up:
                raise at_work() if seconds is None else Busy

    def late(since: float) -> Program[BaseException]:
        return steps.session.late(since, None if seconds is None else Busy())

    def transact(left: float | None) -> Program[Any]:
        return steps.session.transact(work, left, orphaned)

    try:
        time_limit = steps.session.within(seconds)
        return (yield from locked(steps.fair_lock(name), time_limit, late, transact))
    except steps.busy:
        if seconds is None:
            raise
        raise Busy from None
