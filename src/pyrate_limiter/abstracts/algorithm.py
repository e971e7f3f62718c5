"""The policies, under the import path that subclasses use."""

from pyrate_limiter.abstracts.rate import Rate
from pyrate_limiter.algorithms.base import Algorithm, LogAlgorithm, State, StateAlgorithm
from pyrate_limiter.algorithms.decision import ADMITTED, Decision
from pyrate_limiter.algorithms.fixed_window import FixedWindow
from pyrate_limiter.algorithms.gcra import GCRA, TokenBucket
from pyrate_limiter.algorithms.sliding_window_log import SlidingWindowLog

__all__ = [
    "ADMITTED",
    "GCRA",
    "Algorithm",
    "Decision",
    "FixedWindow",
    "LogAlgorithm",
    "Rate",
    "SlidingWindowLog",
    "State",
    "StateAlgorithm",
    "TokenBucket",
]
