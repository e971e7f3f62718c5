"""Reservations in memory belong to the process whose threads and tasks wait for them.

They are copied when it forks, and their waiters are not: a child that kept them would wait for
somebody who never comes.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Holder(Protocol):
    """A bucket or store with reservations in this process's memory."""

    def forget_reservations(self) -> None:
        """Give back what is reserved and not used yet."""


_holders: weakref.WeakValueDictionary[int, Holder] = weakref.WeakValueDictionary()


def note_reservations(holder: Holder) -> None:
    """Let a forked child forget the holder's reservations."""
    _holders[id(holder)] = holder


def _after_fork() -> None:
    for holder in list(_holders.values()):
        holder.forget_reservations()
    _holders.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - it is the operating system's affair
    os.register_at_fork(after_in_child=_after_fork)
