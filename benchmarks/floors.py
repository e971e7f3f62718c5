"""The same work with nothing of a library around it."""

from __future__ import annotations

import threading
import time
from collections import deque


class ExactLog:
    """A sliding window for one rate: as little as an exact, thread-safe answer takes."""

    def __init__(self, limit: int, interval_ms: int) -> None:
        self.limit, self.interval = limit, interval_ms
        self.stamps: deque[int] = deque(maxlen=limit)
        self.lock = threading.Lock()

    def take(self) -> bool:
        with self.lock:
            now = time.monotonic_ns() // 1_000_000
            stamps = self.stamps
            if len(stamps) == self.limit and stamps[0] + self.interval >= now:
                return False
            stamps.append(now)
            return True
