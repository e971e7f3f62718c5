"""What the errors of the ``redis`` package mean, and those that are raised in its name."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pyrate_limiter.errors import MissingDriver

if TYPE_CHECKING:
    from types import ModuleType

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

# What the driver's pools say, not all of them with an error of its own class.
_NO_CONNECTION = ("Too many connections", "No connection available")

_MOST_NAMED = 5  # keys, in an error


def driver_errors() -> ModuleType:
    """The driver's module of errors.

    Raises:
        MissingDriver: the ``redis`` package is not installed.
    """
    try:
        from redis import exceptions
    except ImportError as error:
        raise MissingDriver("redis", "redis") from error
    return exceptions


def too_slow(limit: float) -> Exception:
    """The error of a call that took longer than so many seconds."""
    said = f"Redis did not answer within {limit:g} s, the time that the caller gave"
    error: Exception = driver_errors().TimeoutError(said)
    return error


def given_up() -> Exception:
    """The error of a call without a time limit that has hung for long."""
    said = "Redis does not answer; the connection was given up"
    error: Exception = driver_errors().TimeoutError(said)
    return error


def interrupted() -> Exception:
    """The error of those whose call another thread was to make, which was interrupted."""
    said = "The thread that called Redis was interrupted"
    error: Exception = driver_errors().ConnectionError(said)
    return error


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server is away, or cannot store anything."""
    errors = driver_errors()
    if _names_nobody(error) or is_no_connection(error):
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


def may_have_run(error: BaseException) -> bool:
    """Whether the server may have done what a call that failed had asked for."""
    errors = driver_errors()
    if isinstance(error, (errors.ResponseError, errors.AuthenticationError, errors.DataError)):
        return False
    # The driver raises its own error while it handles that of the socket.
    cause = error.__cause__ or error.__context__
    refused = isinstance(cause, (ConnectionRefusedError, socket.gaierror))
    return not refused and not is_no_connection(error)


def is_no_connection(error: BaseException) -> bool:
    """Whether the client's own pool has no connection left: the server is not to blame."""
    known = isinstance(error, driver_errors().MaxConnectionsError)
    return known or any(text in _said(error) for text in _NO_CONNECTION)


def name_key(error: BaseException, key: str) -> None:
    """Have an error of the driver say which key the call was about.

    Callers whose calls went together may share an error: then it names some of their keys.
    """
    if not isinstance(error, driver_errors().RedisError) or not error.args:
        return
    text, *others = error.args
    about = f" (key {key!r})"
    if isinstance(text, str) and about not in text and text.count(" (key ") < _MOST_NAMED:
        error.args = (text + about, *others)


def _names_nobody(error: BaseException) -> bool:
    """Whether it is a wrong password, also where that met a driver that looks for a node."""
    kind = driver_errors().AuthenticationError
    found = isinstance(error, kind) or isinstance(error.__cause__, kind)
    return found or any(word in _said(error) for word in _WRONG_PASSWORD)


def _said(error: BaseException) -> str:
    """What the driver said, without the keys that `name_key` has put behind it."""
    return str(error).split(" (key ", 1)[0]
