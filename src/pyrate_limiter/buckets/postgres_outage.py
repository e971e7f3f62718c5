"""What a Postgres bucket answers while its server is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.outage import Outage
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.rate import Rate


class ElsewhereStamp(int):
    """The timestamp of an item that a fallback bucket has judged."""


class PostgresOutage(Outage):
    """`Outage`, and the verdicts in the meantime.

    Args:
        instead: ``"allow"``, ``"deny"``, or a bucket of this process.
        where: what to call the server in the log.

    Raises:
        WrongType: it is something else.
    """

    def __init__(self, instead: str | AbstractBucket, where: str) -> None:
        known = isinstance(instead, str) and instead in {"allow", "deny"}
        if not known and not (isinstance(instead, AbstractBucket) and not instead.is_async):
            raise WrongType(
                "on_error", instead, "'raise', 'allow', 'deny' or a bucket that is not async"
            )
        super().__init__(
            f"{where} cannot be reached, limiting goes on as on_error says",
            f"{where} can be reached again",
        )
        self.instead = instead

    def decide(
        self, rate: Rate, item: Any, patience_ms: int, buffer_ms: int | None, *, store: bool
    ) -> Decision:
        """The verdict on an item in the meantime."""
        if self.instead == "allow":
            return ADMITTED
        if not isinstance(self.instead, AbstractBucket):
            return Decision(rate, self.retry_ms())
        bucket: Any = self.instead
        item.timestamp = bucket.now()
        if not store:
            return bucket.check(item)  # type: ignore[no-any-return]
        decision: Decision = bucket.claim(item, patience_ms, buffer_ms)
        item.timestamp = ElsewhereStamp(item.timestamp)
        return decision
