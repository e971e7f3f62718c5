"""Which buckets have somebody waiting at them.

A call that finds a free unit must not pass those who wait. So a bucket's shortest way looks here
first; the wait queues themselves are the limiter's.
"""

from __future__ import annotations

import os
from typing import Any

waited_for: dict[int, Any] = {}
"""By ``id`` of the bucket, a weak reference to its wait queue, while somebody stands in that."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - it is the operating system's affair
    # The threads that wait are not in the child.
    os.register_at_fork(after_in_child=waited_for.clear)
