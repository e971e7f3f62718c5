"""The waiters of a bucket leave in the order of their claims.

Claims may share a moment, and an operating system wakes whom it likes first. So whoever wakes looks
whether all before him have left, and otherwise waits for the one before him to pass on the word.
A waiter that is stalled is waited for only so long.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from bisect import insort
from typing import TYPE_CHECKING, Any

from pyrate_limiter.abstracts.locks import shared_lock
from pyrate_limiter.abstracts.wrappers import BucketAsyncWrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrate_limiter.abstracts.bucket import AbstractBucket

GRACE_SECONDS = 0.05
"""How long the line stands still for a waiter that does not wake, before it goes on without."""

_DELAY = 10e-6  # between two wake-ups at one moment: more than timers jitter, less than a wake-up
_LONGEST_DELAY = 4e-3


class Line:
    """The places of the waiters at one bucket, in order."""

    def __init__(self) -> None:
        self._lock: Any = shared_lock()
        self._places: list[Place] = []
        self._departures = 0

    def join(self, moment: int, ticket: int) -> Place:
        """Take a place: by the moment of the claim, then by who came first."""
        place = Place(self, moment, ticket)
        with self._lock:
            places = self._places
            if places and places[-1].moment == moment:
                place.delay = min(_LONGEST_DELAY, places[-1].delay + _DELAY)
            insort(places, place)
        return place

    def leave(self, place: Place) -> None:
        """Go, and pass on the word. A place may be left again."""
        with self._lock:
            if place in self._places:
                self._places.remove(place)
                self._departures += 1
            self._call_first()

    def stands_behind(
        self, place: Place, call: Callable[[], object], loop: object = None
    ) -> int | None:
        """How many have left so far, if some are still before this place; it is called later."""
        with self._lock:
            if place not in self._places or self._places[0] is place:
                place.call = None
                return None
            place.call, place.loop = call, loop
            return self._departures

    def overtake(self, place: Place, departures: int) -> None:
        """Go on without those before this place, unless one of them has left in the meantime."""
        with self._lock:
            if self._departures == departures and place in self._places:
                del self._places[: self._places.index(place)]

    def _call_first(self) -> None:
        """Wake the first. The tasks of its event loop that follow wake with it, in this order."""
        if not self._places or self._places[0].call is None:
            return
        first = self._places[0]
        for place in self._places.copy():
            if place.call is None or (place is not first and place.loop is not first.loop):
                return
            call, place.call = place.call, None
            try:
                call()
            except RuntimeError:  # its event loop was closed
                self._places.remove(place)
            if place.loop is None:
                return


class Place:
    """A waiter's place in the line."""

    __slots__ = ("_line", "_ticket", "call", "delay", "loop", "moment")

    def __init__(self, line: Line, moment: int, ticket: int) -> None:
        self._line = line
        self.moment = moment
        self._ticket = ticket
        self.call: Callable[[], object] | None = None
        self.loop: object = None
        self.delay = 0.0
        """Seconds to sleep beyond the moment, so that those who share it wake in order."""

    def __lt__(self, other: Place) -> bool:
        if self.moment != other.moment:
            return self.moment < other.moment
        return self._ticket < other._ticket

    def leave(self) -> None:
        """See `Line.leave`."""
        self._line.leave(self)

    def reach_front(self) -> None:
        """Wait, in this thread, until all before have left or are stalled."""
        called = threading.Lock()
        called.acquire()
        while (departures := self._line.stands_behind(self, called.release)) is not None:
            if not called.acquire(timeout=GRACE_SECONDS):
                self._line.overtake(self, departures)

    async def reach_front_async(self) -> None:
        """Wait, in the running event loop, until all before have left or are stalled."""
        import asyncio

        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        while True:
            called: asyncio.Future[bool] = loop.create_future()

            def wake(stalled: bool = False, called: asyncio.Future[bool] = called) -> None:
                if not called.done():
                    called.set_result(stalled)

            def call(wake: Callable[[], None] = wake) -> None:
                if threading.get_ident() == thread:
                    wake()
                else:
                    loop.call_soon_threadsafe(wake)

            departures = self._line.stands_behind(self, call, loop)
            if departures is None:
                return
            timer = loop.call_later(GRACE_SECONDS, wake, True)
            try:
                if await called:
                    self._line.overtake(self, departures)
            finally:
                timer.cancel()


tickets = itertools.count()
"""Who came first: a ticket is drawn before a claim is made."""

_lines: weakref.WeakKeyDictionary[AbstractBucket, Line] = weakref.WeakKeyDictionary()


def line_of(bucket: AbstractBucket) -> Line:
    """The line of a bucket, shared by all limiters in this process."""
    if isinstance(bucket, BucketAsyncWrapper):
        return line_of(bucket.bucket)
    try:
        line = _lines.get(bucket)
        return _lines.setdefault(bucket, Line()) if line is None else line
    except TypeError:  # slots without __weakref__, or no hash
        return Line()


if hasattr(os, "register_at_fork"):  # pragma: no branch - it is the operating system's affair
    # The threads that stood in line are not in the child.
    os.register_at_fork(after_in_child=_lines.clear)
