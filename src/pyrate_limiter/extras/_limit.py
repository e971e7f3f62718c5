"""A limit of a web application, for all frameworks: who is limited, where, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter.errors import OutOfRange, WrongType
from pyrate_limiter.extras._address import by_address
from pyrate_limiter.http.fields import (
    Quota,
    QuotaPolicy,
    format_rate_limit,
    format_rate_limit_policy,
)
from pyrate_limiter.limiter import Limiter, SingleBucketFactory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pyrate_limiter.abstracts.rate import Rate
    from pyrate_limiter.extras._request import Key, WebRequest

    Costs = Callable[[WebRequest], "int | Awaitable[int]"]
    Cost = int | Mapping[str, int] | Costs


class Paths:
    """Patterns of paths: a path, or the beginning of paths followed by ``*``."""

    __slots__ = ("_beginnings", "_whole")

    def __init__(self, patterns: Iterable[str]) -> None:
        if isinstance(patterns, str):
            raise WrongType("paths", patterns, "several paths, such as ['/login', '/api/*']")
        listed = list(patterns)
        for pattern in listed:
            if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
                raise WrongType("a path", pattern, "a text that begins with / or is *")
        self._whole = frozenset(_plain(path) for path in listed if not path.endswith("*"))
        self._beginnings = tuple(path[:-1] for path in listed if path.endswith("*"))

    def __bool__(self) -> bool:
        return bool(self._whole or self._beginnings)

    def __contains__(self, path: str) -> bool:
        return _plain(path) in self._whole or path.startswith(self._beginnings)


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


class Limit:
    """One limit of an application.

    Args:
        limiter: what is asked, usually one with a bucket for each key: `Limiter.per_key`.
        key: under which name, by the request: `by_address`, `by_header`, `by_path`, or a function,
            sync or async. Requests for which it gives None are not limited.
        cost: units that a request takes; or a mapping of paths to units, 1 elsewhere; or a function
            of the request, sync or async.
        paths: patterns of the paths that are limited; left out, all are. A pattern is a path, or
            the beginning of paths followed by ``*``.
        exempt: patterns of paths that are not limited.
        wait: seconds that a request may wait for its turn, before it is refused.
        name: by which answers tell the client which limit it is.
        rates: what answers say the limit is, where the limiter's own cannot be found.

    Raises:
        WrongType: an argument is nothing of the above.
        OutOfRange: ``wait`` is negative.
        InvalidField: ``name`` is not printable ASCII.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        key: Key | None = None,
        cost: Cost = 1,
        paths: Iterable[str] | None = None,
        exempt: Iterable[str] = (),
        wait: float = 0,
        name: str = "default",
        rates: Sequence[Rate] | None = None,
    ) -> None:
        if not isinstance(limiter, Limiter):
            raise WrongType("limiter", limiter, "a Limiter")
        if not isinstance(wait, (int, float)):
            raise WrongType("wait", wait, "a number of seconds")
        if not wait >= 0:
            raise OutOfRange("wait", wait, "0 seconds or more")
        self.limiter: Limiter = limiter
        self.key: Key = by_address() if key is None else key
        self.wait: float = wait
        self.name: str = name
        self.cost: Costs = _cost(cost)
        self._only = None if paths is None else Paths(paths)
        self._exempt = Paths(exempt)
        self._rates: Sequence[Rate] = _rates_of(limiter) if rates is None else sorted_rates(rates)
        many = len(self._rates) > 1
        self._names = {
            rate: _policy_name(name, rate.interval) if many else name for rate in self._rates
        }
        self.policy: str = format_rate_limit_policy(
            QuotaPolicy(self._names[rate], rate.limit, -(-rate.interval // 1000))
            for rate in self._rates
        )
        format_rate_limit([Quota(name, 0)])  # checks the name, whether there are rates or not

    def applies_to(self, path: str) -> bool:
        """Whether requests for a path are limited."""
        if self._only is not None and path not in self._only:
            return False
        return not (self._exempt and path in self._exempt)

    def policy_name(self, rate: Rate | None) -> str:
        """What answers call a rate; None is the one of the shortest interval.

        Of several rates that one has the least to give, so it never promises too much.
        """
        rate = self._rates[0] if rate is None and self._rates else rate
        return self.name if rate is None else self._names.get(rate, self.name)

    def most(self, rate: Rate | None) -> int | None:
        """The units of a rate; None is the one of the shortest interval."""
        rate = self._rates[0] if rate is None and self._rates else rate
        return None if rate is None else rate.limit


def _cost(cost: Cost) -> Costs:
    if callable(cost):
        return cost
    if isinstance(cost, int):
        return lambda _: cost
    if not isinstance(cost, Mapping):
        raise WrongType("cost", cost, "a whole number, a mapping of paths to them, or a function")
    routes = [(Paths([path]), units) for path, units in sorted(cost.items(), key=_specific)]

    def by_route(request: WebRequest) -> int:
        path = request.path
        return next((units for paths, units in routes if path in paths), 1)

    return by_route


def _specific(route: tuple[str, int]) -> tuple[bool, int]:
    """Whole paths first, then the longest beginnings."""
    return route[0].endswith("*"), -len(route[0])


def _rates_of(limiter: Limiter) -> Sequence[Rate]:
    """The rates of all names, where the factory has the same for all; else none."""
    factory = limiter.bucket_factory
    if isinstance(factory, SingleBucketFactory):
        rates = getattr(factory.bucket, "rates", None)
    else:
        rates = getattr(factory, "_rates", None)
    return rates if isinstance(rates, RateList) else ()


def _policy_name(name: str, interval_ms: int) -> str:
    seconds, rest = divmod(interval_ms, 1000)
    return f"{name}-{interval_ms}ms" if rest else f"{name}-{seconds}s"
