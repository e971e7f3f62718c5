"""Lists of rates: checked, ordered by interval, and shared between buckets."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pyrate_limiter._core.rates import Rate
from pyrate_limiter._core.value_errors import InvalidRateList, WrongType

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        InvalidRateList: it lists the rates, and says which of them to drop.
    """
    if not validate_rate_list(rates):
        raise InvalidRateList(rates, reason=_why_invalid(rates))


def _why_invalid(rates: Sequence[Rate]) -> str:
    for earlier, later in pairwise(rates):
        if earlier.interval > later.interval:
            return f"{earlier} stands before {later}, whose interval is shorter: sort by interval"
        if earlier.interval == later.interval:
            drop, keep = sorted((earlier, later), key=lambda rate: -rate.limit)
            return f"{earlier} and {later} have the same interval: drop {drop}, keep {keep}"
        if earlier.limit >= later.limit:
            return (
                f"{earlier} never refuses anything beside {later}, which allows no more in a "
                f"longer interval: drop {earlier}"
            )
        if earlier.limit * later.interval < later.limit * earlier.interval:
            return (
                f"{later} never refuses anything beside {earlier}, which allows less over the "
                f"same time: drop {later}"
            )
    return "it has no rates: give at least one"


_MOST = 1 << 60  # units that a log can have in a window, as good as any number


class RateList(list[Rate]):
    """Rates that were checked and ordered by interval, to be shared between buckets."""

    __slots__ = ("bounds", "least", "longest_ms", "shortest_ms")

    def __init__(self, rates: Rate | Sequence[Rate]) -> None:
        given = [rates] if isinstance(rates, Rate) or not hasattr(rates, "__iter__") else [*rates]
        checked = [rate for rate in given if isinstance(rate, Rate)]
        if len(checked) < len(given):
            raise WrongType("rates", rates, "a Rate or a list of Rate")
        super().__init__(sorted(checked, key=lambda rate: rate.interval))
        enforce_rate_list(self)
        self.bounds: tuple[tuple[int, int, Rate], ...] = tuple(
            (min(rate.limit, _MOST), rate.interval, rate) for rate in self
        )
        self.least: int = self.bounds[0][0]  # of the limits
        self.shortest_ms: int = self[0].interval
        self.longest_ms: int = self[-1].interval

    def __reduce__(self) -> tuple[type[RateList], tuple[list[Rate]]]:
        return type(self), (list(self),)


def sorted_rates(rates: Rate | Sequence[Rate]) -> RateList:
    """One rate or several, as a copy ordered by interval, checked; a `RateList` as it is.

    Raises:
        WrongType: it is no list, or something in it is no rate.
        InvalidRateList: some rate of the list can never matter.
    """
    # A program may have changed the list that it was given by `bucket.rates`.
    if isinstance(rates, RateList) and [rate for *_, rate in rates.bounds] == rates:
        return rates
    return RateList(rates)


class SharedRates(RateList):
    """The rates of many buckets.

    Raises:
        InvalidRateList: on being changed.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type[RateList], tuple[list[Rate]]]:
        return RateList, (list(self),)  # a copy is its owner's own, who may change it

    if not TYPE_CHECKING:  # a checker knows what a list can do

        def _refuse(self, *_: object, **__: object) -> None:
            message = (
                f"the rates of a bucket cannot be changed in place, {list(self)!r} are checked and "
                "shared: assign a new list to bucket.rates"
            )
            raise InvalidRateList(self, message)

        append = extend = insert = remove = pop = clear = sort = reverse = _refuse
        __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


_MOST_KNOWN = 64
_known: dict[tuple[int, ...], SharedRates] = {}


def shared_rates(rates: Rate | Sequence[Rate]) -> RateList:
    """`sorted_rates` for a factory that makes one bucket after the other from the same rates."""
    if not isinstance(rates, list) or isinstance(rates, RateList):
        return sorted_rates(rates)
    # The very same: equal ones of a user's subclass may differ in other ways.
    key = tuple(map(id, rates))  # of objects that are kept, so nothing else can have their ids
    known = _known.get(key)
    if known is None:
        known = SharedRates(rates)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = known
    return known
