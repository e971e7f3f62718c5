"""Outages of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter.buckets.redis.errors import is_outage
from pyrate_limiter.buckets.redis.request import Head, Request, Script
from pyrate_limiter.buckets.remote.circuit import CircuitBreaker, breaker_of
from pyrate_limiter.buckets.remote.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.buckets.redis.protocols import RedisClient
    from pyrate_limiter.buckets.redis.request import Answer
    from pyrate_limiter.buckets.remote.fallback import OnError

# It stores nothing, and fails where nothing can be stored.
_PROBE = Script("return redis.call('ZADD', KEYS[1], 'XX', '0', '0') .. ''")
_PROBE_SECONDS = 1.0  # a host that has vanished does not answer at all


class Down(Exception):
    """The server is away, and the policy is to go on without it."""


class RedisOutage(Outage):
    """Whether a server is away: known to all who use the client.

    Args:
        on_error: see `RedisBucket`.
        client: the client.
        is_async: whether it is async.
        ask: a program that makes a call, given the head of its request.
    """

    def __init__(
        self,
        on_error: OnError,
        client: RedisClient,
        *,
        is_async: bool,
        ask: Callable[[Request], Program[Answer]],
    ) -> None:
        breaker = breaker_of(client, lambda: CircuitBreaker("Redis is away", "Redis is back"))
        super().__init__(on_error, breaker, is_async=is_async)
        self._ask = ask

    def covers(self, error: BaseException) -> bool:
        """Whether this says that the server is away, or cannot store anything."""
        return is_outage(error)

    def failed(self, error: BaseException, key: str = "") -> bool:
        """`Outage.failed`; the log names the first key that meets the outage."""
        if self.raises or not is_outage(error):
            return False
        about = f"key {key!r}, on_error={self.on_error!r}"
        self.breaker.failed(error, f"Redis is away, going on without it: {about}")
        return True

    def probe(self, key: str) -> Program[None]:
        """Ask with a script that stores nothing, about a key that the caller may use."""
        try:
            yield from self._ask(Request(Head(_PROBE, key, ()), [], _PROBE_SECONDS, shared=False))
        except Exception as error:  # noqa: BLE001 - whoever asks next is told, if it is no outage
            if is_outage(error):
                self.breaker.failed(error)
                return
        self.breaker.answered()
