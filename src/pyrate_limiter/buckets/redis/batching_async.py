"""The asyncio callers of one client, who share calls of a script."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING

from pyrate_limiter.buckets.redis.errors import given_up
from pyrate_limiter.buckets.redis.request import MOST_STEPS, fitting, parts_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from typing import TypeAlias

    from pyrate_limiter.buckets.redis.request import Answer, Request
    from pyrate_limiter.buckets.redis.sending import AsyncSender

    # A request, and who waits for its answer; nobody waits for what undoes a late one.
    Entry: TypeAlias = tuple[Request, "asyncio.Future[Answer] | None"]

_HUNG_SECONDS = 1.0  # after so long, and a caller's time limit, a call holds up no others
_MOST_HUNG = 8


class LoopBatcher:
    """A `TaskBatcher` for each event loop that uses the client.

    Args:
        sender: makes the calls.
    """

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender
        self._batchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, TaskBatcher]
        self._batchers = weakref.WeakKeyDictionary()
        # The loop that asked last, and its batcher: a look into the dictionary takes a while.
        self._recent: tuple[Callable[[], object], TaskBatcher] = (_no_loop, TaskBatcher(sender))

    def ask(self, request: Request) -> Awaitable[Answer]:
        """Send a request together with those of the other tasks."""
        loop = asyncio.get_running_loop()
        recent, batcher = self._recent
        if recent() is not loop:
            batcher = self._batchers.setdefault(loop, TaskBatcher(self._sender))
            self._recent = (weakref.ref(loop), batcher)
        return batcher.ask(request, loop)


def _no_loop() -> None:
    pass


class TaskBatcher:
    """The callers of one event loop: all that ask in one turn share a round trip.

    While one is under way, those who come gather for the next; so the steps reach the server in
    the order in which their callers came. It is a task of its own that talks to the server: a
    caller that is cancelled does not disturb the connection. A call that hangs, because its host
    has vanished without a word, is left to itself: the next ones take another connection.
    """

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender
        self._waiting: list[Entry] = []
        self._runner: asyncio.Task[None] | None = None
        self._sent: list[Entry] = []  # what the runner waits for
        self._hung: list[tuple[asyncio.Task[None], list[Entry]]] = []

    async def ask(self, request: Request, loop: asyncio.AbstractEventLoop) -> Answer:
        """The answer to a request."""
        future: asyncio.Future[Answer] = loop.create_future()
        self._send_soon((request, future))
        timer = None
        if request.limit is not None:
            timer = loop.call_later(request.limit, self._expire, request, future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._undo(request, future.result())  # cancelled in the turn of its answer
            raise
        finally:
            request.gone = True
            if timer is not None:
                timer.cancel()

    def _expire(self, request: Request, future: asyncio.Future[Answer]) -> None:
        if not future.done():
            future.set_exception(self._sender.too_slow(request))
        if self._runner is not None and self._sent:
            asked = self._sent[0][0].asked
            if asked is not None and time.monotonic() - asked >= _HUNG_SECONDS:
                self._leave(self._runner)

    def _leave(self, runner: asyncio.Task[None]) -> None:
        """Let the call under way go on without holding up the next ones."""
        self._hung.append((runner, self._sent))
        self._runner = None
        if len(self._hung) > _MOST_HUNG:  # each holds a connection
            oldest, batch = self._hung.pop(0)
            for _, future in batch:  # those who gave no time limit
                if future is not None and not future.done():
                    future.set_exception(given_up())
            oldest.cancel()
        self._run_soon()

    def _send_soon(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._run_soon()

    def _run_soon(self) -> None:
        if self._runner is None and self._waiting:
            # Not by the loop's factory: an eager one would begin it before it is known here.
            self._runner = asyncio.Task(self._run(), loop=asyncio.get_running_loop())
            self._sent = []

    async def _run(self) -> None:
        this, sent = asyncio.current_task(), self._waiting
        try:
            while self._waiting and self._runner is this:
                most = 1
                if len(self._waiting) > 1:
                    most = fitting([request for request, _ in self._waiting[:MOST_STEPS]])
                batch, self._waiting = self._waiting[:most], self._waiting[most:]
                sent = [entry for entry in batch if entry[1] is None or not entry[1].done()]
                self._sent = sent
                groups = _grouped(sent) if len(sent) > 1 else [sent] if sent else []
                if groups:
                    calls = [[request for request, _ in entries] for entries in groups]
                    for entries, outcome in zip(groups, await self._sender.send(calls)):
                        self._deliver(entries, outcome)
        except BaseException:
            if self._runner is this:
                sent, self._waiting = sent + self._waiting, []
            for _, future in sent:
                if future is not None:
                    future.cancel()
            raise
        finally:
            if self._runner is this:
                self._runner = None
            self._hung = [hung for hung in self._hung if hung[0] is not this]

    def _deliver(self, entries: list[Entry], outcome: Answer | Exception) -> None:
        if isinstance(outcome, Exception):
            for _, future in entries:
                if future is not None and not future.done():
                    future.set_exception(outcome)
            return
        parts = parts_of(outcome, [request for request, _ in entries])
        for (request, future), answer in zip(entries, parts):
            if future is None:
                continue
            if future.done():
                self._undo(request, answer)
            else:
                future.set_result(answer)

    def _undo(self, request: Request, answer: Answer) -> None:
        undo = request.undone(answer)
        if undo is not None:
            self._send_soon((undo, None))


def _grouped(batch: list[Entry]) -> list[list[Entry]]:
    """The entries whose requests may go in one call, in the order of the first of each."""
    groups: dict[Hashable, list[Entry]] = {}
    head, entries = None, []
    for entry in batch:
        request = entry[0]
        if request.head is not head or not request.shared:  # most are about the same key
            head = request.head
            entries = groups.setdefault(request.group, [])
        entries.append(entry)
    return list(groups.values())
