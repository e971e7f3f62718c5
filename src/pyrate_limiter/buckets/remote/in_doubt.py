"""Writes in doubt: they may be stored although their callers were told otherwise."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

W = TypeVar("W")

MOST_IN_DOUBT = 1000
AT_ONCE = 8  # that one call makes good


class InDoubt(Generic[W]):
    """A queue of such writes, until a later call takes back what they have stored.

    Where there are too many the oldest are forgotten: their units expire with their window.
    """

    __slots__ = ("_writes",)

    def __init__(self) -> None:
        self._writes: deque[W] = deque(maxlen=MOST_IN_DOUBT)

    def __bool__(self) -> bool:
        return bool(self._writes)

    def __len__(self) -> int:
        return len(self._writes)

    def extend(self, writes: Iterable[W]) -> None:
        """Put writes at the end of the queue."""
        self._writes.extend(writes)

    def take(
        self, fits: Callable[[list[W], W], bool] = lambda _taken, _write: True, most: int = AT_ONCE
    ) -> list[W]:
        """Take out those that one call may make good, from the oldest on.

        Args:
            fits: whether a write can be taken behind those that were taken before it.
            most: how many at the most.
        """
        taken: list[W] = []
        while len(taken) < most:
            try:
                write = self._writes.popleft()
            except IndexError:  # also where another thread has taken the last one
                break
            if not fits(taken, write):
                self._writes.appendleft(write)
                break
            taken.append(write)
        return taken
