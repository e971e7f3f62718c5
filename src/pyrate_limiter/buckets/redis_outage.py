"""What a limiter does while its server is away."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.errors import WrongType

_FIRST_PAUSE = 0.1  # seconds before the server is probed again
_LONGEST_PAUSE = 5.0
# How the errors begin that Redis gives while it cannot store anything, in scripts too.
_UNABLE = (
    "OOM ",
    "READONLY ",
    "MISCONF ",
    "NOREPLICAS ",
    "MASTERDOWN ",
    "CLUSTERDOWN ",
    "LOADING ",
)

_log = logging.getLogger("pyrate_limiter")


class Down(Exception):
    """The server is away, and the policy is to go on without it."""


class Outage:
    """Knows whether the server is away, and who may probe it.

    Args:
        policy: ``"raise"``, ``"allow"``, ``"deny"``, a bucket, or a function that makes one.
        errors: the driver's exceptions.
        is_async: whether the client is; a sync one cannot await a fallback bucket.
    """

    def __init__(self, policy: Any, errors: Any, *, is_async: bool) -> None:
        known = isinstance(policy, str) and policy in {"raise", "allow", "deny"}
        if not known and not isinstance(policy, AbstractBucket) and not callable(policy):
            expected = "'raise', 'allow', 'deny', a bucket, or a function that makes one from rates"
            raise WrongType("on_error", policy, expected)
        if isinstance(policy, AbstractBucket) and policy.is_async and not is_async:
            raise WrongType("on_error", policy, "a sync bucket beside a sync client")
        self.policy = policy
        self.raises: bool = policy == "raise" if isinstance(policy, str) else False
        self._errors = errors
        self._lock = threading.Lock()
        self._pause = 0.0  # above 0 while the server is away
        self._next_probe = 0.0

    def may_try(self) -> bool:
        """Whether to ask the server; while it is away one caller at a time is let through."""
        if not self._pause:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._next_probe:
                return False
            self._next_probe = now + self._pause
            return True

    def covers(self, error: BaseException) -> bool:
        """Whether this says that the server is away, and the policy is to go on."""
        if self.raises:
            return False
        errors = self._errors
        if isinstance(error, errors.ResponseError):
            return isinstance(error, (errors.ClusterDownError, errors.ReadOnlyError)) or any(
                word in f"{error} " for word in _UNABLE
            )
        return isinstance(error, (errors.RedisError, OSError))

    def failed(self, error: BaseException) -> None:
        """The server did not answer."""
        with self._lock:
            begins = not self._pause
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause) or _FIRST_PAUSE
            self._next_probe = time.monotonic() + self._pause
        if begins:
            _log.warning(
                "Redis is away, going on without it: on_error=%r", self.policy, exc_info=error
            )

    def answered(self) -> None:
        """The server is there."""
        if self._pause:
            with self._lock:
                self._pause, back = 0.0, self._pause
            if back:
                _log.warning("Redis is back")

    def retry_ms(self) -> int:
        """Milliseconds until the server is probed again, 1 or more."""
        return max(1, int((self._next_probe - time.monotonic()) * 1000) + 1)
