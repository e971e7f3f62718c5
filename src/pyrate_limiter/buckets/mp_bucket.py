"""The log shared by processes, under the import path of 4.5.1."""

from pyrate_limiter._core.clocks import MonotonicClock
from pyrate_limiter.abstracts.algorithm import LogAlgorithm
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.memory.bucket import InMemoryBucket
from pyrate_limiter.buckets.multiprocess.bucket import SharedLogBucket

__all__ = [
    "InMemoryBucket",
    "LogAlgorithm",
    "MonotonicClock",
    "MultiprocessBucket",
    "Rate",
    "RateItem",
]


# Programs know it as a kind of `InMemoryBucket`; all that it does is the other one's.
class MultiprocessBucket(SharedLogBucket, InMemoryBucket):
    """An `InMemoryBucket` that processes share: hand it to child processes, or pickle it.

    Each process holds a replica of the log, brought up to date under the shared lock. Waiters of
    all processes are served in the order in which they came. A process that dies, even while it
    holds the lock of `init`, neither blocks the others nor leaves anything half done behind.

    Args:
        rates: the limits; all of them hold.
        items: the list that is shared: a manager's, or that of another bucket. It reads as the
            stored units, oldest first, and what is held, where something is.
        mp_lock: what guards it in all processes, a ``multiprocessing.RLock()`` for example.
        algorithm: a `LogAlgorithm`; `SlidingWindowLog` if left out.

    Raises:
        NotShared: ``items`` is no ``ListProxy``.
        InvalidRateList: some rate of the list can never matter.
        AlgorithmMismatch: the algorithm does not work on a log.
    """
