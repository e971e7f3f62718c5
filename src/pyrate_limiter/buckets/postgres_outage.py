"""What a Postgres bucket answers while its server is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.outage import Outage
from pyrate_limiter.buckets.postgres_link import driver
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.abstracts.programs import Program
    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.utils import RateList

    T = TypeVar("T")


OUTAGE_SECONDS = 1.0
"""Without a connection for so long, `on_error` decides."""


_MOST_MADE = 10_000


class ElsewhereStamp(int):
    """The timestamp of an item that a fallback bucket has judged."""

    bucket: Any


class PostgresOutage(Outage):
    """`Outage`, which errors it begins with, and the verdicts in the meantime.

    Args:
        instead: ``"allow"``, ``"deny"``, a bucket of this process, or what makes one from rates.
        where: what to call the server in the log.

    Raises:
        WrongType: it is something else.
    """

    def __init__(self, instead: Any, where: str) -> None:
        known = callable(instead) or (isinstance(instead, str) and instead in {"allow", "deny"})
        if not known and not (isinstance(instead, AbstractBucket) and not instead.is_async):
            expected = "'raise', 'allow', 'deny', a bucket that is not async, or what makes one"
            raise WrongType("on_error", instead, expected)
        super().__init__(
            f"{where} cannot be reached, limiting goes on as on_error says",
            f"{where} can be reached again",
        )
        self.instead = instead
        self._made: dict[str, Any] = {}
        psycopg = driver()
        self._errors = (
            psycopg.OperationalError,
            psycopg.InterfaceError,
            psycopg.errors.ReadOnlySqlTransaction,
        )

    def covers(self, error: BaseException) -> bool:
        """Whether it says that the server is away; a pool that is not open does not."""
        return isinstance(error, self._errors) and type(error).__name__ != "PoolClosed"

    def guard(self, program: Program[T], instead: Callable[[], T]) -> Program[T]:
        """The program's result, or what there is instead while the server is away."""
        if not self.may_try():
            return instead()
        try:
            answer = yield from program
        except Exception as error:
            if not self.covers(error):
                raise
            self.failed(error)
            return instead()
        self.answered()
        return answer

    def verdict(self, rate: Rate) -> Decision:
        """What there is to say without a bucket that takes the server's place."""
        return ADMITTED if self.instead == "allow" else Decision(rate, self.retry_ms())

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
