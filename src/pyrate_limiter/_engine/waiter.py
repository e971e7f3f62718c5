"""One call in a wait queue, and how it sleeps there: a thread on a lock, a task on a future."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from pyrate_limiter._engine.held import Held
    from pyrate_limiter._engine.wait_options import Terms
    from pyrate_limiter._engine.wait_queue import WaitQueue

tickets = itertools.count()
"""Who came first: a ticket is drawn before the first attempt."""


class Waiter:
    """One call that waits.

    Args:
        name: what it asks for.
        weight: how many units.
        terms: how long it waits.
        ticket: its place in the order of arrival.
        stamped_by_bucket: whether its items are stamped with the bucket's own time, so that others
            can make them too.
    """

    __slots__ = (
        "_asleep",
        "_thread",
        "_woken",
        "held",
        "loop",
        "name",
        "next",
        "parked",
        "previous",
        "queue",
        "stamped_by_bucket",
        "terms",
        "ticket",
        "weight",
    )

    def __init__(
        self, name: str, weight: int, terms: Terms, ticket: int, *, stamped_by_bucket: bool
    ) -> None:
        self.name = name
        self.weight = weight
        self.terms = terms
        self.ticket = ticket
        self.stamped_by_bucket = stamped_by_bucket
        self.queue: WaitQueue | None = None
        self.held: Held | None = None
        """What is reserved under its name, if anything."""
        self.next: Waiter | None = None
        self.previous: Waiter | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.parked = False
        # What it sleeps on: a lock that is held, or a future of its event loop, in this thread.
        self._asleep: Any = None
        self._thread = 0
        self._woken = False

    @property
    def is_first(self) -> bool:
        """Whether it is at the front of its queue, and nobody who was is still at it."""
        queue = self.queue
        return queue is not None and queue.first is self and not queue.asking

    def wake(self) -> bool:
        """End its sleep, or the next one where it is awake; False if its event loop is closed."""
        self._woken = True
        asleep, loop = self._asleep, self.loop
        if asleep is None:
            return loop is None or not loop.is_closed()
        if loop is None:
            _release(asleep)
            return True
        try:
            if threading.get_ident() == self._thread:
                _finish(asleep)
            else:
                loop.call_soon_threadsafe(_finish, asleep)
        except RuntimeError:  # it is closed
            return False
        return True

    def sleep(self, seconds: float | None) -> bool:
        """Block this thread until it is woken, or for so many seconds; whether it was woken."""
        queue, seconds, stalled = self._before_sleep(None, seconds)
        asleep = threading.Lock()
        asleep.acquire()
        self._asleep = asleep
        try:
            if not self._woken:
                longest = threading.TIMEOUT_MAX
                asleep.acquire(timeout=-1 if seconds is None else min(seconds, longest))
        finally:
            self._asleep = None
        return self._after_sleep(queue, stalled)

    async def sleep_async(self, seconds: float | None) -> bool:
        """`sleep` in the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        queue, seconds, stalled = self._before_sleep(loop, seconds)
        self._thread = threading.get_ident()
        self._asleep = asleep = loop.create_future()
        timer = None
        try:
            if not self._woken:
                if seconds is not None:
                    timer = loop.call_later(seconds, _finish, asleep)
                await asleep
        finally:
            self._asleep = None
            if timer is not None:
                timer.cancel()
        return self._after_sleep(queue, stalled)

    def _before_sleep(
        self, loop: asyncio.AbstractEventLoop | None, seconds: float | None
    ) -> tuple[WaitQueue | None, float | None, tuple[Waiter, float] | None]:
        """Note where it sleeps; whoever watches over the front sleeps until it is overdue."""
        queue = self.queue
        if queue is None:
            return None, seconds, None
        if not self.parked:
            queue.park(self, loop)
        overdue = queue.overdue_in(self)
        if overdue is None or (seconds is not None and seconds <= overdue[0]):
            return queue, seconds, None
        return queue, overdue[0], overdue[1:]

    def _after_sleep(self, queue: WaitQueue | None, stalled: tuple[Waiter, float] | None) -> bool:
        woken, self._woken = self._woken, False
        if woken or queue is None or stalled is None:
            return woken
        queue.overtake(self, *stalled)
        return True


def _release(asleep: threading.Lock) -> None:
    with suppress(RuntimeError):  # it was woken already
        asleep.release()


def _finish(asleep: asyncio.Future[None]) -> None:
    if not asleep.done():
        asleep.set_result(None)
