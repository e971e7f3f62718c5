"""For users' own tests: a clock that is moved by hand, and the suite that any bucket must pass.

`BucketConformance` needs pytest, and is found on first use; the rest needs nothing.
"""

from typing import TYPE_CHECKING

from pyrate_limiter._core.lazy import resolver

if TYPE_CHECKING:
    from pyrate_limiter.testing.clocks import ManualAsyncClock, ManualClock
    from pyrate_limiter.testing.conformance import BucketConformance
    from pyrate_limiter.testing.sleeping import sleeping_advances
    from pyrate_limiter.testing.state_store_conformance import StateStoreConformance

__all__ = [
    "BucketConformance",
    "ManualAsyncClock",
    "ManualClock",
    "StateStoreConformance",
    "sleeping_advances",
]

_PLACES = {
    "BucketConformance": "pyrate_limiter.testing.conformance",
    "ManualAsyncClock": "pyrate_limiter.testing.clocks",
    "ManualClock": "pyrate_limiter.testing.clocks",
    "StateStoreConformance": "pyrate_limiter.testing.state_store_conformance",
    "sleeping_advances": "pyrate_limiter.testing.sleeping",
}

if not TYPE_CHECKING:  # a checker would take every name for known
    __getattr__ = resolver(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
