"""What counts as an outage of Redis, and what is to be done about it."""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.buckets.redis.deadline import in_helper
from pyrate_limiter.buckets.redis.request import Request, Script
from pyrate_limiter.buckets.remote.circuit import Outage
from pyrate_limiter.errors import WrongType

if TYPE_CHECKING:
    from pyrate_limiter.buckets.redis.client import Server

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
    "BUSY ",
)

# Of errors that quote those of several nodes.
_WRONG_PASSWORD = ("AuthenticationError", "WRONGPASS", "NOAUTH", "Authentication required")

# What the drivers' pools say that have none, the last the blocking one.
_NO_CONNECTION = ("Too many connections", "No connection available")

_MOST_NAMED = 5  # keys, in an error

# It stores nothing, and fails where nothing can be stored.
_PROBE = Script("return redis.call('ZADD', KEYS[1], 'XX', '0', '0') .. ''")


class Down(Exception):
    """The server is away, and the policy is to go on without it."""


class _Site(Outage):
    """Whether the server of a client is away: known to all that use the client, and logged once."""

    def __init__(self) -> None:
        super().__init__("Redis is away", "Redis is back")
        self.is_back = False
        self.key = ""  # which probes are made with

    def found_by(self, key: str, policy: Any) -> None:
        """Note who meets the outage, for the log and the probes."""
        self.key = key
        self._away = f"Redis is away, going on without it: key {key!r}, on_error={policy!r}"


_sites: weakref.WeakKeyDictionary[Any, _Site] = weakref.WeakKeyDictionary()


def _site_of(client: Any) -> _Site:
    try:
        return _sites.setdefault(client, _Site())
    except TypeError:  # no weak reference, or no hash
        return _Site()


class RedisOutage:
    """Whether a server is away, and which errors say so.

    While it is away no caller asks it. It is probed beside them, now and then.

    Args:
        server: the server.
        policy: ``"raise"``, ``"allow"``, ``"deny"``, a bucket, or a function that makes one.
    """

    def __init__(self, server: Server, policy: Any) -> None:
        known = isinstance(policy, str) and policy in {"raise", "allow", "deny"}
        if not known and not isinstance(policy, AbstractBucket) and not callable(policy):
            expected = "'raise', 'allow', 'deny', a bucket, or a function that makes one from rates"
            raise WrongType("on_error", policy, expected)
        if isinstance(policy, AbstractBucket) and policy.is_async and not server.is_async:
            raise WrongType("on_error", policy, "a sync bucket beside a sync client")
        self.policy = policy
        self.raises: bool = isinstance(policy, str) and policy == "raise"
        self._server = server
        self._site = _site_of(server.client)
        self._probe: Any = None

    @property
    def away(self) -> bool:
        """Whether to go on without the server, for it did not answer the last time."""
        return self._site._pause > 0 and not self.raises

    def may_try(self) -> bool:
        """Whether to ask the server."""
        if not self.away:
            return True
        site = self._site
        if site.is_back:
            site.is_back = False
            site.answered()
            return True
        if site.may_try():
            self._begin_probe()
        return False

    def failed(self, error: BaseException, key: str) -> None:
        """The server did not answer a call about a key."""
        self._site.found_by(key, self.policy)
        self._site.failed(error)

    def answered(self) -> None:
        """The server is there."""
        if self._site._pause and not self.raises:
            self._site.answered()

    def retry_ms(self) -> int:
        """Milliseconds until the server is probed again, 1 or more."""
        return self._site.retry_ms()

    def may_have_run(self, error: BaseException) -> bool:
        """Whether the server may have done what a call that failed had asked for."""
        errors = self._server.errors
        if isinstance(error, (errors.ResponseError, errors.AuthenticationError, errors.DataError)):
            return False
        # The driver raises its own error while it handles that of the socket.
        cause = error.__cause__ or error.__context__
        refused = isinstance(cause, (ConnectionRefusedError, socket.gaierror))
        return not refused and not is_no_connection(error)

    def covers(self, error: BaseException) -> bool:
        """Whether this says that the server is away, and the policy is to go on."""
        errors = self._server.errors
        if self.raises or self._names_nobody(error) or is_no_connection(error):
            return False
        if isinstance(error, errors.ResponseError):
            known = (errors.ClusterDownError, errors.ReadOnlyError, errors.OutOfMemoryError)
            return isinstance(error, known) or any(word in f"{_said(error)} " for word in _UNABLE)
        away = (
            errors.ConnectionError,
            errors.TimeoutError,
            errors.RedisClusterException,
            errors.InvalidResponse,
            OSError,
        )
        denied = getattr(errors, "AuthorizationError", ())
        return isinstance(error, away) and not isinstance(error, denied)

    def _names_nobody(self, error: BaseException) -> bool:
        """Whether it is a wrong password, also where that met a driver that looks for a node."""
        kind = self._server.errors.AuthenticationError
        found = isinstance(error, kind) or isinstance(error.__cause__, kind)
        return found or any(word in _said(error) for word in _WRONG_PASSWORD)

    def _begin_probe(self) -> None:
        head = (_PROBE, self._site.key)
        if not self._server.is_async:

            def ask() -> None:
                try:
                    self._server.evaluate([Request(head, [], None)])
                except Exception as error:  # noqa: BLE001 - it tells whether it is away
                    self._learn(error)
                else:
                    self._learn(None)

            in_helper(ask)
            return

        async def ask_soon() -> None:
            request = Request(head, [], self._server.limit(), shared=False)
            try:
                await self._server.lanes.ask(request)
            except Exception as error:  # noqa: BLE001 - as above
                self._learn(error)
            else:
                self._learn(None)

        self._probe = asyncio.Task(ask_soon(), loop=asyncio.get_running_loop())

    def _learn(self, error: Exception | None) -> None:
        if error is not None and self.covers(error):
            self._site.failed(error)
        else:
            self._site.is_back = True


def is_no_connection(error: BaseException) -> bool:
    """Whether the client's own pool has no connection left: the server is not to blame."""
    return type(error).__name__ == "MaxConnectionsError" or any(
        text in _said(error) for text in _NO_CONNECTION
    )


def _said(error: BaseException) -> str:
    """What the driver said, without the keys that `name_key` has put behind it."""
    return str(error).split(" (key ", 1)[0]


def name_key(error: BaseException, key: str) -> None:
    """Have an error of the driver say which key the call was about.

    Callers whose calls went together may share an error: then it names some of their keys.
    """
    if not type(error).__module__.startswith("redis.") or not error.args:
        return
    text, *others = error.args
    about = f" (key {key!r})"
    if isinstance(text, str) and about not in text and text.count(" (key ") < _MOST_NAMED:
        error.args = (text + about, *others)
