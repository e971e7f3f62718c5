"""Stand-ins that several test folders share: a world with its own time, and users' own classes."""

import asyncio
import inspect
import selectors
from types import SimpleNamespace

from pyrate_limiter import (
    AbstractBucket,
    AbstractClock,
    BucketFactory,
    InMemoryBucket,
    Rate,
    RateItem,
)
from pyrate_limiter._engine import first_try, wait_options

START_US = 1_000_000_000


class World:
    """Time that passes only where somebody sleeps, for threads' sleeps and event loops alike."""

    def __init__(self, monkeypatch):
        self.us = START_US
        self.slept = []
        monkeypatch.setattr("pyrate_limiter.limiter.sleep", self.sleep)
        for module in (first_try, wait_options):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.monotonic))

    @property
    def ms(self):
        return self.us // 1000

    def monotonic(self):
        return self.us / 1e6

    def advance(self, milliseconds):
        self.us += milliseconds * 1000

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.us += max(0, round(seconds * 1e6))

    def on(self, bucket):
        """Give a bucket this world's clock."""
        bucket._clock = ManualClock(self)
        return bucket

    def run(self, coroutine):
        """``asyncio.run`` on an event loop whose time is this world's."""
        loop = _Loop(self)
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(coroutine)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()


class _Selector(selectors.DefaultSelector):
    def __init__(self, world):
        super().__init__()
        self._world = world

    def select(self, timeout=None):
        ready = super().select(0 if timeout else timeout)
        if timeout and not ready:
            self._world.us += max(1, round(timeout * 1e6))
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, world):
        super().__init__(_Selector(world))
        self._world = world

    def time(self):
        return self._world.monotonic()


class ManualClock(AbstractClock):
    def __init__(self, world):
        self.world = world

    def now(self):
        return self.world.ms


class AsyncManualClock(ManualClock):
    async def now(self):
        return self.world.ms


class ListBucket(AbstractBucket):
    """A user's own bucket with the five methods that it has to have, and no more."""

    def __init__(self, rates, clock=None):
        self.rates = rates
        self.units = []
        if clock is not None:
            self._clock = clock

    def put(self, item):
        for rate in self.rates:
            edge = item.timestamp - rate.interval
            live = sum(unit.timestamp >= edge for unit in self.units)
            if live + item.weight > rate.limit:
                self.failing_rate = rate
                return False
        self.failing_rate = None
        self.units += [RateItem(item.name, item.timestamp)] * item.weight
        return True

    def leak(self, current_timestamp=None):
        edge = (current_timestamp or 0) - self.rates[-1].interval
        kept = [unit for unit in self.units if unit.timestamp >= edge]
        leaked, self.units = len(self.units) - len(kept), kept
        return leaked

    def flush(self):
        self.units = []
        self.failing_rate = None

    def count(self):
        return len(self.units)

    def peek(self, index):
        return self.units[-1 - index] if 0 <= index < len(self.units) else None


def in_async_form(cls, *names):
    """A subclass of a user's class in which the named methods have to be awaited."""

    def awaitable(name):
        async def method(self, *args, **kwargs):
            await asyncio.sleep(0)
            result = getattr(cls, name)(self, *args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return method

    title = "".join(name.title() for name in names)
    return type(f"Async{title}{cls.__name__}", (cls,), {name: awaitable(name) for name in names})


class OwnFactory(BucketFactory):
    """A user's own factory: it does not even call ``super().__init__()``."""

    def __init__(self, bucket, clock):
        self.bucket = bucket
        self.clock = clock

    def wrap_item(self, name, weight=1):
        return RateItem(name, self.clock.now(), weight)

    def get(self, item):
        return self.bucket


def one(limit=1, interval=1000):
    return [Rate(limit, interval)]


class Remote(AbstractBucket):
    """A bucket that others may use too: each call takes a trip, and is carried out on the way."""

    is_async = True

    def __init__(self, rates, *, several=True, trip_ms=2):
        self.inner = InMemoryBucket(rates)
        self.rates = rates
        self.several = several
        self.trip_ms = trip_ms
        self.calls = 0

    def stamp(self):
        return self._clock.now()

    async def _trip(self, call, *args, undo=None):
        self.calls += 1
        await asyncio.sleep(self.trip_ms / 2000)
        self.inner._clock = self._clock
        said = call(*args)
        try:
            await asyncio.sleep(self.trip_ms / 2000)
        except asyncio.CancelledError:
            if undo is not None:
                undo(said)
            raise
        return said

    async def reserve(self, item, max_wait_ms=0, buffer_ms=None):
        def undo(decision):
            if decision:
                self.inner.cancel(decision)

        return await self._trip(self.inner.reserve, item, max_wait_ms, buffer_ms, undo=undo)

    async def reserve_several(self, items, max_wait_ms=0, buffer_ms=None, *rest):
        if not self.several:
            return await super().reserve_several(items, max_wait_ms, buffer_ms, *rest)

        def undo(said):
            for decision in said:
                if decision:
                    self.inner.cancel(decision)

        reserve = self.inner.reserve_several
        return await self._trip(reserve, items, max_wait_ms, buffer_ms, *rest, undo=undo)

    async def confirm(self, reservation, now, max_wait_ms=0):
        return await self._trip(self.inner.confirm, reservation, now, max_wait_ms)

    async def confirm_several(self, reservations, now, max_wait_ms=0):
        if not self.several:
            return await super().confirm_several(reservations, now, max_wait_ms)
        confirm = self.inner.confirm
        return await self._trip(lambda: [confirm(it, now, max_wait_ms) for it in reservations])

    async def cancel(self, reservation):
        return await self._trip(self.inner.cancel, reservation)

    async def check(self, item):
        return await self._trip(self.inner.check, item)

    async def put(self, item):
        return (await self.reserve(item)).allowed

    def leak(self, current_timestamp=None):
        return self.inner.leak(current_timestamp)

    def flush(self):
        return self.inner.flush()

    def count(self):
        return self.inner.count()

    def peek(self, index):
        return self.inner.peek(index)
