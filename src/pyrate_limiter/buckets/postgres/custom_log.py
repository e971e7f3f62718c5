"""The log for a user's own policy: handed out whole, and changed if nobody has meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.buckets.postgres.functions import MOST_ROWS, renumbering
from pyrate_limiter.buckets.postgres.holds import look
from pyrate_limiter.buckets.postgres.literals import Limits, literal, numbers
from pyrate_limiter.buckets.postgres.lookback import NO_NOTE, furthest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.rate import RateItem
    from pyrate_limiter.buckets.postgres.schema import Layout
    from pyrate_limiter.buckets.postgres.session import Attempt
    from pyrate_limiter.buckets.postgres.statements import Ask, Steps

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

    def _empty(self, rates: RateList, algorithm: LogAlgorithm) -> InMemoryBucket:
        bucket = InMemoryBucket(rates, algorithm)
        bucket._clock = _Still(self.now)
        return bucket

    def log(self, rates: RateList, algorithm: LogAlgorithm) -> InMemoryBucket:
        """All of it in memory."""
        bucket = self._empty(rates, algorithm)
        for at, units, _ in self.rows:
            bucket._append("", units, at)
        bucket._latest = self.now
        bucket._hold = self.hold
        return bucket

    def others(self, rates: RateList, algorithm: LogAlgorithm, upto: int) -> InMemoryBucket:
        """What others have stored, as far as a moment."""
        bucket = self._empty(rates, algorithm)
        for at, units, own in self.rows:
            if at <= upto and units > own:
                bucket._append("", units - own, at)
        return bucket


class PolicyLog:
    """What is stored for one item's bucket, in SQL."""

    def __init__(self, steps: Steps, layout: Layout, name: str, token: int) -> None:
        self._steps, self._layout, self._table = steps, layout, layout.table
        self._name, self._token = name, token
        self._own = f"token = {token} AND claimed_ms IS NOT NULL"
        self._at, self._units, self._mine = "at_ms", "sum(units)", "AND units > 0"
        if not layout.has_columns:
            self._own = "false"
            self._at = "floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint"
            self._units, self._mine = "count(*)", f"AND {NO_NOTE}"
        if steps.keyed and layout.has_columns:
            self._mine += f" AND key = {steps.lock(name)}"
        elif steps.keyed:
            self._mine += f" AND name = {literal(name)}"

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
            time_there = self._steps.reserve_text(attempt, limits, looks)
        session = self._steps.session
        held = "SELECT WHERE false"
        if self._layout.has_columns:
            held = look(self._steps, self._table, self._name)
        guess = own_time if own_time is not None else session.server_ms(time.monotonic()) or 0
        bound = algorithm.leak_bound(rates, guess - (_GUESS_MS if own_time is None else 0))
        while True:
            live = f"FROM {self._table} WHERE {self._at} >= {bound} {self._mine} GROUP BY 1"
            own = f"coalesce({self._units} FILTER (WHERE {self._own}), 0)"
            sent = time.monotonic()
            *_, times, hold, rows, digest = yield from attempt.fetch(
                f"{self._begin(attempt, lock=False)}{time_there}; {held}; "
                f"SELECT {self._at}, {self._units}, {own} {live} "
                f"ORDER BY 1; {self._digest(bound)}; COMMIT"
            )
            now: Any = own_time
            if ask is not None:
                answer = numbers(times[0][0])
                now = answer[3]
                session.learn(sent, answer[-1])
            elif own_time is None:
                now = int(times[0][0])
            needed = algorithm.leak_bound(rates, now)
            if needed >= bound:
                return Seen(now, bound, hold, rows, digest[0][0])
            bound = needed  # the clock reads less than was thought

    def insert(
        self, attempt: Attempt, seen: Seen, item: RateItem, expires: int | None
    ) -> Program[int | None]:
        """Store the item if nothing has changed; returns where it is by now."""
        moment, table = item.timestamp, self._table
        columns = "name, weight, item_timestamp"
        time_of_unit = f"to_timestamp({moment} / 1000.0)"
        value = f"{literal(item.name)}, {min(item.weight, 32767)}, {time_of_unit}"
        unchanged, earlier, others = self._unchanged(seen, moment), "SELECT NULL", ""
        count = item.weight
        if self._layout.has_columns:
            key = self._steps.lock(self._name) if self._steps.keyed else "NULL"
            reserved = seen.now if moment > seen.now else "NULL"
            others = (
                f", others AS (INSERT INTO {table} ({columns}, units, token, key) "
                f"SELECT {value}, 0, {self._token}, {key} "
                f"FROM stored, generate_series(2, {min(item.weight, MOST_ROWS)}))"
            )
            columns += ", at_ms, units, claimed_ms, token, key, seq"
            value += (
                f", {moment}, {item.weight}, {reserved}, {self._token}, {key}, coalesce((SELECT "
                f"seq + units FROM {table} WHERE units IS DISTINCT FROM 0 AND seq IS NOT NULL "
                f"{self._mine} ORDER BY seq DESC LIMIT 1), 1)"
            )
            count = 1
            if not self._steps.keyed:
                unchanged += (
                    f" AND NOT EXISTS (SELECT FROM {table} WHERE seq IS NULL "
                    "AND units IS DISTINCT FROM 0 AND at_ms IS NULL)"
                )
            if attempt.again:
                earlier = (
                    f"SELECT max(at_ms) FROM {table} WHERE at_ms >= {seen.bound} {self._mine} "
                    f"AND token = {self._token}"
                )
        if expires is not None:
            unchanged += f" AND extract(epoch FROM clock_timestamp()) * 1000 <= {expires}"
        *_, there, stored = yield from attempt.fetch(
            f"{self._begin(attempt)}{earlier}; "
            f"WITH stored AS (INSERT INTO {table} ({columns}) SELECT {value} "
            f"FROM generate_series(1, {count}) WHERE {unchanged} RETURNING 1){others} "
            f"SELECT count(*) FROM stored; {self._between(seen, moment)}"
            f"{self._clean(seen, item.weight)}COMMIT"
        )
        if there[0][0] is not None:
            return int(there[0][0])
        return moment if stored[0][0] != "0" else None

    def _between(self, seen: Seen, moment: int) -> str:
        """Number those who are stored for later anew."""
        later = self._layout.has_columns and any(at > moment for at, *_ in seen.rows)
        return f"{renumbering(self._table, moment, self._mine)} " if later else ""

    def move(
        self, attempt: Attempt, seen: Seen, stamp: int, now: int, moment: int | None
    ) -> Program[bool]:
        """Move the reservation or take it out if nothing has changed; returns whether that was so.

        ``now`` is when its waiter woke, by the clock that ``stamp`` is of.
        """
        table, time_of_unit = self._table, f"to_timestamp({moment} / 1000.0)"
        change = others = f"DELETE FROM {table}"
        if moment is not None:
            others = f"UPDATE {table} SET item_timestamp = {time_of_unit}"
            change = f"{others}, at_ms = {moment}, claimed_ms = {now}"
        *_, changed = yield from attempt.fetch(
            f"{self._begin(attempt)}WITH mine AS (SELECT item_timestamp FROM {table} "
            f"WHERE {self._own} AND {self._unchanged(seen, moment)}), "
            f"changed AS ({change} WHERE {self._own} AND EXISTS (SELECT FROM mine) RETURNING 1), "
            f"others AS ({others} WHERE token = {self._token} AND units = 0 "
            "AND item_timestamp IN (SELECT item_timestamp FROM mine)) "
            f"SELECT count(*) FROM changed; {renumbering(table, stamp, self._mine)} COMMIT"
        )
        return bool(changed[0][0] != "0")

    def _begin(self, attempt: Attempt, *, lock: bool = True) -> str:
        text = f"BEGIN ISOLATION LEVEL READ COMMITTED; {attempt.bounds()}"
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
        table = self._table
        old = f"{self._at} < least({seen.bound}, {seen.now} - {furthest(table)})"
        if not self._layout.has_columns:
            return (
                f"DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {old} "
                f"AND {NO_NOTE} ORDER BY {self._at} DESC OFFSET 1024 LIMIT {1024 + 2 * weight})); "
            )
        if not self._steps.keyed:
            old += (
                f" AND seq < (SELECT seq FROM {table} WHERE {old} AND units > 0 "
                "ORDER BY at_ms DESC, seq DESC LIMIT 1) - 1024"
            )
        return (
            f"WITH old AS (SELECT ctid, item_timestamp, token FROM {table} WHERE {old} "
            f"AND units > 0 ORDER BY at_ms LIMIT 1024 FOR UPDATE SKIP LOCKED), "
            f"others AS (DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT other.ctid FROM old "
            f"JOIN {table} other USING (item_timestamp, token) WHERE other.units = 0))) "
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)); "
        )

    def _digest(self, bound: int) -> str:
        """A number for the live units and their times: what the policy has seen of the log."""
        return (
            "SELECT hashtextextended(coalesce(string_agg(at || '*' || units, ',' ORDER BY at), "
            f"''), 0) FROM (SELECT {self._at} AS at, {self._units} AS units FROM {self._table} "
            f"WHERE {self._at} >= {bound} {self._mine} GROUP BY 1) live"
        )

    def _unchanged(self, seen: Seen, moment: int | None) -> str:
        text = f"({self._digest(seen.bound)}) = {seen.digest}"
        if moment is None or not self._layout.has_columns:
            return text
        held = look(self._steps, self._table, self._name)
        return f"{text} AND NOT EXISTS ({held} AND at_ms > {moment})"
