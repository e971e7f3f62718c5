"""Limiters that tests of HTTP helpers hand to them."""

from pyrate_limiter import InMemoryBucket, Limiter, Rate

HOUR_MS = 3_600_000


class Recording(Limiter):
    """Says what it was asked. Its event ``second`` is set where a second task asks."""

    def __init__(self, limit=1000, interval=HOUR_MS):
        super().__init__(Rate(limit, interval))
        self.asked = []
        self.second = None

    def try_acquire(self, *args, **kwargs):
        self.asked.append((args, kwargs))
        return super().try_acquire(*args, **kwargs)

    async def try_acquire_async(self, *args, **kwargs):
        self.asked.append((args, kwargs))
        if len(self.asked) == 2 and self.second is not None:
            self.second.set()
        return await super().try_acquire_async(*args, **kwargs)

    def acquire(self, *args, **kwargs):
        self.asked.append((args, kwargs))
        return super().acquire(*args, **kwargs)

    async def acquire_async(self, *args, **kwargs):
        self.asked.append((args, kwargs))
        return await super().acquire_async(*args, **kwargs)

    @property
    def names(self):
        return [args[0] for args, _ in self.asked]


class NeverFits(InMemoryBucket):
    """A user's bucket that admits nothing, and never will."""

    def __init__(self):
        super().__init__([Rate(1, HOUR_MS)])

    def put(self, item):
        self.failing_rate = self.rates[0]
        return False

    def waiting(self, item):
        return -1


class Broken(InMemoryBucket):
    """A store that is down."""

    def __init__(self):
        super().__init__([Rate(1, HOUR_MS)])

    def put(self, item):
        raise ConnectionError("the store is down")
