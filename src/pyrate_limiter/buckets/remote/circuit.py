"""The circuit breaker: whether a server is away, and who asks it again."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE = 0.1  # seconds before the server is probed again
_LONGEST_PAUSE = 5.0
_log = logging.getLogger("pyrate_limiter")


class CircuitBreaker:
    """Knows whether the server is away, and who may probe it; logs once when that begins or ends.

    Args:
        away: what to log when the server stops answering.
        back: what to log when it answers again.
    """

    def __init__(self, away: str, back: str) -> None:
        self._away = away
        self._back = back
        self._lock = threading.Lock()
        self._pause = 0.0  # seconds between two probes; above 0 while the server is away
        self._next_probe = 0.0
        self._probing = False

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last time."""
        return self._pause > 0

    def may_try(self) -> bool:
        """Whether to ask the server; while it is away one caller at a time is let through."""
        if not self._pause:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._next_probe:
                return False
            self._next_probe = now + self._pause
            self._probing = True
            return True

    def failed(self, error: BaseException, away: str | None = None) -> None:
        """The server did not answer; ``away`` is logged in the place of what was given before."""
        with self._lock:
            begins = not self._pause
            if not begins and not self._probing:
                return  # one of those who were under way when it began: no reason to wait longer
            self._probing = False
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause) or _FIRST_PAUSE
            self._next_probe = time.monotonic() + self._pause
        if begins:
            _log.warning("%s: %r", away or self._away, error)

    def answered(self) -> None:
        """The server is there."""
        with self._lock:
            self._pause, back = 0.0, self._pause
            self._probing = False
        if back:
            _log.warning("%s", self._back)

    def retry_ms(self) -> int:
        """Milliseconds until the server is probed again, 1 or more."""
        return max(1, int((self._next_probe - time.monotonic()) * 1000) + 1)


_breakers: weakref.WeakKeyDictionary[object, CircuitBreaker] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def breaker_of(client: object, make: Callable[[], CircuitBreaker]) -> CircuitBreaker:
    """The circuit breaker of a client or pool, shared by all who use it."""
    try:
        with _lock:
            return _breakers.setdefault(client, make())
    except TypeError:  # no weak reference, or no hash
        return make()
