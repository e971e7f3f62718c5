"""What is remembered of a server's denials, so that it need not be asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyrate_limiter.abstracts.algorithm import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter.abstracts.rate import Rate, RateItem


class Denial(NamedTuple):
    """A denial that is repeated for a while without asking the server.

    Buckets in this process's memory or on its disk keep their own: theirs holds by the bucket's
    clock until something changes; this one by ``time.monotonic``, whatever the server's clock does.

    Attributes:
        until: the second on ``time.monotonic`` from which on the server is asked again.
        fits: the second on ``time.monotonic`` at which the weight fits.
        weight: the units that were asked for.
        rates: the limits at that time.
        rate: the one that is short.
        remaining: see `Decision`.
        reset_after_ms: see `Decision`.
    """

    until: float
    fits: float
    weight: int
    rates: Sequence[Rate]
    rate: Rate
    remaining: int | None = None
    reset_after_ms: int | None = None

    def again(self, now: float) -> Decision:
        """The denial as it is at the second ``now``."""
        wait = int((self.fits - now) * 1000) + 1
        return Decision(self.rate, wait, 0, self.remaining, self.reset_after_ms)


class LastDenial(NamedTuple):
    """What `AbstractBucket.waiting` answers from after a denial.

    Attributes:
        weight: the units that were asked for.
        moment: when they fit, in ms on the clock of the items; None for never.
    """

    weight: int
    moment: int | None

    def waiting(self, item: RateItem) -> int:
        """The milliseconds that an item of this weight has to wait; -1 for ever."""
        return -1 if self.moment is None else max(0, self.moment - item.timestamp)
