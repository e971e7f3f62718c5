"""Which sync buckets a leaker sweeps, however many there are."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrate_limiter.abstracts.bucket import AbstractBucket


class Swept:
    """The buckets, without a lock: a garbage collection may come back here at any line.

    Those that `BucketFactory.create` has made stand in a row, which takes a tenth of the memory of
    a dictionary by ``id``, until somebody asks for one of them.
    """

    __slots__ = ("_by_id", "new")

    def __init__(self) -> None:
        self._by_id: dict[int, AbstractBucket] = {}
        self.new: deque[AbstractBucket] = deque()
        """Where those are added that were never added before."""

    @property
    def by_id(self) -> dict[int, AbstractBucket]:
        """The buckets by ``id``, to be changed by whoever asks."""
        by_id, new = self._by_id, self.new
        with suppress(IndexError):  # it is empty, perhaps by the help of another thread
            while new:
                bucket = new.popleft()
                by_id[id(bucket)] = bucket
        return by_id

    def __bool__(self) -> bool:
        return bool(self.new or self._by_id)

    def all(self) -> list[AbstractBucket]:
        """All of them, in the order in which they came."""
        return [*self._by_id.values(), *self.new]

    def clear(self) -> None:
        """Forget them."""
        self.new.clear()
        self._by_id.clear()
