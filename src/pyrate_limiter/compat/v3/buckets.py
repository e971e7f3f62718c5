"""The in-memory bucket of 3.x, which takes lists of rates that are refused today."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrate_limiter import InMemoryBucket as CurrentInMemoryBucket
from pyrate_limiter import Rate, validate_rate_list
from pyrate_limiter.utils import RateList

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["InMemoryBucket"]


class InMemoryBucket(CurrentInMemoryBucket):
    """`pyrate_limiter.InMemoryBucket` for any list of rates: each of them holds.

    Args:
        rates: the limits, in any order, needless ones included.

    Raises:
        InvalidRateList: there is none.
        WrongType: something in it is no rate.
    """

    def __init__(self, rates: Sequence[Rate]) -> None:
        if isinstance(rates, (list, tuple)) and all(isinstance(rate, Rate) for rate in rates):
            ordered = sorted(rates, key=lambda rate: rate.interval)
            usual = validate_rate_list(ordered) or not ordered
            rates = ordered if usual else _AnyRates(ordered)
        super().__init__(rates)


class _AnyRates(RateList):
    """Rates ordered by interval, of which some may never matter."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        super().__init__(rates[:1])
        self.extend(rates[1:])
        self.bounds = tuple((rate.limit, rate.interval, rate) for rate in rates)
        self.least = min(rate.limit for rate in rates)
        self.longest_ms = rates[-1].interval
