"""The wait queue of a bucket: all that wait at it in this process, in the order in which they came.

Threads and the tasks of any event loop stand in one queue, whichever limiter they came through.
Only the front of it asks the bucket; the others sleep until they are woken, because they have come
to the front. Whoever leaves the queue leaves nothing behind and costs the others nothing.

Over a bucket that is shared with other processes the front asks for *reservations*: moments in the
near future. They belong to the queue, not to a waiter: whoever is at the front when one is due
takes it. So those behind a waiter that leaves move up by themselves.
"""

from __future__ import annotations

import weakref
from bisect import insort
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter._engine.held import HeldReservations
from pyrate_limiter._engine.wait_options import monotonic

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pyrate_limiter._engine.waiter import Held, Waiter
    from pyrate_limiter.abstracts.bucket import AbstractBucket

K = TypeVar("K")

MOST_WOKEN = 50
"""How many tasks are woken together at the most, so that other tasks of their loop run too."""

GRACE_SECONDS = 0.05
"""How long the queue waits for tasks at its front whose event loop is stalled."""


class WaitQueue(HeldReservations):
    """The waiters at one bucket, a linked list; and the reservations that are held for them."""

    def __init__(self, bucket: AbstractBucket) -> None:
        super().__init__()
        self._bucket = bucket  # as long as somebody waits at it, no other has its id
        self._closed = False
        # Parked waiters by event loop, None for threads.
        self._loops: dict[asyncio.AbstractEventLoop | None, int] = {}
        # Units that are free in the bucket, for waiters that have not been woken yet.
        self._room = 0
        # The waiter that wakes when the front is overdue, because the front's loop may be stalled.
        self._watcher: Waiter | None = None
        self.last: Waiter | None = None
        self.units = 0
        self.due = 0.0
        """When the front wakes, on the clock of ``time.monotonic``."""
        self.asking = False
        """Whether the front is asking the bucket."""
        self.awaits = False
        """Whether what the bucket has answered had to be awaited."""
        self.blocked = False
        """Whether a waiter was refused. Before that, those in the queue are about to ask."""
        self.ask_at = 0.0
        """When to ask for reservations again, on that clock."""

    def join(self, waiter: Waiter, held: Held | None = None) -> bool:
        """Take a place in the order of arrival; False if the queue has been dissolved.

        A waiter that asked before there was a queue brings what the bucket has reserved for it. It
        stands in the order of the reservations then.
        """
        with self._lock:
            if self._closed:
                return False
            before = self.last
            while before is not None and _is_later(before, waiter, held):
                before = before.previous
            after = self.first if before is None else before.next
            waiter.previous, waiter.next = before, after
            if before is None:
                self.first = waiter
            else:
                before.next = waiter
            if after is None:
                self.last = waiter
            else:
                after.previous = waiter
            waiter.queue = self
            self.size += 1
            self.units += waiter.weight
            self._weights[waiter.weight] = self._weights.get(waiter.weight, 0) + 1
            if held is not None:
                self.add(held)
            elif self.lacking == 1 and self.size > 1:
                self._wake_front()  # it may ask for one more reservation
            return True

    def add(self, held: Held) -> None:
        """Hold a reservation for whoever is at the front when it is due."""
        with self._lock:
            insort(self.held, held)
            owner = held.owner
            if owner is not None and owner.queue is self:
                owner.held = held
            else:
                held.owner = None

    def leave(self, waiter: Waiter, room: int = 0) -> None:
        """Go, and wake whoever is at the front now. A place may be left again.

        Args:
            waiter: who goes.
            room: how many units the bucket has free for those behind.
        """
        with self._lock:
            if waiter.queue is not self:
                return
            was_first = self.first is waiter
            self._remove(waiter)
            if self.first is None:
                self._close()
            elif was_first:
                self.due = 0.0
                self._room = room or self._room
                if not self.first._woken:
                    self._wake_front()
                if len(self._loops) > 1:
                    self._watch()
            elif waiter is self._watcher:
                self._watch()

    def park(self, waiter: Waiter, loop: asyncio.AbstractEventLoop | None) -> None:
        """Note that a waiter is about to sleep, and where."""
        with self._lock:
            if waiter.queue is self:
                waiter.parked, waiter.loop = True, loop
                self._loops[loop] = self._loops.get(loop, 0) + 1
                if len(self._loops) > 1:
                    self._watch()

    def block(self) -> None:
        """Note that a waiter was refused, and wake those that are not willing to wait."""
        self._room = 0
        if self.blocked:
            return
        with self._lock:
            self.blocked = True
            for waiter in self._waiters():
                if not waiter.options.blocking:
                    waiter.wake()

    def stop_asking(self, waiter: Waiter) -> None:
        """Note that the bucket has answered; another waiter may be at the front by now."""
        self.asking = False
        if self.first is not waiter:
            self.wake_front()

    def wake_front(self) -> None:
        """Have the front look at the queue again."""
        with self._lock:
            if self.first is not None:
                self._wake_front()

    def look_again(self) -> None:
        """Have the front ask at once: units were given back, or a hold was ended."""
        with self._lock:
            self.give_up_future()
            self.ask_at = self.due = 0.0
            self.wake_front()

    def units_before(self, waiter: Waiter) -> int:
        """How many units the waiters want that stand before this one."""
        with self._lock:
            if waiter.queue is not self:
                return self.units
            if self.last is waiter:
                return self.units - waiter.weight
            units, before = 0, waiter.previous
            while before is not None:
                units += before.weight
                before = before.previous
            return units

    def overdue_in(self, watcher: Waiter) -> tuple[float, Waiter, float] | None:
        """In how many seconds the front is overdue, who that is, and when it was to wake.

        None for all but the one who watches over it.
        """
        if watcher is not self._watcher:
            return None
        with self._lock:
            front, due = self.first, self.due
            if front is None or front is watcher:
                return None
            return max(0.0, due - monotonic()) + GRACE_SECONDS, front, due

    def overtake(self, watcher: Waiter, stalled: Waiter, due: float) -> None:
        """Go on without the tasks at the front, if none of them has moved since.

        They come back to their old places when their event loop runs again.
        """
        with self._lock:
            if watcher is not self._watcher or self.asking:
                return
            if self.first is not stalled or self.due != due:
                return
            while self.first is not None and self.first.loop is stalled.loop:
                self._remove(self.first)
            self._watch()

    def _remove(self, waiter: Waiter) -> None:
        before, after = waiter.previous, waiter.next
        if before is None:
            self.first = after
        else:
            before.next = after
        if after is None:
            self.last = before
        else:
            after.previous = before
        waiter.queue = waiter.next = waiter.previous = None
        if waiter.held is not None:
            waiter.held.owner = None
            waiter.held = None
        self.size -= 1
        self.units -= waiter.weight
        _count_down(self._weights, waiter.weight)
        if waiter.parked:
            _count_down(self._loops, waiter.loop)
            waiter.parked = False

    def _wake_front(self) -> None:
        """Wake the front, and with it the tasks of its event loop behind it that fit as well."""
        waiter, room, left = self.first, self._room, MOST_WOKEN
        while waiter is not None:
            follower = waiter.next
            if not waiter.wake():
                self._remove(waiter)
                waiter = follower
                continue
            room, left = room - waiter.weight, left - 1
            alike = follower is not None and follower.loop is waiter.loop is not None
            waiter = follower if alike and room >= 0 and left else None
        self._room = max(0, room)
        if self.first is None:
            self._close()

    def _watch(self) -> None:
        """Choose a waiter outside the front's event loop to watch over the front."""
        front, watcher = self.first, self._watcher
        if front is None or front.loop is None or len(self._loops) == 1:
            self._watcher = None
            return
        if watcher is not None and watcher.queue is self and watcher.loop is not front.loop:
            return
        watcher = front.next
        while watcher is not None and (not watcher.parked or watcher.loop is front.loop):
            watcher = watcher.next
        self._watcher = watcher
        if watcher is not None:
            watcher.wake()  # to sleep on no longer than until it has to look

    def _close(self) -> None:
        self._closed = True
        key = id(self._bucket)
        reference = waited_for.get(key)
        if reference is not None and reference() is self:
            del waited_for[key]


