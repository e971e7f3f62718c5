"""What a Postgres bucket answers while its server is away."""

from __future__ import annotations

import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.postgres.ping import Ping, is_there
from pyrate_limiter.buckets.postgres.session import driver
from pyrate_limiter.buckets.remote.circuit import Outage
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter._core.rate_list import RateList
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.buckets.postgres.session import Link

    T = TypeVar("T")


OUTAGE_SECONDS = 0.5
"""Without a connection for so long, it is asked whether the server is there at all."""


_MOST_MADE = 10_000


_SERVER_GONE = re.compile("08...|57P0[123]|25006")  # SQLSTATEs; the last is a stand-by server's


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server is away.

    It is not what the server has answered by itself, such as that a lock could not be had or that a
    password is wrong; nor that a pool is closed, or had no connection for so long although the
    server is there.
    """
    psycopg = driver()
    if not isinstance(error, psycopg.Error) or type(error).__name__ == "PoolClosed":
        return False
    state = error.sqlstate
    if state is not None:
        return _SERVER_GONE.fullmatch(state) is not None
    unanswered = (psycopg.OperationalError, psycopg.InterfaceError)
    return isinstance(error, unanswered) and not is_there(error)


class ElsewhereStamp(int):
    """The timestamp of an item that a fallback bucket has judged."""

    bucket: Any


class Health(Outage):
    """Whether the server that a pool leads to is away: known once for all who use the pool."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where} cannot be reached, nor what else is limited over its pool",
            f"{where} can be reached again",
        )

    @property
    def away(self) -> bool:
        """Whether it was away when it was asked last."""
        return self._pause > 0


def health_of(pool: Any, where: str) -> Health:
    """The health of a pool's server, shared by all who ask.

    Args:
        pool: the pool.
        where: what to call it in the log, if nobody has asked yet.
    """
    try:
        with _lock:
            return _healths.setdefault(pool, Health(where))
    except TypeError:  # a pool that cannot be referred to weakly
        return Health(where)


_healths: weakref.WeakKeyDictionary[Any, Health] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class PostgresOutage:
    """What is answered while the server is away, and who finds out that it is back.

    Args:
        instead: ``"allow"``, ``"deny"``, a bucket of this process, or what makes one from rates.
        link: the way to the server.
        health: what is known of it.

    Raises:
        WrongType: ``instead`` is something else.
    """

    def __init__(self, instead: Any, link: Link, health: Health) -> None:
        known = callable(instead) or (isinstance(instead, str) and instead in {"allow", "deny"})
        if not known and not (isinstance(instead, AbstractBucket) and not instead.is_async):
            expected = "'raise', 'allow', 'deny', a bucket that is not async, or what makes one"
            raise WrongType("on_error", instead, expected)
        self.instead = instead
        self._link = link
        self._health = health
        self._made: dict[str, Any] = {}
        self._probe: Any = None
        link.longest_wait = OUTAGE_SECONDS

    def guard(self, program: Program[T], instead: Callable[[], T]) -> Program[T]:
        """The program's result, or what there is instead while the server is away."""
        if self._health.away:
            if self._health.may_try():
                self._probe_beside()
            return instead()
        try:
            return (yield from program)
        except Exception as error:
            if not is_outage(error):
                raise
            self._health.failed(error)
            return instead()

    def noted(self, error: BaseException) -> bool:
        """Whether the error says that the server is away; then that is known from now on."""
        if not is_outage(error):
            return False
        self._health.failed(error)
        return True

    def _probe_beside(self) -> None:
        """Ask the server again, without a caller who would have to wait for it."""
        if self._link.is_async:
            import asyncio

            self._probe = asyncio.ensure_future(self._link.run(self._ask()))
            return
        probe = threading.Thread(target=lambda: self._link.run(self._ask()), daemon=True)
        try:
            probe.start()
        except RuntimeError:  # no thread is to be had any more
            self._link.run(self._ask())

    def _ask(self) -> Program[None]:
        try:
            yield from self._link.query("SELECT 1", OUTAGE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whoever asks next is told, if it is no outage
            # A pool takes its time until it tries to connect again, and tries a wrong password too.
            if type(error).__name__ == "PoolTimeout":
                away = not (yield Ping(self._link.pool, login=True))
            else:
                away = is_outage(error)
            if away:
                self._health.failed(error)
                return
        self._health.answered()

    def verdict(self, rate: Rate) -> Decision:
        """What there is to say without a bucket that takes the server's place."""
        return ADMITTED if self.instead == "allow" else Decision(rate, self._health.retry_ms())

    def decide(
        self,
        rates: RateList,
        item: Any,
        patience_ms: int,
        buffer_ms: int | None,
        *,
        store: bool,
        keyed: bool,
    ) -> Decision:
        """The verdict on an item in the meantime."""
        if isinstance(self.instead, str):
            return self.verdict(rates[0])
        bucket = self._bucket(rates, item.name if keyed else "")
        item.timestamp = bucket.now()
        if not store:
            return bucket.check(item)  # type: ignore[no-any-return]
        decision: Decision = bucket.claim(item, patience_ms, buffer_ms)
        item.timestamp = ElsewhereStamp(item.timestamp)
        item.timestamp.bucket = bucket
        return decision

    def _bucket(self, rates: RateList, key: str) -> Any:
        if isinstance(self.instead, AbstractBucket):
            return self.instead
        bucket = self._made.get(key)
        if bucket is None:
            if len(self._made) >= _MOST_MADE:
                self._made = {}
            bucket = self._made.setdefault(key, self.instead(list(rates)))
        return bucket
