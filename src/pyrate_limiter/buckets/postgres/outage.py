"""Outages of Postgres."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.postgres.exchange import driver
from pyrate_limiter.buckets.postgres.ping import Ping, is_there
from pyrate_limiter.buckets.postgres.session import is_of_pool
from pyrate_limiter.buckets.remote.circuit import CircuitBreaker, breaker_of
from pyrate_limiter.buckets.remote.outage import Outage

if TYPE_CHECKING:
    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.postgres.session import Session
    from pyrate_limiter.buckets.remote.fallback import OnError

OUTAGE_SECONDS = 0.5
"""Without a connection for so long, it is asked whether the server is there at all."""

_SERVER_GONE = re.compile("08...|57P0[123]|25006")  # SQLSTATEs; the last is a stand-by server's


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server is away.

    It is not what the server has answered by itself, such as that a lock could not be had or that a
    password is wrong; nor that a pool is closed, or had no connection for so long although the
    server is there.
    """
    psycopg = driver()
    if not isinstance(error, psycopg.Error) or is_of_pool(error, "PoolClosed"):
        return False
    state = error.sqlstate
    if state is not None:
        return _SERVER_GONE.fullmatch(state) is not None
    unanswered = (psycopg.OperationalError, psycopg.InterfaceError)
    return isinstance(error, unanswered) and not is_there(error)


def breaker_of_pool(pool: object, where: str) -> CircuitBreaker:
    """The circuit breaker of a pool, shared by all who ask.

    Args:
        pool: the pool.
        where: what to call its server in the log, if nobody has asked yet.
    """
    away = f"{where} cannot be reached, nor what else is limited over its pool"
    return breaker_of(pool, lambda: CircuitBreaker(away, f"{where} can be reached again"))


class PostgresOutage(Outage):
    """What is done while the server is away, and who finds out that it is back.

    Args:
        on_error: what to do, see `Outage`.
        session: the way to the server.
        breaker: what is known of it.
        buckets: whether a bucket may take its place.
    """

    def __init__(
        self, on_error: OnError, session: Session, breaker: CircuitBreaker, *, buckets: bool = True
    ) -> None:
        super().__init__(on_error, breaker, is_async=session.is_async, buckets=buckets)
        self._session = session
        if not self.raises:
            session.longest_wait = OUTAGE_SECONDS

    def covers(self, error: BaseException) -> bool:
        """Whether this says that the server is away."""
        return is_outage(error)

    def probe(self, key: str) -> Program[None]:
        """Ask for a connection, and with it for an answer."""
        del key
        try:
            yield from self._session.query("SELECT 1", OUTAGE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whoever asks next is told, if it is no outage
            # A pool takes its time until it tries to connect again, and tries a wrong password too.
            if is_of_pool(error, "PoolTimeout"):
                away = not (yield Ping(self._session.pool, login=True))
            else:
                away = is_outage(error)
            if away:
                self.breaker.failed(error)
                return
        self.breaker.answered()
