"""What 2.x and 3.x had, and where it is: nothing else outside `compat` knows of that package.

Nothing here loads it before an old name, or a call that only an old release knows, is met.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")

_CLOCKS = "TimeAsyncClock TimeClock"
_V2_SQLITE = (
    "DEFAULT_DB_PATH FILE_LOCK FileLockSQLiteBucket LOCK_PATH SQLITE_MAX_VARIABLE_NUMBER TEMP_DIR "
    "chunkify"
)
_NAMES = {
    "pyrate_limiter": {
        "compat.exceptions": (
            "BucketFullException ImmutableClassProperty InvalidParams LimiterDelayException"
        ),
        "compat.v3.clocks": _CLOCKS,
        "compat.v3.limiter": "combined_lock",
        "compat.v3.utils": "binary_search",
        "abstracts.bucket": "Leaker",
        "compat.v2.bucket": "MemoryListBucket MemoryQueueBucket RedisClusterBucket",
        "compat.v2.limit_context_decorator": "LimitContextDecorator",
        "compat.v2.request_rate": "RequestRate ResetTypes",
        "compat.v2.sqlite_bucket": _V2_SQLITE,
        "bucket": "bucket",
        "constants": "constants",
        "exceptions": "exceptions",
        "limit_context_decorator": "limit_context_decorator",
        "request_rate": "request_rate",
        "sqlite_bucket": "sqlite_bucket",
    },
    "pyrate_limiter.abstracts": {
        "clocks": "AbstractClock",
        "abstracts.bucket": "Leaker",
        "abstracts.clock": "clock",
    },
    "pyrate_limiter.buckets.in_memory_bucket": {"compat.v3.utils": "binary_search"},
    "pyrate_limiter.clocks": {
        "compat.v3.clocks": _CLOCKS,
        "buckets.sqlite_bucket": "SQLiteBucket SQLiteClock",
        "utils": "dedicated_sqlite_clock_connection",
    },
    "pyrate_limiter.limiter": {
        "abstracts.rate": "Duration",
        "clocks": "AbstractClock",
        "compat.exceptions": "BucketFullException InvalidParams LimiterDelayException",
        "compat.v3.clocks": "TimeClock",
        "compat.v2.bucket": "MemoryQueueBucket",
        "compat.v2.limit_context_decorator": "LimitContextDecorator",
        "compat.v2.request_rate": "RequestRate",
    },
    "pyrate_limiter.limiter_factory": {"abstracts.wrappers": "BucketAsyncWrapper"},
    "pyrate_limiter.utils": {
        "abstracts.rate": "RateItem",
        "compat.v3.utils": "binary_search",
    },
}

_V2_KEYWORDS = {"bucket_class", "bucket_kwargs", "time_function"}
_V2_BUCKET = {"maxsize", "identity", "path", "redis_pool", "bucket_name", "expire_time"}
_V3_ATTRIBUTES = {"raise_when_fail", "max_delay", "retry_until_max_delay"}
_V3_KEYWORDS = {"clock", *_V3_ATTRIBUTES}


def places(module: str) -> dict[str, str]:
    """Where the names are found that this module had in 2.x or 3.x and has not today."""
    return {
        name: "pyrate_limiter." + place
        for place, names in _NAMES[module].items()
        for name in names.split()
    }


class TakesOlderCalls:
    """What makes `Limiter` give limiters of 2.x and 3.x for calls that only those know."""

    delay_or_raise: Any = None
    """Decides for limiters of 3.x, if it is replaced; tests of programs for 3.x do so."""

    def __setattr__(self, name: str, value: object) -> None:
        todays_own = TakesOlderCalls in type(self).__bases__
        if name == "rates" and todays_own:
            from pyrate_limiter.errors import NoRates

            raise NoRates(self, "a limiter has no rates: assign to bucket.rates, or make another")
        if name in _V3_ATTRIBUTES and todays_own:
            from pyrate_limiter.errors import WrongType

            expected = (
                f"given as Limiter(..., {name}=...), which makes a limiter of 3.x: see "
                '"Programs for 3.x" in the documentation'
            )
            raise WrongType(f"limiter.{name}", value, expected)
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # a checker knows today's arguments alone, from __init__

        def __new__(cls, *args: object, **kwargs: object) -> object:
            """Make the limiter, which is initialized by its own release."""
            is_todays_own = TakesOlderCalls in cls.__bases__
            return super().__new__((is_todays_own and _limiter_class(args, kwargs)) or cls)


def also_as_in_its_release(initialize: Callable[P, None]) -> Callable[P, None]:
    """Let a class derived from `Limiter` hand on what only 2.x or 3.x knows.

    Such an object gets the limiter of that release as a further base, before today's.
    """
    from functools import wraps

    @wraps(initialize)
    def __init__(*args: P.args, **kwargs: P.kwargs) -> None:  # noqa: N807 - it is one
        limiter: Any = args[0]  # what it becomes, no checker knows
        own = type(limiter)
        derived = TakesOlderCalls not in own.__bases__
        release = _limiter_class(args[1:], kwargs) if derived else None
        if release is None or isinstance(limiter, release):
            initialize(*args, **kwargs)
            return
        named = {"__module__": own.__module__, "__qualname__": own.__qualname__}
        limiter.__class__ = type(own.__name__, (own, release), named)
        release.__init__(*args, **kwargs)

    return __init__


class TakesKeywordsOf2x:
    """What makes a bucket class give a bucket of 2.x, if it is given keywords of that."""

    if not TYPE_CHECKING:
        __slots__ = ()

        def __new__(cls, *args: object, **kwargs: object) -> object:
            """Make the bucket."""
            if TakesKeywordsOf2x in cls.__bases__ and not kwargs.keys().isdisjoint(_V2_BUCKET):
                from pyrate_limiter.compat import v2

                return getattr(v2, cls.__name__)(*args, **kwargs)
            return super().__new__(cls)


def _limiter_class(args: tuple[object, ...], kwargs: dict[str, object]) -> Any:  # one of two
    """The limiter of the only release that knows these arguments; None if it may be today's."""
    rates = sys.modules.get("pyrate_limiter.compat.v2.request_rate")  # not there: nobody has one
    if not kwargs.keys().isdisjoint(_V2_KEYWORDS) or (
        rates is not None and any(isinstance(argument, rates.RequestRate) for argument in args)
    ):
        from pyrate_limiter.compat.v2.limiter import Limiter as OfV2

        return OfV2
    if (
        not kwargs.keys().isdisjoint(_V3_KEYWORDS)
        or len(args) > 2  # noqa: PLR2004 - today's takes no more
        or any(hasattr(second, "now") for second in args[1:])
        or any(_keeps_a_clock_of_3x(argument) for argument in (*args, *kwargs.values()))
    ):
        from pyrate_limiter.compat.v3.limiter import Limiter as OfV3

        return OfV3
    return None


def _keeps_a_clock_of_3x(factory: object) -> bool:
    clocks = sys.modules.get("pyrate_limiter.compat.v3.clocks")  # not there: nobody has one
    kinds = () if clocks is None else (clocks.TimeClock, clocks.TimeAsyncClock)
    return isinstance(getattr(factory, "clock", None), kinds)


def also_as_in_3x(function: Callable[P, R]) -> Callable[P, R]:
    """Hand a call with arguments that only 3.x knows to its function of the same name."""
    from functools import wraps

    known = function.__code__.co_varnames[: function.__code__.co_argcount]
    last = known.index("buffer_ms")  # there 3.x has its max_delay

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        delay = args[last] if len(args) > last else kwargs.get("buffer_ms", 0)
        if kwargs.keys() <= set(known) and isinstance(delay, int):
            return function(*args, **kwargs)
        from pyrate_limiter.compat.v3 import limiter_factory

        of_3x: Callable[P, R] = getattr(limiter_factory, function.__name__)
        return of_3x(*args, **kwargs)

    return call
