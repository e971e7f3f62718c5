"""The steps that a bucket takes in Postgres, each one round trip."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.postgres_link import Link, driver, literal, numbers
from pyrate_limiter.buckets.postgres_setup import anonymous, find_or_make

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.buckets.postgres_setup import Place
    from pyrate_limiter.utils import RateList

_LONGEST_LOCK_MS = (1 << 31) - 1


class Busy(Exception):
    """The lock could not be had within the caller's time."""


class Steps:
    """What a bucket asks of its table.

    Args:
        link: the way to the server.
        name: the table's name without its schema.
        keyed: whether each name is limited by itself.
        durable: whether a commit waits for the disk.
    """

    longest_wait: float | None = None
    """Seconds to wait for a connection at the most; None is as long as the pool says."""

    def __init__(self, link: Link, name: str, *, keyed: bool, durable: bool) -> None:
        self.link = link
        self.name = name
        self.keyed = keyed
        self.is_durable = durable
        self._durable = "true" if durable else "false"
        self._place: Place | None = None
        self._begins = False
        self._lock = ""
        errors = driver().errors
        self._busy = errors.LockNotAvailable

    def place(self) -> Program[Place]:
        """Where the units are; made if it is not there."""
        place = self._place
        if place is None:
            place = yield from find_or_make(self.link, self.name, self.keyed)
            self._lock = lock_key(place.table)
            self._place = place
        return place

    def lock(self, name: str) -> str:
        """The advisory lock of the bucket, or of one name of it."""
        return lock_key(self._lock, name) if self.keyed else self._lock

    def _common(self, name: str, weight: int, token: int | None) -> list[str]:
        return [self.lock(name), self._durable, literal(name), str(weight), number(token)]

    def claim(
        self,
        rates: RateList,
        name: str,
        weight: int,
        token: int,
        *,
        patience: int = 0,
        **terms: Any,
    ) -> Program[list[Any]]:
        """See ``sql/postgres_claim.sql``; the terms are those of `claim_text`.

        Raises:
            Busy: the lock could not be had within ``patience`` ms.
        """
        place = self._place or (yield from self.place())
        timed = 0 < patience <= _LONGEST_LOCK_MS

        def text(again: bool) -> str:
            return self.claim_text(
                place, rates, name, weight, token, patience=patience, again=again, **terms
            )

        try:
            seconds = self._seconds(patience / 1000 if timed else None)
            return (yield from self._call(text, seconds))
        except self._busy:
            if not timed:
                raise
            raise Busy from None

    def claim_text(
        self,
        place: Place,
        rates: RateList,
        name: str,
        weight: int,
        token: int,
        *,
        now: int | None,
        clock: int | None,
        patience: int,
        buffer: int | None,
        store: bool,
        look: bool,
        pads: str,
        again: bool = False,
    ) -> str:
        """The statement of `claim`.

        Args:
            place: where the units are.
            rates: the limits.
            name: the item's name.
            weight: the item's units.
            token: marks them.
            now: when they are asked for, in ms; None is the server's time.
            clock: the reading of another clock than the server's.
            patience: ms that the caller is willing to wait.
            buffer: ms after the earliest moment; None is the failing rate's of ``pads``.
            store: whether to store anything.
            look: whether to count what remains.
            pads: for each rate, in SQL.
            again: whether an earlier try may have stored them.
        """
        timed = 0 < patience <= _LONGEST_LOCK_MS
        arguments = [
            *self._common(name, weight, token),
            *arrays(rates),
            pads,
            number(now),
            number(clock),
            str(patience),
            number(buffer),
            "true" if store else "false",
            "true" if look else "false",
            "true" if again else "false",
            str(patience if timed else 0),
        ]
        return self._text(place, "claim" if place.has_columns else "plain", arguments)

    def settle(
        self,
        rates: RateList,
        name: str,
        weight: int,
        token: int,
        *,
        now: int | None,
        slack: int,
        patience: int,
    ) -> Program[list[Any]]:
        """See ``sql/postgres_settle.sql``."""
        place = yield from self.place()
        arguments = [
            *self._common(name, weight, token),
            *arrays(rates),
            number(now),
            str(slack),
            str(patience),
        ]
        return (yield from self._call(lambda _: self._text(place, "settle", arguments)))

    def release(self, name: str, weight: int, token: int | None, moment: int) -> Program[bool]:
        """See ``sql/postgres_release.sql``."""
        place = yield from self.place()
        if not place.has_columns:
            row = yield from self.link.query(
                f"WITH gone AS (DELETE FROM {place.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
                f"{place.table} WHERE name = {literal(name)} AND item_timestamp = "
                f"to_timestamp({moment} / 1000.0) LIMIT {weight})) RETURNING 1) "
                "SELECT count(*) FROM gone"
            )
            return bool(row[0] != "0")
        arguments = [*self._common(name, weight, token), str(moment)]
        answer = yield from self._call(lambda _: self._text(place, "release", arguments))
        return bool(answer[0])

    def _seconds(self, seconds: float | None) -> float | None:
        bound = self.longest_wait
        return bound if seconds is None else seconds if bound is None else min(seconds, bound)

    def _call(self, text: Any, seconds: float | None = None) -> Program[list[Any]]:
        answer = numbers((yield from self.link.query(text, seconds))[0])
        if answer[0] == -1:  # the database's default isolation does not see what a lock waits for
            self._begins = True
            answer = numbers((yield from self.link.query(text, seconds))[0])
        return answer

    def _text(self, place: Place, step: str, arguments: Sequence[str]) -> str:
        if not place.functions:
            return anonymous(step, place.table, self.keyed) % tuple(arguments)
        text = f"SELECT {place.functions[step]}({', '.join(arguments)})"
        return f"BEGIN ISOLATION LEVEL READ COMMITTED; {text}; COMMIT" if self._begins else text

    def count(self) -> Program[int]:
        """Stored units."""
        place = yield from self.place()
        return int((yield from self.link.query(f"SELECT count(*) FROM {place.table}"))[0])

    def flush(self) -> Program[None]:
        """Delete all units."""
        place = yield from self.place()
        yield from self.link.query(f"DELETE FROM {place.table}")

    def peek(self, index: int) -> Program[Any]:
        """Name and ms of a unit, or None. What 4.5.1 wrote since the last step is newest."""
        place = yield from self.place()
        stored = "floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint"
        order = "item_timestamp DESC"
        if place.has_columns:
            stored = f"coalesce(at_ms, {stored})"
            order = f"{'at_ms DESC,' if self.keyed else ''} seq DESC, item_timestamp DESC"
        return (
            yield from self.link.query(
                f"SELECT name, {stored} FROM {place.table} ORDER BY {order} OFFSET {index} LIMIT 1"
            )
        )

    def leak(self, bound: int | None, longest: int) -> Program[int]:
        """Delete the units before ``bound`` ms; None is ``longest`` ms before the server's time."""
        place = yield from self.place()
        if bound is None:
            ms = f"(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - {longest})"
        else:
            ms = f"{bound}::bigint"
        old = f"item_timestamp < to_timestamp({ms} / 1000.0)"
        if place.has_columns:
            old = f"at_ms < {ms} OR (at_ms IS NULL AND {old})"
        row = yield from self.link.query(
            f"WITH gone AS (DELETE FROM {place.table} WHERE {old} RETURNING 1) "
            "SELECT count(*) FROM gone"
        )
        return int(row[0])


def lock_key(table: str, name: str | None = None) -> str:
    """The advisory lock of a bucket, which is 64 bits of a hash."""
    whole = table if name is None else f"{table}\0{name}"
    digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return str(int.from_bytes(digest, "big", signed=True))


def number(value: int | None) -> str:
    """A number in SQL."""
    return "NULL" if value is None else str(int(value))


def arrays(rates: RateList) -> tuple[str, str]:
    """Limits and intervals in SQL."""
    return array([rate.limit for rate in rates]), array([rate.interval for rate in rates])


def array(numbers: Sequence[int]) -> str:
    """Numbers in SQL."""
    return "'{" + ",".join(map(str, numbers)) + "}'"
