"""What counts as an outage of Redis, and what is to be done about it."""

from __future__ import annotations

import socket
from typing import Any

from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.outage import Outage
from pyrate_limiter.errors import WrongType

# How the errors begin that Redis gives while it cannot store anything. Up to Redis 6 one that a
# script met stands in the midst of another; later ones the driver knows, and cuts this off.
_UNABLE = (
    "OOM ",
    "READONLY ",
    "MISCONF ",
    "NOREPLICAS ",
    "MASTERDOWN ",
    "CLUSTERDOWN ",
    "LOADING ",
)


class Down(Exception):
    """The server is away, and the policy is to go on without it."""


class RedisOutage(Outage):
    """`Outage`, and which errors it begins with.

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
        super().__init__(
            f"Redis is away, going on without it: on_error={policy!r}", "Redis is back"
        )
        self.policy = policy
        self.raises: bool = isinstance(policy, str) and policy == "raise"
        self._errors = errors

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last time."""
        return self._pause > 0

    def may_have_run(self, error: BaseException) -> bool:
        """Whether the server may have done what a call that failed had asked for."""
        errors = self._errors
        if isinstance(error, (errors.ResponseError, errors.AuthenticationError, errors.DataError)):
            return False
        # The driver raises its own error while it handles that of the socket.
        cause = error.__cause__ or error.__context__
        return not isinstance(cause, (ConnectionRefusedError, socket.gaierror))

    def covers(self, error: BaseException) -> bool:
        """Whether this says that the server is away, and the policy is to go on."""
        if self.raises:
            return False
        errors = self._errors
        if isinstance(error, errors.ResponseError):
            known = (errors.ClusterDownError, errors.ReadOnlyError, errors.OutOfMemoryError)
            return isinstance(error, known) or any(word in f"{error} " for word in _UNABLE)
        return isinstance(error, (errors.RedisError, OSError))
