"""A user's own policy over the log in Postgres: it runs here, on what the server has stored.

The server hands out what is stored, the policy decides, and the server stores that if the log is
still the one that the policy saw; else all begins anew. Its lock is held only while it works.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
from pyrate_limiter.buckets.judged_log import ROUNDS
from pyrate_limiter.buckets.postgres_setup import renumbering
from pyrate_limiter.buckets.postgres_steps import LEAST_MS, Busy, Doubt, seconds_of
from pyrate_limiter.buckets.postgres_text import Limits, literal, numbers
from pyrate_limiter.buckets.postgres_turns import in_turn
from pyrate_limiter.buckets.postgres_wire import silence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.buckets.postgres_link import Attempt
    from pyrate_limiter.buckets.postgres_setup import Place
    from pyrate_limiter.buckets.postgres_steps import Ask, Steps
    from pyrate_limiter.utils import RateList

_GUESS_MS = 1000  # how wrong the guess of the server's time may be before it costs a round trip


class Seen:
    """The live units as the server handed them out, and what tells whether they have changed."""

    __slots__ = ("bound", "digest", "now", "rows")

    def __init__(self, now: int, bound: int, rows: Sequence[Any], digest: str) -> None:
        self.now: int = now
        self.bound: int = bound
        self.rows: list[tuple[int, int, int]] = [
            (int(at), int(units), int(own)) for at, units, own in rows
        ]
        self.digest: str = digest

    def log(self, rates: RateList, algorithm: LogAlgorithm) -> InMemoryBucket:
        """All of it in memory."""
        bucket = InMemoryBucket(rates, algorithm)
        for at, units, _ in self.rows:
            bucket._append("", units, at)
        bucket._latest = self.now
        return bucket

    def others(self, rates: RateList, algorithm: LogAlgorithm, upto: int) -> InMemoryBucket:
        """What others have stored, as far as a moment."""
        bucket = InMemoryBucket(rates, algorithm)
        for at, units, own in self.rows:
            if at <= upto and units > own:
                bucket._append("", units - own, at)
        return bucket


def claim_by_policy(
    steps: Steps,
    rates: RateList,
    algorithm: LogAlgorithm,
    ask: Ask,
) -> Program[list[Any]]:
    """`Steps.claim` for any policy: the live units are judged as those in memory are.

    Returns:
        Verdict, moment (None for never), failing rate, now, slack, remaining, reset.
    """
    begun = time.monotonic()
    doubt = Doubt(ask.name, ask.weight, ask.token)
    if steps.doubts:
        yield from steps.settle_doubts(1)

    def decide(attempt: Attempt, place: Place) -> Program[list[Any] | None]:
        log = _Log(steps, place, ask.name, ask.token)
        seen = yield from log.look(attempt, algorithm, rates, ask.now, ask)
        bucket = seen.log(rates, algorithm)
        judged = RateItem(ask.name, seen.now, ask.weight)
        if not ask.store:
            decision = bucket.check(judged)
        else:
            left = ask.patience if place.has_columns else 0
            if ask.now is None:
                left = max(0, left - int((time.monotonic() - begun) * 1000))
            decision = bucket.claim(judged, left, ask.buffer)
        if decision.allowed and ask.store:
            doubt.due = attempt.deadline
            doubt.expires = steps.link.server_ms(attempt.deadline)
            moment = yield from log.insert(attempt, seen, judged, doubt.expires, ask.limit)
            if moment is None:
                return None
            if moment != judged.timestamp:  # an earlier try, whose answer was lost
                return [True, moment, 0, min(moment, seen.now), 0, None, None]
        failing = decision.failing_rate
        wait = decision.wait_ms if failing is None else decision.retry_after_ms
        moment = None if wait is None else seen.now + wait
        place_of_rate = 0 if failing is None else rates.index(failing) + 1
        outlook = [0, decision.remaining, decision.reset_after_ms]
        return [decision.allowed, moment, place_of_rate, seen.now, *outlook]

    orphaned = partial(steps.doubt, doubt)
    answer: list[Any] = yield from _run(steps, ask.name, decide, ask.limit, orphaned)
    return answer


def settle_by_policy(
    steps: Steps,
    rates: RateList,
    algorithm: LogAlgorithm,
    item: RateItem,
    *,
    token: int,
    terms: dict[str, Any],
) -> Program[list[Any]]:
    """`Steps.settle` for any policy.

    Returns:
        Verdict, moment, failing rate, now, whether the units have moved.
    """
    patience = terms["patience"]

    def decide(attempt: Attempt, place: Place) -> Program[list[Any] | None]:
        log = _Log(steps, place, item.name, token)
        seen = yield from log.look(attempt, algorithm, rates, terms["now"])
        stamp = next((at for at, _, own in seen.rows if own), None)
        if stamp is None:
            return [True, None, 0, seen.now, False]
        now = max(stamp, seen.now)  # its time has come, whatever the clock says
        moment, failing = now, None
        for _ in range(ROUNDS):
            others = seen.others(rates, algorithm, moment)
            fits, short = others._next_fit(moment, others._total + item.weight, item.weight)
            if fits == moment:
                break
            moment, failing = fits, short
        stays = moment - now <= patience
        number = 0 if stays or failing is None else rates.index(failing) + 1
        goes_to = moment if stays else None
        if moment == stamp or (yield from log.move(attempt, seen, stamp, goes_to)):
            return [stays, moment, number, now, moment != stamp]
        return None

    answer: list[Any] = yield from _run(steps, item.name, decide, max(patience, LEAST_MS))
    return answer


def _run(steps: Steps, name: str, decide: Any, limit: int, orphaned: Any = None) -> Program[Any]:
    """``decide(attempt, place)``, a program, again where it gives None: the log has changed.

    Raises:
        Busy: it went on changing for as long as the caller is willing to wait.
    """
    seconds = seconds_of(limit)
    place = yield from steps.place(seconds)

    def work(attempt: Attempt) -> Program[Any]:
        give_up = attempt.deadline if seconds is None else time.monotonic() + seconds
        while True:
            answer = yield from decide(attempt, place)
            if answer is not None:
                return answer
            if time.monotonic() >= give_up:
                raise silence() if seconds is None else Busy

    def transact(left: float | None) -> Program[Any]:
        return steps.link.transact(work, left, orphaned)

    try:
        return (yield from in_turn(steps.turns(name), seconds, Busy, transact))
    except steps.busy:
        if seconds is None:
            raise
        raise Busy from None


class _Log:
    """What is stored for one item's bucket, in SQL."""

    def __init__(self, steps: Steps, place: Place, name: str, token: int) -> None:
        self._steps, self._place, self._table = steps, place, place.table
        self._name, self._token = name, token
        self._mine = f"AND name = {literal(name)}" if steps.keyed else ""
        self._own = f"token = {token} AND claimed_ms IS NOT NULL"
        self._at = "at_ms"
        if not place.has_columns:
            self._own = "false"
            self._at = "floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint"

    def look(
        self,
        attempt: Attempt,
        algorithm: LogAlgorithm,
        rates: RateList,
        own_time: int | None,
        ask: Ask | None = None,
    ) -> Program[Seen]:
        """What is stored.

        Where it is for somebody who asks, what others have written, and a clock that has stepped
        back, are put right first.
        """
        time_there = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        if ask is not None:
            limits = Limits.of(rates, fixed=False)
            looks = ask._replace(weight=0, store=False, look=False)
            time_there = self._steps.claim_text(self._place, limits, looks)
        link = self._steps.link
        guess = own_time if own_time is not None else link.server_ms(time.monotonic()) or 0
        bound = algorithm.leak_bound(rates, guess - (_GUESS_MS if own_time is None else 0))
        while True:
            live = f"FROM {self._table} WHERE {self._at} >= {bound} {self._mine} GROUP BY 1"
            sent = time.monotonic()
            *_, times, rows, digest = yield from attempt.fetch(
                f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._locks(lock=False)}{time_there}; "
                f"SELECT {self._at}, count(*), count(*) FILTER (WHERE {self._own}) {live} "
                f"ORDER BY 1; {self._digest(bound)}; COMMIT"
            )
            now: Any = own_time
            if ask is not None:
                answer = numbers(times[0][0])
                now = answer[3]
                link.learn(sent, answer[-1])
            elif own_time is None:
                now = int(times[0][0])
            needed = algorithm.leak_bound(rates, now)
            if needed >= bound:
                return Seen(now, bound, rows, digest[0][0])
            bound = needed  # the clock reads less than was thought

    def insert(
        self, attempt: Attempt, seen: Seen, item: RateItem, expires: int | None, limit: int
    ) -> Program[int | None]:
        """Store the item if nothing has changed; returns where it is by now."""
        moment = item.timestamp
        columns, values = (
            "name, weight, item_timestamp",
            f"{literal(item.name)}, {min(item.weight, 32767)}, to_timestamp({moment} / 1000.0)",
        )
        unchanged = self._unchanged(seen)
        earlier = "SELECT NULL"
        if self._place.has_columns:
            columns += ", at_ms, claimed_ms, token, seq"
            claimed = seen.now if moment > seen.now else "NULL"
            values += (
                f", {moment}, {claimed}, {self._token}, g + coalesce((SELECT max(seq) FROM "
                f"{self._table} WHERE seq IS NOT NULL {self._mine}), 0)"
            )
            unchanged += (
                f" AND NOT EXISTS (SELECT FROM {self._table} WHERE seq IS NULL {self._mine})"
            )
            if attempt.again:
                earlier = f"SELECT max(at_ms) FROM {self._table} WHERE token = {self._token}"
        if expires is not None:
            unchanged += f" AND extract(epoch FROM clock_timestamp()) * 1000 <= {expires}"
        *_, there, stored = yield from attempt.fetch(
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._locks(limit)}{earlier}; "
            f"WITH stored AS (INSERT INTO {self._table} ({columns}) SELECT {values} "
            f"FROM generate_series(1, {item.weight}) g WHERE {unchanged} RETURNING 1) "
            f"SELECT count(*) FROM stored; {self._clean(seen, item.weight)}COMMIT"
        )
        if there[0][0] is not None:
            return int(there[0][0])
        return moment if stored[0][0] != "0" else None

    def move(self, attempt: Attempt, seen: Seen, stamp: int, moment: int | None) -> Program[bool]:
        """Move the claim, or take it out, if nothing has changed; returns whether that was so."""
        change = f"DELETE FROM {self._table}"
        if moment is not None:
            change = (
                f"UPDATE {self._table} SET at_ms = {moment}, claimed_ms = {seen.now}, "
                f"item_timestamp = to_timestamp({moment} / 1000.0)"
            )
        mine = literal(self._name) if self._steps.keyed else None
        *_, changed = yield from attempt.fetch(
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._locks()}"
            f"WITH changed AS ({change} WHERE {self._own} AND {self._unchanged(seen)} RETURNING 1) "
            f"SELECT count(*) FROM changed; {renumbering(self._table, stamp, mine)} COMMIT"
        )
        return bool(changed[0][0] != "0")

    def _locks(self, limit: int = 0, *, lock: bool = True) -> str:
        text = "" if seconds_of(limit) is None else f"SET LOCAL lock_timeout = {limit}; "
        if not self._steps.is_durable:
            text += "SET LOCAL synchronous_commit = off; "
        if lock:
            text += (
                f"LOCK TABLE {self._table} IN ROW EXCLUSIVE MODE; "
                f"SELECT pg_advisory_xact_lock({self._steps.lock(self._name)}); "
            )
        return text

    def _clean(self, seen: Seen, weight: int) -> str:
        """Now and then: of what has expired, leave some to look at for a while.

        Of any name, for a name that is never used again has nobody else to clean up after it.
        """
        if self._token % 256 >= weight:
            return ""
        most = 1024 + 2 * weight
        return (
            f"DELETE FROM {self._table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {self._table} "
            f"WHERE {self._at} < {seen.bound} ORDER BY {self._at} DESC OFFSET 1024 LIMIT {most} "
            "FOR UPDATE SKIP LOCKED)); "
        )

    def _digest(self, bound: int) -> str:
        """A number for the live units and their times: what the policy has seen of the log."""
        return (
            "SELECT hashtextextended(coalesce(string_agg(at || '*' || units, ',' ORDER BY at), "
            f"''), 0) FROM (SELECT {self._at} AS at, count(*) AS units FROM {self._table} "
            f"WHERE {self._at} >= {bound} {self._mine} GROUP BY 1) live"
        )

    def _unchanged(self, seen: Seen) -> str:
        return f"({self._digest(seen.bound)}) = {seen.digest}"
