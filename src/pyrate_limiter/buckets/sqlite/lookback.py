"""How far back the programs on a table of SQLite look; see `lookback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.validation import BEGINNING
from pyrate_limiter.buckets.log.lookback import AGAIN_MS, FRESH_MS, STANDS_MS, looks_back_ms

if TYPE_CHECKING:
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.buckets.sqlite.database import Database
    from pyrate_limiter.buckets.sqlite.statements import Statements


class Lookback:
    """What one configuration notes of itself, and has to know of others. Within transactions.

    Attributes:
        due: when it is to be noted next, in ms of the log's time.
    """

    __slots__ = ("_db", "_sql", "due")

    def __init__(self, db: Database, sql: Statements) -> None:
        self._db, self._sql = db, sql
        self.due: int = BEGINNING

    def note(self, now: int, algorithm: LogAlgorithm, rates: RateList) -> None:
        """Note it where that is due, unless somebody with the same has done so just now."""
        if now < self.due:
            return
        self.due = now + AGAIN_MS
        back = looks_back_ms(algorithm, rates)
        noted = self._db.run(self._sql.lookback, (back,)).fetchone()
        if noted is None or noted[0] < now + back + FRESH_MS:
            self._db.run(self._sql.set_lookback, (back, now + back + STANDS_MS))
            self._db.run(self._sql.drop_old_lookbacks, (now,))

    def bound(self, now: int, bound: int, algorithm: LogAlgorithm, rates: RateList) -> int:
        """The oldest timestamp that still matters; before ``bound``, if somebody counts more."""
        self.note(now, algorithm, rates)
        back = looks_back_ms(algorithm, rates)
        beyond = back if back <= rates.longest_ms else 0  # else it is an estimate
        furthest = self._db.run(self._sql.furthest, (beyond, now)).fetchone()[0]
        return bound if furthest is None else min(bound, now - furthest)
