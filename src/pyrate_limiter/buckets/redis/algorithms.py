"""Which algorithms the scripts in Redis stand for."""

from __future__ import annotations

import math
from functools import lru_cache

from pyrate_limiter.abstracts.algorithm import (
    GCRA,
    FixedWindow,
    LogAlgorithm,
    SlidingWindowLog,
    StateAlgorithm,
)
from pyrate_limiter.buckets.redis.request import Script
from pyrate_limiter.errors import AlgorithmMismatch, NoRedisImplementation


def kind_of(algorithm: LogAlgorithm) -> type[LogAlgorithm]:
    """Which of the stock algorithms it is."""
    return FixedWindow if isinstance(algorithm, FixedWindow) else SlidingWindowLog


def checked(algorithm: LogAlgorithm) -> LogAlgorithm:
    """A log algorithm that the script knows.

    Raises:
        AlgorithmMismatch: it is another, or has methods of its own.
    """
    expected = "a SlidingWindowLog or FixedWindow as they are: a script in Redis runs no Python"
    if not isinstance(algorithm, (SlidingWindowLog, FixedWindow)):
        raise AlgorithmMismatch(algorithm, "RedisBucket", expected)
    stock = kind_of(algorithm)
    for name in vars(LogAlgorithm) | vars(stock) | {"max_weight": 0}:
        own = name in getattr(algorithm, "__dict__", ()) or (
            getattr(type(algorithm), name, None) is not getattr(stock, name, None)
        )
        if own and not name.startswith("_"):
            raise AlgorithmMismatch(
                algorithm, "RedisBucket", f"{expected}, not one with its own {name}"
            )
    return algorithm


def script_of(algorithm: StateAlgorithm) -> Script:
    """The algorithm's script.

    Raises:
        NoRedisImplementation: it has none, or overrides in Python what the script does.
    """
    text = algorithm.redis_script()
    if text is None or _steps_in_python(type(algorithm)):
        raise NoRedisImplementation(algorithm)
    return Script.of(text)


@lru_cache(maxsize=256)
def _steps_in_python(kind: type[StateAlgorithm]) -> bool:
    """Whether a class has a `step` of its own beside the script of another."""
    lineage = kind.__mro__

    def definer(name: str) -> float:
        return next((depth for depth, base in enumerate(lineage) if name in vars(base)), math.inf)

    return definer("step") < definer("redis_script")


def knows_reservations(algorithm: StateAlgorithm) -> bool:
    """Whether the algorithm's script is the one that knows reservations."""
    return type(algorithm).redis_script is GCRA.redis_script


def is_stock(algorithm: StateAlgorithm) -> bool:
    """Whether the script that knows reservations does what the algorithm does."""
    return knows_reservations(algorithm) and not _steps_in_python(type(algorithm))
