"""The asyncio callers of one client, who share calls of a script."""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.redis.client import NO_CONNECTION_SECONDS
from pyrate_limiter.buckets.redis.outage import is_no_connection
from pyrate_limiter.buckets.redis.request import MOST_STEPS, fitting, numbers_of, parts_of, words_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrate_limiter.buckets.redis.client import Server
    from pyrate_limiter.buckets.redis.request import Command, Request

    # A request, and who waits for its answer.
    _Entry = tuple[Request, "asyncio.Future[Any] | None"]

_HUNG_SECONDS = 1.0  # after so long, and a caller's time limit, a call holds up no others
_MOST_HUNG = 8


class Lanes:
    """One `Lane` for each event loop that uses the client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lanes: weakref.WeakKeyDictionary[Any, Lane] = weakref.WeakKeyDictionary()
        # The loop that asked last, and its lane: a look into the dictionary takes a while.
        self._recent: tuple[Any, Lane] = (_no_loop, Lane(server))

    def ask(self, request: Request) -> Awaitable[Any]:
        """Send a request together with those of the other tasks."""
        loop = asyncio.get_running_loop()
        recent, lane = self._recent
        if recent() is not loop:
            lane = self._lanes.setdefault(loop, Lane(self._server))
            self._recent = (weakref.ref(loop), lane)
        return lane.ask(request, loop)

    async def within(self, step: Command, call: Awaitable[Any]) -> Any:
        """Await the call of a step for as long as that may take."""
        try:
            return await asyncio.wait_for(call, step.limit)
        except asyncio.TimeoutError:
            if step.limit is None:
                raise
            raise self._server.too_slow(step) from None


def _no_loop() -> None:
    pass


class Lane:
    """The callers of one event loop: all that ask in one turn share a round trip.

    While one is under way, those who come gather for the next; so the steps reach the server in
    the order in which their callers came. It is a task of its own that talks to the server: a
    caller that is cancelled does not disturb the connection. A call that hangs, because its host
    has vanished without a word, is left to itself: the next ones take another connection.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: list[_Entry] = []
        self._runner: asyncio.Task[None] | None = None
        self._sent: list[_Entry] = []  # what the runner waits for
        self._hung: list[tuple[asyncio.Task[None], list[_Entry]]] = []

    async def ask(self, request: Request, loop: asyncio.AbstractEventLoop) -> Any:
        """The answer to a request."""
        future = loop.create_future()
        self._waiting.append((request, future))
        if self._runner is None:
            self._run_soon()
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
            if timer is not None:
                timer.cancel()

    def _expire(self, request: Request, future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_exception(self._server.too_slow(request))
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
                    error = "Redis does not answer; the connection was given up"
                    future.set_exception(self._server.errors.TimeoutError(error))
            oldest.cancel()
        self._run_soon()

    def _send_soon(self, entry: _Entry) -> None:
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
                if len(sent) == 1:
                    await self._send_one(*sent[0])
                else:
                    await self._send(sent)
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

    async def _send_one(self, request: Request, future: asyncio.Future[Any] | None) -> None:
        script, *header = request.head
        args = (1, *header, *words_of(request.steps))
        server, entries = self._server, [(request, future)]
        request.asked = time.monotonic()
        try:
            reply = await server.client.evalsha(script.sha, *args)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            again = isinstance(error, server.errors.NoScriptError) or is_no_connection(error)
            reply = await self._outcome(entries, self._alone, script, args) if again else error
        self._deliver(entries, reply)

    async def _send(self, batch: list[_Entry]) -> None:
        groups: dict[Any, list[_Entry]] = {}
        head, entries = None, []
        for entry in batch:
            request = entry[0]
            if request.head is not head or not request.shared:
                head = request.head
                entries = groups.setdefault(head if request.shared else (head, id(entry)), [])
            entries.append(entry)
        if len(groups) > 1:
            replies = await self._together([*groups.values()])
        else:
            replies = [
                await self._outcome(entries, self._alone, *self._call(entries))
                for entries in groups.values()
            ]
        for entries, reply in zip(groups.values(), replies):
            if isinstance(reply, asyncio.CancelledError):
                raise reply
            self._deliver(entries, reply)

    @staticmethod
    def _call(entries: list[_Entry]) -> tuple[Any, tuple[Any, ...]]:
        script, key, *header = entries[0][0].head
        steps = words_of([step for request, _ in entries for step in request.steps])
        return script, (1, key, *header, *steps)

    async def _alone(self, script: Any, args: tuple[Any, ...]) -> Any:
        server = self._server
        try:
            return await server.client.evalsha(script.sha, *args)
        except server.errors.NoScriptError:
            return await server.client.eval(script.text, *args)

    async def _together(self, groups: list[list[_Entry]]) -> list[Any]:
        """Several keys: one pipeline, or in a cluster, where keys lie apart, calls side by side."""
        server, calls = self._server, [self._call(entries) for entries in groups]
        apart = [
            functools.partial(self._outcome, entries, self._alone, *call)
            for entries, call in zip(groups, calls)
        ]
        if hasattr(server.client, "keyslot"):
            return await asyncio.gather(*(ask() for ask in apart))

        async def piped() -> list[Any]:
            async with server.client.pipeline(transaction=False) as pipe:
                for script, args in calls:
                    pipe.evalsha(script.sha, *args)
                return await pipe.execute(raise_on_error=False)  # type: ignore[no-any-return]

        replies = await self._outcome([entry for entries in groups for entry in entries], piped)
        if isinstance(replies, Exception):
            return [replies] * len(calls)
        return [
            await ask() if isinstance(reply, server.errors.NoScriptError) else reply
            for ask, reply in zip(apart, replies)
        ]

    async def _outcome(
        self, entries: list[_Entry], call: Callable[..., Awaitable[Any]], *args: Any
    ) -> Any:
        """The reply to a call, or its error.

        It waits while the pool has no connection left, for as long as anybody waits for it.
        """
        end, pause = 0.0, 0.001
        while True:
            began = time.monotonic()
            for request, _ in entries:
                request.asked = began
            try:
                return await call(*args)
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                if not is_no_connection(error):
                    return error
                self._server.not_sent((request for request, _ in entries), error)
                end = end or began + NO_CONNECTION_SECONDS
                await asyncio.sleep(pause)
                if began > end or all(future and future.done() for _, future in entries):
                    return error
            pause = min(0.02, 2 * pause)

    def _deliver(self, entries: list[_Entry], reply: Any) -> None:
        if isinstance(reply, Exception):
            for _, future in entries:
                if future is not None and not future.done():
                    future.set_exception(reply)
            return
        parts = [numbers_of(reply)]
        if len(entries) > 1:
            parts = parts_of(parts[0], [request for request, _ in entries])
        for (request, future), answer in zip(entries, parts):
            if future is None:
                continue
            if future.done():
                self._undo(request, answer)
            else:
                future.set_result(answer)

    def _undo(self, request: Request, answer: list[int]) -> None:
        undo = request.undone(answer)
        if undo is not None:
            self._send_soon((undo, None))
