"""A user's own policy over the log in Postgres: it runs here, while the server holds the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.rate import RateItem
from pyrate_limiter.buckets.in_memory_bucket import InMemoryBucket
from pyrate_limiter.buckets.postgres_link import literal, numbers

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.buckets.postgres_setup import Place
    from pyrate_limiter.buckets.postgres_steps import Steps
    from pyrate_limiter.utils import RateList


def claim_by_policy(
    steps: Steps,
    rates: RateList,
    algorithm: LogAlgorithm,
    item: RateItem,
    *,
    token: int,
    terms: dict[str, Any],
) -> Program[list[Any]]:
    """`Steps.claim` for any policy: the live units are loaded and judged as those in memory are."""
    place = yield from steps.place()
    name, weight = item.name, item.weight

    def work(connection: Any, _again: bool) -> Program[list[Any]]:
        fetch = steps.link.fetch
        yield from fetch(connection, "BEGIN ISOLATION LEVEL READ COMMITTED")
        # A look at nothing takes the lock, the time, and in what others have written.
        looks = {**terms, "store": False}
        text = steps.claim_text(place, rates, name, 0, token, look=False, **looks)
        if not place.functions:
            text = text.replace("BEGIN ISOLATION LEVEL READ COMMITTED; ", "").replace(
                "; COMMIT", ""
            )
        now = numbers((yield from fetch(connection, text))[0])[3]
        rows = yield from fetch(
            connection,
            _live_units(place, steps.keyed, name, algorithm.leak_bound(rates, now)),
            rows=True,
        )
        bucket = InMemoryBucket(rates, algorithm)
        for stamp, units in rows or ():
            bucket._append(name, int(units), int(stamp))
        bucket._latest = now
        judged = RateItem(name, now, weight)
        if not terms["store"]:
            decision = bucket.check(judged)
        else:
            patience = terms["patience"] if place.has_columns else 0
            decision = bucket.claim(judged, patience, terms["buffer"])
            if decision.allowed:
                yield from fetch(connection, _insert(place, steps, judged, now, token))
        yield from fetch(connection, "COMMIT")
        failing = decision.failing_rate
        retry = decision.retry_after_ms or 0
        return [
            decision.allowed,
            now + decision.wait_ms + retry,
            0 if failing is None else rates.index(failing) + 1,
            now,
            0,
            decision.remaining,
            None,
            decision.reset_after_ms,
        ]

    answer: list[Any] = yield from steps.link.transact(work)
    return answer


def _mine(keyed: bool, name: str) -> str:
    return f"AND name = {literal(name)}" if keyed else ""


def _live_units(place: Place, keyed: bool, name: str, bound: int) -> str:
    stored = "at_ms"
    if not place.has_columns:
        stored = "floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint"
    return (
        f"SELECT {stored}, count(*) FROM {place.table} "
        f"WHERE {stored} >= {bound} {_mine(keyed, name)} GROUP BY 1 ORDER BY 1"
    )


def _insert(place: Place, steps: Steps, item: RateItem, now: int, token: int) -> str:
    name, weight, moment = item.name, item.weight, item.timestamp
    durable = "" if steps.is_durable else "SET LOCAL synchronous_commit = off; "
    columns, values = (
        "name, weight, item_timestamp",
        (f"{literal(name)}, {min(weight, 32767)}, to_timestamp({moment} / 1000.0)"),
    )
    if place.has_columns:
        columns += ", at_ms, claimed_ms, token, seq"
        claimed = now if moment > now else "NULL"
        values += (
            f", {moment}, {claimed}, {token}, g + coalesce((SELECT max(seq) FROM {place.table} "
            f"WHERE seq IS NOT NULL {_mine(steps.keyed, name)}), 0)"
        )
    return (
        f"{durable}INSERT INTO {place.table} ({columns}) "
        f"SELECT {values} FROM generate_series(1, {weight}) g"
    )
