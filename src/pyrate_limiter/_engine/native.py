"""What a bucket can do by itself."""

from __future__ import annotations

from functools import lru_cache

from pyrate_limiter._core.waited_for import is_unchanged
from pyrate_limiter.abstracts.bucket import AbstractBucket
from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper


def unwrapped(bucket: AbstractBucket) -> AbstractBucket:
    """The bucket inside its `BucketAsyncWrapper`, if it has one."""
    while type(bucket) is BucketAsyncWrapper:
        bucket = bucket.bucket
    return bucket


def stores_ahead(bucket: AbstractBucket) -> bool:
    """Whether `reserve` is the bucket's own, and does not bypass what a subclass overrides."""
    return _reserves_by_itself(unwrapped(bucket).__class__)


@lru_cache(maxsize=256)
def _reserves_by_itself(kind: type[AbstractBucket]) -> bool:
    lineage = kind.__mro__

    def definer(name: str) -> int:
        return next(depth for depth, base in enumerate(lineage) if name in vars(base))

    reserve = definer("reserve")
    return lineage[reserve] is not AbstractBucket and all(
        reserve <= definer(name) for name in ("put", "put_decision", "waiting")
    )


@lru_cache(maxsize=256)
def takes_limit(kind: type[AbstractBucket]) -> bool:
    """Whether the `reserve` of a class takes ``limit_ms`` and ``brief``."""
    from inspect import signature  # slow to import, needed only here

    return {"limit_ms", "brief"} <= signature(kind.reserve).parameters.keys()


def puts_at_once(bucket: AbstractBucket) -> bool:
    """Whether `put` admits in one step in this process's memory, as `reserve` would."""
    return puts_as_known(bucket.__class__) and bucket.puts_at_once


@lru_cache(maxsize=256)
def puts_as_known(kind: type) -> bool:
    """Whether a class has `put` and what goes with it from the one that knows how it works."""
    knows = next((base for base in kind.__mro__ if "puts_at_once" in vars(base)), None)
    methods = ("put", "put_decision", "waiting", "reserve", "limiter_lock")
    return knows is not None and is_unchanged(kind, knows, methods)
