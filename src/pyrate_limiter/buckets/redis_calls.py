"""Calls that are given a time limit, and asyncio callers that share one call."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from pyrate_limiter.buckets.redis_server import Request, Server

_MOST_STEPS = 500  # in one call of a script: other clients of the server wait for its end
_NUMBERS = 5  # of the reply to each step
_IDLE_HELPERS = 32
_HUNG_SECONDS = 1.0  # after so long, and a caller's time limit, a call holds up no others
_MOST_HUNG = 8

_idle: list[SimpleQueue[Any]] = []


def run_within(
    seconds: float,
    call: Callable[[], Any],
    too_slow: Callable[[float], Exception],
    orphaned: Callable[[Any], None],
) -> Any:
    """Run a call in a helper thread, and leave it alone there when the time is up.

    Args:
        seconds: how long to wait.
        call: what to run.
        too_slow: makes the error to raise then.
        orphaned: is given the result where it comes after all, in that thread.
    """
    job: Future[Any] = Future()
    try:
        helper = _idle.pop()
    except IndexError:
        helper = SimpleQueue()
        threading.Thread(
            target=_help, args=(helper,), name="pyrate-limiter redis", daemon=True
        ).start()
    helper.put((job, call))
    try:
        return job.result(seconds)
    except NotYet:
        if job.done():  # it is the call's own error
            raise
        job.add_done_callback(lambda late: None if late.exception() else orphaned(late.result()))
        raise too_slow(seconds) from None


def _help(work: SimpleQueue[Any]) -> None:
    while True:
        job, call = work.get()
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            _finish(job.set_exception, error)
        else:
            _finish(job.set_result, result)
        del job, call
        if len(_idle) >= _IDLE_HELPERS:
            return
        _idle.append(work)


def _finish(settle: Callable[[Any], None], outcome: Any) -> None:
    with suppress(Exception):  # what undoes a late answer may fail, if the server has gone again
        settle(outcome)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


class _Entry:
    """A request, and who waits for its answer."""

    __slots__ = ("future", "request")

    def __init__(self, request: Request, future: asyncio.Future[Any] | None) -> None:
        self.request = request
        self.future = future


class Lanes:
    """One `Lane` for each event loop that uses the client."""

    def __init__(self, server: Server) -> None:
        import weakref

        self._server = server
        self._lanes: Any = weakref.WeakKeyDictionary()

    def _here(self) -> Lane:
        import asyncio

        loop = asyncio.get_running_loop()
        lane: Lane | None = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = Lane(self._server)
        return lane

    async def ask(self, request: Request) -> Any:
        """Send a request together with those of the other tasks."""
        return await self._here().ask(request)

    async def within(self, limit: float | None, call: Awaitable[Any]) -> Any:
        """Await a call for so long at the most."""
        import asyncio

        try:
            return await asyncio.wait_for(call, limit)
        except asyncio.TimeoutError:
            if limit is None:
                raise
            raise self._server.too_slow(limit) from None


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
        self._since = 0.0
        self._hung: list[tuple[asyncio.Task[None], list[_Entry]]] = []

    async def ask(self, request: Request) -> Any:
        """The answer to a request."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._send_soon(_Entry(request, future))
        timer = None
        if request.limit is not None:
            timer = loop.call_later(request.limit, self._expire, future, request.limit)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._undo(request, future.result())  # cancelled in the turn of its answer
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, future: asyncio.Future[Any], limit: float) -> None:
        if not future.done():
            future.set_exception(self._server.too_slow(limit))
        if self._runner is not None and time.monotonic() - self._since >= _HUNG_SECONDS:
            self._leave(self._runner)

    def _leave(self, runner: asyncio.Task[None]) -> None:
        """Let the call under way go on without holding up the next ones."""
        self._hung.append((runner, self._sent))
        self._runner = None
        if len(self._hung) > _MOST_HUNG:  # each holds a connection
            oldest, batch = self._hung.pop(0)
            for entry in batch:  # those who gave no time limit
                if entry.future is not None and not entry.future.done():
                    error = "Redis does not answer; the connection was given up"
                    entry.future.set_exception(self._server.errors.TimeoutError(error))
            oldest.cancel()
        self._run_soon()

    def _send_soon(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._run_soon()

    def _run_soon(self) -> None:
        import asyncio

        if self._runner is None and self._waiting:
            self._runner = asyncio.ensure_future(self._run())
            self._since = time.monotonic()

    async def _run(self) -> None:
        import asyncio

        this, sent = asyncio.current_task(), self._waiting
        try:
            while self._waiting and self._runner is this:
                batch, self._waiting = self._waiting[:_MOST_STEPS], self._waiting[_MOST_STEPS:]
                sent = [e for e in batch if e.future is None or not e.future.done()]
                self._sent, self._since = sent, time.monotonic()
                await self._send(sent)
        except BaseException:
            if self._runner is this:
                sent, self._waiting = sent + self._waiting, []
            for entry in sent:
                if entry.future is not None:
                    entry.future.cancel()
            raise
        finally:
            if self._runner is this:
                self._runner = None
            self._hung = [hung for hung in self._hung if hung[0] is not this]

    async def _send(self, batch: list[_Entry]) -> None:
        import asyncio

        groups: dict[Any, list[_Entry]] = {}
        for entry in batch:
            request = entry.request
            alone = 0 if request.width else id(entry)  # a script for one step only
            group = (request.script, request.key, request.header, alone)
            groups.setdefault(group, []).append(entry)
        calls = [
            self._call(group, [field for entry in entries for field in entry.request.steps])
            for group, entries in groups.items()
        ]
        if len(calls) > 1:
            replies = await self._together(calls)
        else:
            replies = [await _outcome(self._alone(*call)) for call in calls]
        for entries, given in zip(groups.values(), replies):
            reply = given
            if isinstance(reply, asyncio.CancelledError):
                raise reply
            if not isinstance(reply, (list, Exception)):
                reply = [int(word) for word in reply.split()]
            self._deliver(entries, reply)

    @staticmethod
    def _call(group: Any, steps: list[Any]) -> tuple[Any, tuple[Any, ...]]:
        script, key, header, _ = group
        return script, (1, key, *header, *steps)

    async def _alone(self, script: Any, args: tuple[Any, ...]) -> Any:
        server = self._server
        try:
            return await server.client.evalsha(script.sha, *args)
        except server.errors.NoScriptError:
            return await server.client.eval(script.text, *args)

    async def _together(self, calls: list[Any]) -> list[Any]:
        """Several keys: one pipeline, or in a cluster, where keys lie apart, calls side by side."""
        import asyncio

        server = self._server
        if hasattr(server.client, "keyslot"):
            return await asyncio.gather(*(_outcome(self._alone(*call)) for call in calls))
        async with server.client.pipeline(transaction=False) as pipe:
            for script, args in calls:
                pipe.evalsha(script.sha, *args)
            try:
                replies = await pipe.execute(raise_on_error=False)
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                return [error] * len(calls)
        return [
            await _outcome(self._alone(*call))
            if isinstance(reply, server.errors.NoScriptError)
            else reply
            for call, reply in zip(calls, replies)
        ]

    def _deliver(self, entries: list[_Entry], reply: Any) -> None:
        at = 1
        for entry in entries:
            future, request = entry.future, entry.request
            if isinstance(reply, Exception):
                if future is not None and not future.done():
                    future.set_exception(reply)
                continue
            answer = reply
            if request.width:
                numbers = _NUMBERS * (len(request.steps) // request.width)
                answer = [reply[0], *reply[at : at + numbers]]
                at += numbers
            if future is None:
                continue
            if future.done():
                self._undo(request, answer)
            else:
                future.set_result(answer)

    def _undo(self, request: Request, answer: list[int]) -> None:
        undo = request.orphaned(answer)
        if undo is not None:
            self._send_soon(_Entry(undo, None))


async def _outcome(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - it belongs to the callers
        return error
