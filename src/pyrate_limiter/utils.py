"""Small helpers that programs import."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pyrate_limiter._lazy import resolver
from pyrate_limiter.errors import InvalidRateList, WrongType

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.rate import Rate

# Programs import `Rate` from here too; it is found on first use, for it stands above this module.
if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, {"Rate": "pyrate_limiter.abstracts.rate"})


def id_generator(size: int = 10) -> str:
    """A random identifier of ``size`` hexadecimal digits."""
    import secrets

    return secrets.token_hex((size + 1) // 2)[:size]


def dedicated_sqlite_clock_connection() -> sqlite3.Connection:
    """A connection to an empty database in memory, for asking SQLite for the time."""
    import sqlite3

    return sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)


def validate_rate_list(rates: Sequence[Rate]) -> bool:
    """Whether each rate of the list can matter.

    That is so when the list is not empty, intervals and limits rise strictly, and limit / interval
    never rises.
    """
    return bool(rates) and all(
        earlier.interval < later.interval
        and earlier.limit < later.limit
        and earlier.limit * later.interval >= later.limit * earlier.interval
        for earlier, later in pairwise(rates)
    )


def enforce_rate_list(rates: Sequence[Rate]) -> None:
    """Raise unless `validate_rate_list`.

    Raises:
        InvalidRateList: it lists the rates.
    """
    if not validate_rate_list(rates):
        raise InvalidRateList(rates)


_MOST = 1 << 60  # units that a log can have in a window, as good as any number


class RateList(list["Rate"]):
    """Rates that were checked and ordered by interval, to be shared between buckets."""

    __slots__ = ("bounds", "longest_ms", "shortest_ms")

    def __init__(self, rates: Sequence[Rate]) -> None:
        from pyrate_limiter.abstracts.rate import Rate

        for rate in rates:
            if not isinstance(rate, Rate):
                raise WrongType("rates", rate, "Rate objects")
        super().__init__(sorted(rates, key=lambda rate: rate.interval))
        enforce_rate_list(self)
        self.bounds: tuple[tuple[int, int, Rate], ...] = tuple(
            (min(rate.limit, _MOST), rate.interval, rate) for rate in self
        )
        self.shortest_ms: int = self[0].interval
        self.longest_ms: int = self[-1].interval

    def __reduce__(self) -> tuple[type[RateList], tuple[list[Rate]]]:
        return type(self), (list(self),)


def one_or_more(rates: Rate | Sequence[Rate]) -> RateList:
    """`sorted_rates`, also of a single rate."""
    from pyrate_limiter.abstracts.rate import Rate

    return sorted_rates([rates] if isinstance(rates, Rate) else rates)


def sorted_rates(rates: Sequence[Rate]) -> RateList:
    """A copy ordered by interval, checked; a `RateList` as it is.

    Raises:
        WrongType: something in the list is no rate.
        InvalidRateList: some rate of the list can never matter.
    """
    return rates if isinstance(rates, RateList) else RateList(rates)
