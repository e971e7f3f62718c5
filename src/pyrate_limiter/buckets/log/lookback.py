"""How far back a configuration looks: no other one on the same data deletes what it still counts.

During a deploy, programs with different rates share one log. Each of them notes there how far back
it looks, and keeps the units that the one which looks furthest still counts. A note outlives its
program by as long as that looked back: whoever is back by then finds all that counts for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.algorithm import LogAlgorithm
    from pyrate_limiter.utils import RateList

AGAIN_MS = 60_000
"""After so long a program that is in use notes it again."""

FRESH_MS = 2 * AGAIN_MS
"""A note that stands for so much longer than its program looks back need not be made again."""

STANDS_MS = 3 * AGAIN_MS
"""By so much longer than its program looks back a new note stands."""

_LOOKS = 8


def looks_back_ms(algorithm: LogAlgorithm, rates: RateList) -> int:
    """For how many ms units have to be kept, whenever they are looked at.

    It is seen from what the policy looks at in the near future. Where that is more than the longest
    interval, it is a multiple of it.
    """
    longest, now = rates.longest_ms, int(time.time() * 1000)
    near = max(longest, FRESH_MS)
    looks = [now + near * place // _LOOKS for place in range(_LOOKS + 1)]
    kept = max(moment - algorithm.leak_bound(rates, moment) for moment in looks)
    if kept < longest:
        return longest - 1  # a window, at its end
    return longest * -(-kept // longest)
