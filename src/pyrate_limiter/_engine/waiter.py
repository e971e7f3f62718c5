"""One call in a wait queue, and how it sleeps there: a thread on a lock, a task on a future."""

from __future__ import annotations

import itertools
import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrate_limiter._engine.wait_options import monotonic
from pyrate_limiter.abstracts.reservation import Reservation

if TYPE_CHECKING:
    import asyncio
    from typing import Protocol

    from pyrate_limiter._engine.wait_options import WaitOptions
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.bucket import AbstractBucket
    from pyrate_limiter.abstracts.rate import RateItem

    class _Queue(Protocol):
        """What a waiter asks of the `WaitQueue` in which it stands."""

        first: Waiter | None
        asking: bool

        def park(self, waiter: Waiter, loop: asyncio.AbstractEventLoop | None) -> None: ...
        def leave(self, waiter: Waiter) -> None: ...
        def overdue_in(self, watcher: Waiter) -> tuple[float, Waiter, float] | None: ...
        def overtake(self, watcher: Waiter, stalled: Waiter, due: float) -> None: ...


tickets = itertools.count()
"""The order of arrival: each call takes the next number before its first attempt."""


class Held:
    """A reservation that belongs to the queue. Whoever is at the front uses it.

    Args:
        reservation: the bucket's.
        due: when it may be used, on the clock of ``time.monotonic``; long ago where the bucket has
            admitted its item already.
        asked: when the bucket was asked, on that clock.
        made: when its answer was here.
        owner: the waiter under whose name it is stored, while it waits.
    """

    __slots__ = ("asked", "due", "made", "owner", "reservation")

    def __init__(
        self,
        reservation: Reservation,
        due: float,
        asked: float,
        made: float,
        owner: Waiter | None = None,
    ) -> None:
        self.reservation = reservation
        self.due = due
        self.asked = asked
        self.made = made
        self.owner = owner

    @classmethod
    def of(
        cls,
        bucket: AbstractBucket,
        item: RateItem,
        decision: Decision,
        asked: float,
        owner: Waiter | None,
    ) -> Held:
        """What a bucket has stored for an item that it has admitted."""
        stored = decision if isinstance(decision, Reservation) else Reservation.of(item, decision)
        pause = bucket.pause(stored) if stored.wait_ms else -math.inf
        now = monotonic()  # after that: whoever is held up in between gets no place in front
        return cls(stored, now + pause, asked, now, owner)

    @property
    def weight(self) -> int:
        """Its units."""
        return self.reservation.item.weight

    @property
    def waits(self) -> bool:
        """Whether it is for a moment to come, and still to be confirmed."""
        return self.reservation.wait_ms > 0

    def __lt__(self, other: Held) -> bool:
        return self.due < other.due


class Waiter:
    """One call that waits.

    Args:
        name: what it asks for.
        weight: how many units.
        options: how long it waits.
        ticket: its place in the order of arrival.
        stamped_by_bucket: whether its items are stamped with the bucket's own time, so that others
            can make them too.
    """

    __slots__ = (
        "_future",
        "_lock",
        "_thread",
        "_woken",
        "held",
        "loop",
        "name",
        "next",
        "options",
        "parked",
        "previous",
        "queue",
        "stamped_by_bucket",
        "ticket",
        "weight",
    )

    def __init__(
        self, name: str, weight: int, options: WaitOptions, ticket: int, *, stamped_by_bucket: bool
    ) -> None:
        self.name = name
        self.weight = weight
        self.options = options
        self.ticket = ticket
        self.stamped_by_bucket = stamped_by_bucket
        self.queue: _Queue | None = None
        self.held: Held | None = None
        """What is reserved under its name, if anything."""
        self.next: Waiter | None = None
        self.previous: Waiter | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.parked = False
        # What it sleeps on: a lock that is held, or a future of its event loop, in this thread.
        self._lock: threading.Lock | None = None
        self._future: asyncio.Future[None] | None = None
        self._thread = 0
        self._woken = False

    @property
    def is_first(self) -> bool:
        """Whether it is at the front of its queue, and no call that was there is still asking."""
        queue = self.queue
        return queue is not None and queue.first is self and not queue.asking

    def wake(self) -> bool:
        """End its sleep, or the next one where it is awake; False if its event loop is closed."""
        self._woken = True
        lock, future = self._lock, self._future
        if lock is not None:
            with suppress(RuntimeError):  # it was woken already
                lock.release()
            return True
        if future is None:
            return self.loop is None or not self.loop.is_closed()
        try:
            if threading.get_ident() == self._thread:
                _finish(future)
            else:
                future.get_loop().call_soon_threadsafe(_finish, future)
        except RuntimeError:  # it is closed
            return False
        return True

    def sleep(self, seconds: float | None) -> bool:
        """Block this thread until it is woken, or for so many seconds; whether it was woken."""
        queue, seconds, stalled = self._before_sleep(None, seconds)
        lock = threading.Lock()
        lock.acquire()
        self._lock = lock
        try:
            if not self._woken:
                longest = threading.TIMEOUT_MAX
                lock.acquire(timeout=-1 if seconds is None else min(seconds, longest))
        finally:
            self._lock = None
        return self._after_sleep(queue, stalled)

    async def sleep_async(self, seconds: float | None) -> bool:
        """`sleep` in the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        queue, seconds, stalled = self._before_sleep(loop, seconds)
        self._thread = threading.get_ident()
        self._future = future = loop.create_future()
        timer = None
        try:
            if not self._woken:
                if seconds is not None:
                    timer = loop.call_later(seconds, _finish, future)
                await future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()
        return self._after_sleep(queue, stalled)

    def _before_sleep(
        self, loop: asyncio.AbstractEventLoop | None, seconds: float | None
    ) -> tuple[_Queue | None, float | None, tuple[Waiter, float] | None]:
        """Note where it sleeps; one that watches over the front sleeps until that is overdue."""
        queue = self.queue
        if queue is None:
            return None, seconds, None
        if not self.parked:
            queue.park(self, loop)
        overdue = queue.overdue_in(self)
        if overdue is None or (seconds is not None and seconds <= overdue[0]):
            return queue, seconds, None
        return queue, overdue[0], overdue[1:]

    def _after_sleep(self, queue: _Queue | None, stalled: tuple[Waiter, float] | None) -> bool:
        woken, self._woken = self._woken, False
        if woken or queue is None or stalled is None:
            return woken
        queue.overtake(self, *stalled)
        return True


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
