"""The time, as a PostgreSQL server has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter.buckets.postgres.literals import CLOCK
from pyrate_limiter.buckets.postgres.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.protocols import Pool


class PostgresClock(AbstractClock):
    """Milliseconds since the Unix epoch, as the database server's clock has it.

    Where the query fails, that is logged and this machine's own time is given.

    Args:
        pool: a ``psycopg_pool.ConnectionPool``; an ``AsyncConnectionPool`` makes `now` awaitable.
    """

    __module__ = "pyrate_limiter.clocks"

    __slots__ = ("_session", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool: Pool = pool
        self._session = Session(pool)

    def now(self) -> int | Awaitable[int]:
        return self._session.run(self._read())

    def _read(self) -> Program[int]:
        try:
            row = yield from self._session.query(f"SELECT {CLOCK}")
            return int(row[0])
        except Exception:
            import logging

            logging.getLogger("pyrate_limiter").exception(
                "the Postgres server's clock cannot be read, using this machine's"
            )
            return self._get_wall_ms()
