"""The log for a user's own policy, handed out whole."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.buckets.log.array_log import ArrayLog
from pyrate_limiter.buckets.postgres import functions
from pyrate_limiter.buckets.postgres.literals import CLOCK, numbers
from pyrate_limiter.buckets.postgres.rows import Answer
from pyrate_limiter.buckets.postgres.session import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.buckets.postgres.rows import Ask, Units
    from pyrate_limiter.buckets.postgres.session import Attempt
    from pyrate_limiter.buckets.postgres.statements import Steps

_GUESS_MS = 1000  # how wrong the guess of the server's time may be before it costs a round trip


class _Still(AbstractClock):
    """Stands at the moment at which the server has handed the log out."""

    __slots__ = ("_now",)

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        return self._now


class Seen:
    """The live units as the server handed them out, and what tells whether they have changed."""

    __slots__ = ("bound", "digest", "hold", "now", "rows")

    def __init__(
        self, now: int, bound: int, hold: Sequence[Any], rows: Sequence[Any], digest: str
    ) -> None:
        self.now: int = now
        self.bound: int = bound
        self.rows: list[tuple[int, int, int]] = [
            (int(at), int(units), int(own)) for at, units, own in rows
        ]
        self.digest: str = digest
        self.hold: tuple[int, int] | None = None
        for until, length in hold:
            self.hold = int(until), int(length)

    def _empty(self, rates: RateList, algorithm: LogAlgorithm) -> ArrayLog:
        bucket = ArrayLog(rates, algorithm, _Still(self.now))
        bucket._lock = nullcontext()
        return bucket

    def log(self, rates: RateList, algorithm: LogAlgorithm) -> ArrayLog:
        """All of it in memory."""
        bucket = self._empty(rates, algorithm)
        for at, units, _ in self.rows:
            bucket._append("", units, at)
        bucket._latest = self.now
        bucket._hold = self.hold
        return bucket

    def others(self, rates: RateList, algorithm: LogAlgorithm, upto: int) -> ArrayLog:
        """What others have stored, as far as a moment."""
        bucket = self._empty(rates, algorithm)
        for at, units, own in self.rows:
            if at <= upto and units > own:
                bucket._append("", units - own, at)
        return bucket


def look(
    steps: Steps,
    units: Units,
    own_time: int | None,
    seconds: float | None,
    ask: Ask | None = None,
) -> Program[Seen]:
    """What is stored for an item's bucket.

    Where it is for somebody who asks, what others have written, and a clock that has stepped back,
    are put right first. ``own_time`` is that of the item; None is the server's.
    """
    layout = yield from steps.layout(seconds)
    session, rates = steps.session, steps.limits.rates
    leak_bound = steps.limits.algorithm.leak_bound
    guess = own_time
    if guess is None:
        guess = (session.server_ms(time.monotonic()) or 0) - _GUESS_MS
    first_bound = leak_bound(rates, guess)

    def once(attempt: Attempt) -> Program[Seen]:
        bound = first_bound
        time_there = f"SELECT {CLOCK}"
        if ask is not None:
            looks = ask._replace(store=False, look=False)
            nothing = [units._replace(weight=0)]
            time_there = steps.reserve_text(attempt, layout, looks, nothing)
        while True:
            log = functions.look(
                *(layout.table, steps.lock(units.name), units, bound),
                keyed=steps.keyed,
                plain=not layout.has_columns,
            )
            bounds = attempt.bounds(durable=steps.is_durable)
            sent = time.monotonic()
            *_, times, hold, rows, digest = yield from attempt.fetch(
                whole(f"{bounds}{time_there}; {log}")
            )
            now: int | None = own_time
            if ask is not None:
                answer = Answer._make(numbers(times[0][0]))
                now = answer.now
                session.learn(sent, answer.read)
            elif now is None:
                now = int(times[0][0])
            needed = leak_bound(rates, now)
            if needed >= bound:
                return Seen(now, bound, hold, rows, digest[0][0])
            bound = needed  # the clock reads less than was thought

    return (yield from session.transact(once, seconds))
