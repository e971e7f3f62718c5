"""What a bucket in Postgres knows of what it has stored."""

from __future__ import annotations


class Stored:
    """What the bucket knows of the units of a reservation.

    Args:
        token: marks the units.
        due: their moment on the clock of ``time.monotonic``.
        flushes: how often the bucket had been flushed by then.
        kept: how many of them are not cancelled.
    """

    __slots__ = ("due", "flushes", "is_gone", "kept", "token")

    def __init__(self, token: int, due: float, flushes: int, kept: int) -> None:
        self.token: int = token
        self.due: float = due
        self.flushes: int = flushes
        self.kept: int = kept
        self.is_gone: bool = False
        """Whether they are given back, or will be: they could not be confirmed."""

    def become(self, other: Stored) -> None:
        """Stand for the units that were stored in the place of these."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))
