"""Every exception that the library raises.

Each belongs to the family `PyrateError` and also inherits the built-in type that release 4.5.1
raised at the same place, so that handlers written for it go on working. Errors carry their data as
attributes and survive pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter._core.value_errors import (
    InvalidRate,
    InvalidRateList,
    InvalidRateText,
    InvalidTimestamp,
    InvalidWeight,
    OutOfRange,
    PyrateError,
    WrongType,
    shown,
)

if TYPE_CHECKING:
    from pyrate_limiter._core.rates import Rate
    from pyrate_limiter.algorithms.decision import Decision

__all__ = [
    "AlgorithmMismatch",
    "AsyncBucketInSyncCode",
    "BucketClosed",
    "BucketRetired",
    "CannotHold",
    "InvalidBucket",
    "InvalidDatabase",
    "InvalidField",
    "InvalidLimiterArgument",
    "InvalidNetwork",
    "InvalidRate",
    "InvalidRateList",
    "InvalidRateText",
    "InvalidReserveAhead",
    "InvalidTimeout",
    "InvalidTimestamp",
    "InvalidWeight",
    "MissingDriver",
    "NoRates",
    "NoRedisImplementation",
    "NotShared",
    "OutOfRange",
    "PyrateError",
    "RateLimitExceeded",
    "ReentrantCall",
    "SharedStorageBusy",
    "SharedStorageLost",
    "TimeoutWithoutBlocking",
    "TooManyKeys",
    "WrongType",
]


class NoRates(PyrateError, AttributeError):
    """Something that has no rates was asked for them, or given some.

    Attributes:
        owner: what has none.
    """

    def __init__(self, owner: object, message: str | None = None) -> None:
        super().__init__(
            message
            or f"this {type(owner).__name__} has no rates: assign self.rates = [Rate(...)] in its "
            "__init__"
        )
        self.owner: object = owner


class InvalidLimiterArgument(PyrateError, TypeError, AssertionError):
    """`Limiter` was given something that is no rate, list of rates, bucket or factory."""

    def __init__(self, value: object, message: str = "Not a valid bucket/bucket-factory") -> None:
        super().__init__(
            f"{message}: Limiter takes a Rate, a list of Rate, an AbstractBucket or a "
            f"BucketFactory, got {shown(value)}{_in_place_of_bucket(value)}"
        )
        self.value: object = value


def _in_place_of_bucket(value: object) -> str:
    """What to do where somebody has given something that leads to a bucket."""
    if hasattr(type(value), "__await__"):
        return "; await it first, as in `bucket = await RedisBucket.init(...)`"
    if isinstance(value, type):
        return f"; make one of it first: {value.__name__}(...)"
    return ""


class InvalidBucket(PyrateError, TypeError, AssertionError):
    """A bucket was expected, and something else was given."""

    def __init__(self, value: object, where: str) -> None:
        super().__init__(
            f"{where} must be an AbstractBucket, got {shown(value)}{_in_place_of_bucket(value)}"
        )
        self.value: object = value


class InvalidTimeout(PyrateError, ValueError):
    """A timeout is negative and not -1, or no number, or too large for one."""

    def __init__(self, timeout: object) -> None:
        super().__init__(
            f"timeout must be -1 or >= 0, got {shown(timeout)} (seconds; -1 and None wait for ever)"
        )
        self.timeout: object = timeout


class InvalidReserveAhead(PyrateError, ValueError):
    """A limiter was told to reserve for a negative or endless time ahead."""

    def __init__(self, reserve_ahead: object) -> None:
        super().__init__(
            f"reserve_ahead must be True, False or a number of seconds >= 0, got {reserve_ahead!r}"
        )
        self.reserve_ahead: object = reserve_ahead


class TimeoutWithoutBlocking(PyrateError, RuntimeError):
    """A timeout was given to a call that never waits."""

    def __init__(self, timeout: object) -> None:
        super().__init__(
            f"Can't set timeout with non-blocking: got timeout={timeout!r}; "
            "leave out one of blocking=False and timeout"
        )
        self.timeout: object = timeout


class AlgorithmMismatch(PyrateError, TypeError):
    """A bucket was given a kind of algorithm that it cannot run."""

    def __init__(self, algorithm: object, bucket: str, expected: str) -> None:
        super().__init__(f"{bucket} needs {expected}, got {algorithm!r}")
        self.algorithm: object = algorithm


class RateLimitExceeded(PyrateError, RuntimeError):
    """The bucket is full: the call was not admitted.

    Attributes:
        name: the item's name.
        weight: the item's weight.
        decision: why, and how long until it would fit.
    """

    def __init__(
        self, name: str, weight: int, decision: Decision, message: str | None = None
    ) -> None:
        super().__init__(message or _exceeded(name, weight, decision))
        self.name: str = name
        self.weight: int = weight
        self.decision: Decision = decision

    @property
    def failing_rate(self) -> Rate | None:
        """The rate that refused."""
        return self.decision.failing_rate

    @property
    def retry_after_ms(self) -> int | None:
        """Milliseconds until the weight fits; None if unknown, or if it never can."""
        return self.decision.retry_after_ms


def _exceeded(name: str, weight: int, decision: Decision) -> str:
    if decision.retry_after_ms is None:
        hope = "this weight can never fit"
    else:
        hope = f"it fits in {decision.retry_after_ms} ms"
    return f"Rate limit exceeded for {name!r} with weight={weight}: {decision.failing_rate}; {hope}"


class AsyncBucketInSyncCode(PyrateError, RuntimeError):
    """A call that must answer at once met a bucket, clock or factory that has to be awaited."""


class CannotHold(PyrateError, NotImplementedError):
    """A bucket was told to hold, and it, its store or its algorithm has no such thing.

    Attributes:
        owner: which of these it is.
    """

    def __init__(
        self,
        owner: object,
        fix: str = "use a built-in bucket and algorithm, or write hold() and release_hold()",
    ) -> None:
        super().__init__(f"{shown(owner)} cannot hold: {fix}")
        self.owner: object = owner


class InvalidDatabase(PyrateError, ValueError):
    """What was said about the database makes no sense together."""


class BucketClosed(PyrateError, RuntimeError, AttributeError):
    """The bucket was closed, and is asked for more."""

    def __init__(self) -> None:
        super().__init__(
            "this bucket is closed: make a new one, or close it later; limiter.close() and the end "
            "of `with limiter:` close the limiter's buckets"
        )


class ReentrantCall(PyrateError, RuntimeError):
    """A signal handler or a ``__del__`` called what it had interrupted in the middle of a step.

    Nothing was changed. The interrupted step goes on.
    """

    def __init__(self, place: object) -> None:
        super().__init__(
            f"{type(place).__name__} was called out of the middle of another call of the same "
            "thread, by a signal handler or a __del__: let that note what has happened, and use "
            "the limiter later"
        )


class BucketRetired(PyrateError, RuntimeError):
    """A keyed factory has dropped this bucket because it was idle."""

    def __init__(self) -> None:
        super().__init__("this bucket was idle and its factory dropped it: get a new one from it")


class TooManyKeys(PyrateError, RuntimeError):
    """Every one of a keyed factory's buckets still limits something, and one more was asked for.

    Attributes:
        name: the name that has no bucket.
        max_keys: the bound that was reached.
    """

    def __init__(self, name: str, max_keys: int) -> None:
        super().__init__(
            f"no bucket for {name!r}: all {max_keys} keys hold live units; "
            "raise max_keys, or route rare names to a shared bucket"
        )
        self.name: str = name
        self.max_keys: int = max_keys


class MissingDriver(PyrateError, ModuleNotFoundError):
    """A backend or a helper needs a package that is not installed, or not completely.

    Attributes:
        package: what is missing.
        extra: the extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str, why: str = "is not installed") -> None:
        super().__init__(f'{package} {why}; it comes with: pip install "pyrate-limiter[{extra}]"')
        self.name: str | None = package.partition("[")[0]
        self.package: str = package
        self.extra: str = extra


