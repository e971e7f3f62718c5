"""What a bucket does while its server cannot be reached."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.rate import Rate

_FIRST_PROBE_SECONDS = 0.1
_LONGEST_PROBE_SECONDS = 5.0
_log = logging.getLogger("pyrate_limiter")


class ElsewhereStamp(int):
    """The timestamp of an item that a fallback bucket has judged."""


class Outage:
    """Whether the server is away, since when it was asked last, and what is answered meanwhile.

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
        self.instead = instead
        self._where = where
        self._pause = 0.0
        self._next_probe = 0.0

    def is_waiting(self) -> bool:
        """Whether it is too early to ask the server again; if not, others wait for the answer."""
        if not self._pause:
            return False
        now = time.monotonic()
        if now < self._next_probe:
            return True
        self._next_probe = now + self._pause
        return False

    def begins(self, error: BaseException) -> None:
        """A call has failed."""
        if not self._pause:
            _log.warning(
                "%s cannot be reached, limiting goes on as on_error says",
                self._where,
                exc_info=error,
            )
        self._pause = min(max(2 * self._pause, _FIRST_PROBE_SECONDS), _LONGEST_PROBE_SECONDS)
        self._next_probe = time.monotonic() + self._pause

    def ends(self) -> None:
        """A call has succeeded."""
        if self._pause:
            self._pause = 0.0
            _log.warning("%s can be reached again", self._where)

    def decide(
        self, rate: Rate, item: Any, patience_ms: int, buffer_ms: int | None, *, store: bool
    ) -> Decision:
        """The verdict on an item in the meantime."""
        if self.instead == "allow":
            return ADMITTED
        if not isinstance(self.instead, AbstractBucket):
            return Decision(rate, max(1, int((self._next_probe - time.monotonic()) * 1000) + 1))
        bucket: Any = self.instead
        item.timestamp = bucket.now()
        if not store:
            return bucket.check(item)  # type: ignore[no-any-return]
        decision: Decision = bucket.claim(item, patience_ms, buffer_ms)
        item.timestamp = ElsewhereStamp(item.timestamp)
        return decision
