"""A bucket's table, and what is asked of it as a whole."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.postgres.fair_lock import FairLock
from pyrate_limiter.buckets.postgres.functions import STORED_MS
from pyrate_limiter.buckets.postgres.literals import CLOCK, literal, lock_key
from pyrate_limiter.buckets.postgres.lookback import NO_NOTE, Lookback, furthest
from pyrate_limiter.buckets.postgres.schema import as_the_server_cuts, find_or_make

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.literals import Limits
    from pyrate_limiter.buckets.postgres.protocols import Row
    from pyrate_limiter.buckets.postgres.schema import Layout
    from pyrate_limiter.buckets.postgres.session import Session

_MOST_AT_ONCE = 5000  # acquisitions that one statement deletes
_UNITS = "units > 0 OR (units IS NULL AND at_ms IS NULL)"  # of ours, and of 4.5.1


class Table:
    """Finds the table, or makes it.

    Args:
        session: the way to the server.
        name: the table's name without its schema.
        keyed: whether each name is limited by itself.
        limits: what limits the bucket.
    """

    def __init__(self, session: Session, name: str, limits: Limits, *, keyed: bool) -> None:
        self.session = session
        self.look_back(limits)
        self.name: str = as_the_server_cuts(name)
        self.keyed = keyed
        self._layout: Layout | None = None
        self._setup = FairLock()
        self._key = ""  # the lock of the whole

    def look_back(self, limits: Limits) -> None:
        """From now on it looks as far back as these limits do."""
        self.limits: Limits = limits
        self.lookback: Lookback = Lookback(limits)

    def layout(self, seconds: float | None = None) -> Program[Layout]:
        """Where the units are; made if it is not there, see `find_or_make`."""
        if self._layout is not None:
            return self._layout
        return (yield from self.session.in_turn(self._setup, seconds, self._find))

    def _find(self, seconds: float | None) -> Program[Layout]:
        if self._layout is None:  # nobody before has found it
            layout = yield from find_or_make(self.session, self.name, self.keyed, seconds)
            self._key = lock_key(layout.table)
            self._layout = layout
        return self._layout

    def note_lookback(self, seconds: float | None = None) -> Program[float | None]:
        """Note how far back the bucket looks, if it is time to; returns the seconds left."""
        began = time.monotonic()
        if began < self.lookback.due:
            return seconds
        layout = yield from self.layout(seconds)
        yield from self.lookback.note(self.session, layout.table, layout.columns, seconds)
        return None if seconds is None else max(0.001, began + seconds - time.monotonic())

    def count(self) -> Program[int]:
        """Stored units."""
        layout = yield from self.layout()
        _, units, live, _ = self._rows(layout)
        text = f"SELECT coalesce(sum({units}), 0) FROM {layout.table} WHERE {live}"
        return int((yield from self.session.query(text))[0])

    def flush(self) -> Program[None]:
        """Delete all units."""
        layout = yield from self.layout()
        yield from self.session.query(f"DELETE FROM {layout.table} WHERE {NO_NOTE}")

    def peek(self, index: int) -> Program[Row]:
        """Name and ms of a unit, or nothing. What 4.5.1 wrote since the last step is newest."""
        layout = yield from self.layout()
        at, units, live, order = self._rows(layout)
        return (
            yield from self.session.query(
                f"SELECT name, at FROM (SELECT name, {at} AS at, "
                f"sum({units}) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS upto "
                f"FROM {layout.table} WHERE {live}) newest "
                f"WHERE upto > {index} ORDER BY upto LIMIT 1"
            )
        )

    def _rows(self, layout: Layout) -> tuple[str, str, str, str]:
        """Of a row: its moment, its units, whether it has any; and which comes first."""
        if not layout.has_columns:
            return STORED_MS, "1", NO_NOTE, "item_timestamp DESC, ctid DESC"
        order = f"{'at_ms DESC,' if self.keyed else ''} seq DESC, item_timestamp DESC"
        return f"coalesce(at_ms, {STORED_MS})", "coalesce(units, 1)", _UNITS, order

    def leak(self, now: int | None, kept: int) -> Program[int]:
        """Delete the units from before the last ``kept`` ms, but those that others still count.

        ``now`` is the end of those ms; None is the server's time.
        """
        yield from self.note_lookback()
        layout = yield from self.layout()
        others_count = furthest(layout.table, beyond=self.lookback.known_ms)
        ms = f"({CLOCK if now is None else now}::bigint - greatest({kept}, {others_count}))"
        old = f"item_timestamp < to_timestamp({ms} / 1000.0) AND {NO_NOTE}"
        returned, others = "1 AS units", ""
        if layout.has_columns:
            old = f"(at_ms < {ms} AND units > 0) OR (units IS NULL AND {old})"
            units = f"CASE WHEN {_UNITS} THEN coalesce(units, 1) ELSE 0 END"
            returned = f"{units} AS units, item_timestamp, token"
            others = (
                f", others AS (DELETE FROM {layout.table} other USING gone WHERE gone.units > 1 "
                "AND other.item_timestamp = gone.item_timestamp AND other.token = gone.token "
                "AND other.units = 0)"
            )
        text = (
            f"WITH gone AS (DELETE FROM {layout.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
            f"{layout.table} WHERE {old} LIMIT {_MOST_AT_ONCE})) RETURNING {returned}){others} "
            "SELECT count(*), coalesce(sum(units), 0) FROM gone"
        )
        leaked = 0
        while True:
            rows, gone = map(int, (yield from self.session.query(text)))
            leaked += gone
            if rows < _MOST_AT_ONCE:
                return leaked

    def _cancel_rows(self, name: str, weight: int, moment: int) -> Program[int]:
        """Take units out of a table that has only the columns of 4.5.1."""
        layout = yield from self.layout()
        row = yield from self.session.query(
            f"WITH gone AS (DELETE FROM {layout.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
            f"{layout.table} WHERE name = {literal(name)} AND item_timestamp = "
            f"to_timestamp({moment} / 1000.0) LIMIT {int(weight)})) RETURNING 1) "
            "SELECT count(*) FROM gone"
        )
        return int(row[0])
