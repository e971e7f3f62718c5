"""Writes in doubt: they may be stored although their callers were told otherwise."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

W = TypeVar("W")

MOST_IN_DOUBT = 1000
AT_ONCE = 8  # that one call makes good


class InDoubt(deque[W]):
    """A queue of such writes, until a later call takes back what they have stored.

    Where there are too many the oldest are forgotten: their units expire with their window.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(maxlen=MOST_IN_DOUBT)

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
                write = self.popleft()
            except IndexError:  # also where another thread has taken the last one
                break
            if not fits(taken, write):
                self.appendleft(write)
                break
            taken.append(write)
        return taken
