"""How far back the programs on a table of Postgres look; see `lookback`.

Each notes it in a row of the table itself, for its role may be allowed nothing else. The columns of
4.5.1 suffice for that: the row has a time before that of any unit, the weight 0, and its name says
the rest. So neither we nor 4.5.1 count it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.log.lookback import AGAIN_MS, FRESH_MS, STANDS_MS, looks_back_ms
from pyrate_limiter.buckets.postgres.exchange import driver
from pyrate_limiter.buckets.postgres.literals import CLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.literals import Limits
    from pyrate_limiter.buckets.postgres.session import Session

_MOMENT = "'1000-01-01'::timestamp"
NO_NOTE = f"item_timestamp IS DISTINCT FROM {_MOMENT}"
"""The condition that passes notes by."""
_NOTE = (
    f"item_timestamp = {_MOMENT} "
    "AND name ~ '^pyrate_limiter looks back [0-9]{1,18} ms until [0-9]{1,18}$'"
)
_BACK, _UNTIL = (f"split_part(name, ' ', {word})::bigint" for word in (4, 7))
_SOON_SECONDS = 1.0


def furthest(table: str, now: str = CLOCK, beyond: int = 0) -> str:
    """SQL for how many ms somebody looks back; NULL where nobody looks ``beyond`` so many."""
    looks = f"max(CASE WHEN {_UNTIL} > {now} AND {_BACK} > {beyond} THEN {_BACK} END)"
    return f"(SELECT {looks} FROM {table} WHERE {_NOTE})"


class Lookback:
    """What one bucket notes of itself: how far back it looks with these limits.

    Attributes:
        limits: what limits it.
        due: when it is to be noted next, on the clock of ``time.monotonic``.
    """

    __slots__ = ("due", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits: Limits = limits
        self.due: float = 0.0

    @property
    def known_ms(self) -> int:
        """How many ms it notes; 0 where that is an estimate."""
        back = self._back_ms()
        return back if back <= self.limits.rates.longest_ms else 0

    def _back_ms(self) -> int:
        return looks_back_ms(self.limits.algorithm, self.limits.rates)

    def note(
        self, session: Session, table: str, columns: Sequence[str], seconds: float | None
    ) -> Program[None]:
        """Note it, unless somebody with the same has done so just now.

        ``columns`` are those that the table has besides those of 4.5.1.
        """
        self.due = time.monotonic() + AGAIN_MS / 1000  # others need not
        try:
            yield from session.query(self._text(table, columns), seconds)
        except (*session.timeouts, *session.conflicts):
            self.due = time.monotonic() + _SOON_SECONDS
        except BaseException as error:
            away = isinstance(error, session.lost)
            if away or not isinstance(error, driver().Error):
                self.due = 0.0
                raise
            # The server refuses it; what a caller needs to know of that, his own step will tell.

    def _text(self, table: str, there: Sequence[str]) -> str:
        back = self._back_ms()
        columns, values = "name, weight, item_timestamp", f"0, {_MOMENT}"
        if "units" in there:
            columns, values = f"{columns}, units", f"{values}, 0"
        return (
            f"SET LOCAL synchronous_commit = off; WITH now AS MATERIALIZED (SELECT {CLOCK} AS ms),"
            f" noted AS MATERIALIZED (SELECT ctid AS place, {_BACK} AS back, {_UNTIL} AS until "
            f"FROM {table} WHERE {_NOTE}), gone AS (DELETE FROM {table} WHERE ctid IN ("
            f"SELECT place FROM noted, now WHERE until < ms OR (back = {back} AND "
            f"until < ms + {back + FRESH_MS}))) INSERT INTO {table} ({columns}) "
            f"SELECT 'pyrate_limiter looks back {back} ms until ' || ms + {back + STANDS_MS}, "
            f"{values} FROM now WHERE NOT EXISTS (SELECT FROM noted "
            f"WHERE back = {back} AND until >= ms + {back + FRESH_MS})"
        )