def _count_down(counts: dict[K, int], key: K) -> None:
    left = counts.get(key, 0) - 1  # it is missing where a call was struck down as it came
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)


def _is_later(other: Waiter, waiter: Waiter, held: Held | None) -> bool:
    if held is None:
        return other.ticket > waiter.ticket
    return other.held is None or other.held.due > held.due


def queue_at(bucket: AbstractBucket) -> WaitQueue | None:
    """The queue of a bucket (without its wrapper), if anybody stands in it."""
    reference = waited_for.get(id(bucket))
    queue: WaitQueue | None = None if reference is None else reference()
    if queue is not None:
        front = queue.first
        while front is not None and front.loop is not None and front.loop.is_closed():
            queue.leave(front)
            front = queue.first
        if front is None:
            return None
    return queue


def join(bucket: AbstractBucket, waiter: Waiter, held: Held | None = None) -> WaitQueue:
    """Stand in the queue of a bucket (without its wrapper), see `WaitQueue.join`."""
    key = id(bucket)
    queue_at(bucket)  # forgets those whose event loop is closed
    while True:
        reference = waited_for.get(key)
        queue: WaitQueue | None = None if reference is None else reference()
        if queue is not None and queue.join(waiter, held):
            return queue
        # It was dissolved; or the call that was about to say so was struck down.
        if reference is not None and waited_for.get(key) is reference:
            waited_for.pop(key, None)
        queue = WaitQueue(bucket)
        waited_for.setdefault(key, weakref.ref(queue, _forget(key)))


def _forget(key: int) -> Callable[[object], None]:
    def forget(reference: object) -> None:
        if waited_for.get(key) is reference:
            del waited_for[key]

    return forget