class NotShared(PyrateError, ValueError):
    """What is to hold the data of several processes is nothing that they can share."""

    def __init__(self, field: str, value: object) -> None:
        super().__init__(
            f"{field} must be a multiprocessing.managers.ListProxy, such as Manager().list(), "
            f"got {value!r}; init() makes what is needed"
        )
        self.field: str = field
        self.value: object = value


class SharedStorageLost(PyrateError, ConnectionError, EOFError):
    """The data that processes share is gone: its manager or the process that made it has ended.

    Attributes:
        place: where the data was.
    """

    def __init__(self, place: object) -> None:
        super().__init__(
            f"the data shared between processes is gone ({place}): its manager, or the process "
            "that made it, has ended or closed it; keep that alive, or make a new bucket"
        )
        self.place: object = place


class SharedStorageBusy(PyrateError, TimeoutError):
    """Another process has kept the data that processes share for longer than the caller waits.

    Attributes:
        place: where the data is.
        seconds: how long it was waited for.
    """

    def __init__(self, place: object, seconds: float) -> None:
        super().__init__(
            f"the lock of {place} could not be had in {seconds:.1f} s: look for a process that was "
            "suspended while it held it"
        )
        self.place: object = place
        self.seconds: float = seconds


class NoRedisImplementation(PyrateError, TypeError):
    """An algorithm cannot run inside Redis."""

    def __init__(self, algorithm: object) -> None:
        super().__init__(
            f"{type(algorithm).__name__} has no Redis implementation; use a local store instead, "
            "or give it a redis_script() that does what its step() does"
        )
        self.algorithm: object = algorithm


class InvalidField(PyrateError, ValueError):
    """A value cannot be read from, or written into, a field of HTTP.

    Attributes:
        value: the value.
    """

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(f"{value!r} cannot be in a field of HTTP: {reason}")
        self.value: object = value


class InvalidNetwork(PyrateError, ValueError):
    """A text names no network of addresses.

    Attributes:
        network: the text.
    """

    def __init__(self, network: object) -> None:
        super().__init__(f"{network!r} is no network, such as '10.0.0.0/8' or 'fd00::/8'")
        self.network: object = network


for _name in __all__:
    globals()[_name].__module__ = __name__  # also of those that are defined elsewhere
