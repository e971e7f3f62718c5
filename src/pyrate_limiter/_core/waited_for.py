"""What the shortest way into a bucket looks at: who waits at it, and whether it is changed.

A call that finds a free unit must not pass those who wait. The wait queues are the limiter's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

waited_for: dict[int, Any] = {}  # a queue is the limiter's affair
"""By ``id`` of the bucket, a weak reference to its wait queue, while somebody stands in that."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - it is the operating system's affair
    # The threads that wait are not in the child.
    os.register_at_fork(after_in_child=waited_for.clear)


_USED = ("put", "put_decision", "waiting", "reserve", "now", "limiter_lock")


def is_unchanged(kind: type, own: type, methods: Sequence[str] = _USED) -> bool:
    """Whether a class has methods from ``own``: all that its shortest way does not call."""
    return all(getattr(kind, name) is getattr(own, name) for name in methods)
