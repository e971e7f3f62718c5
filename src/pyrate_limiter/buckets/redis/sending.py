"""Calls of a script as they are sent to Redis: one after the other, or many in one round trip."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pyrate_limiter.buckets.redis.errors import driver_errors, is_no_connection, too_slow
from pyrate_limiter.buckets.redis.request import answer_of, words_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pyrate_limiter.buckets.redis.protocols import Client
    from pyrate_limiter.buckets.redis.request import Answer, Request, Script

    W = TypeVar("W")
    R = TypeVar("R")

_NO_CONNECTION_SECONDS = 20  # the longest wait for a free one, as in the driver's blocking pool
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds


_LATELY_SECONDS = 0.2  # for so long the pool's error is the reason of a call that takes too long


class _Pool:
    """What is known of the client's pool of connections."""

    def __init__(self) -> None:
        # When it was last found to have no connection left, and its error.
        self._used_up: tuple[float, Exception] | None = None

    def too_slow(self, request: Request) -> Exception:
        """The error of a call that took too long: its own, or that there was no connection."""
        if self._used_up is not None:
            lately = time.monotonic() - _LATELY_SECONDS
            asked = request.asked
            if self._used_up[0] > lately and (asked is None or asked > lately):
                return self._used_up[1]
        return too_slow(request.limit or 0)

    def asks(self, requests: Iterable[Request]) -> None:
        """The requests are given to the client."""
        now = time.monotonic()
        for request in requests:
            request.asked = now

    def had_none(self, requests: Iterable[Request], error: Exception) -> None:
        """There was no connection for the requests, which is what the error says."""
        self._used_up = time.monotonic(), error
        for request in requests:
            request.asked = None


def _is_over(end: float, requests: Sequence[Request]) -> bool:
    """Whether to try no more to get a connection: nobody waits for it, or it takes too long."""
    return time.monotonic() > end or all(request.gone for request in requests)


def _call(requests: Sequence[Request]) -> tuple[Script, tuple[Any, ...]]:
    """The script of requests of one group, and what follows it in their call."""
    script, key, *line = requests[0].head
    if len(requests) == 1:
        steps = requests[0].steps
    else:
        steps = [step for request in requests for step in request.steps]
    return script, (1, key, *line, *words_of(steps))


class Sender(_Pool):
    """Makes the calls of a sync client, one by one.

    A script that the server has lost is loaded again. Where the client's pool has no connection
    left, a call waits for one, for as long as anybody waits for its answer.

    Args:
        client: the client.
    """

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self._unknown: type[Exception] = driver_errors().NoScriptError

    def send(self, requests: Sequence[Request]) -> Answer:
        """The answer to requests of one group."""
        script, words = _call(requests)
        end, pause = time.monotonic() + _NO_CONNECTION_SECONDS, _FIRST_PAUSE
        while True:
            self.asks(requests)
            try:
                try:
                    return answer_of(self._client.evalsha(script.sha, *words))
                except self._unknown:
                    return answer_of(self._client.eval(script.text, *words))
            except Exception as error:
                if not is_no_connection(error):
                    raise
                self.had_none(requests, error)
                time.sleep(pause)
                if _is_over(end, requests):
                    raise
            pause = min(_LONGEST_PAUSE, 2 * pause)


class AsyncSender(_Pool):
    """Makes the calls of an async client, several at a time; see `Sender`.

    Args:
        client: the client.
    """

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self._unknown: type[Exception] = driver_errors().NoScriptError

    async def send(self, groups: Sequence[Sequence[Request]]) -> list[Answer | Exception]:
        """The answer to the requests of each group, or their error."""
        if len(groups) == 1:
            return [await self._only(groups[0])]
        if hasattr(self._client, "keyslot"):  # in a cluster keys lie apart: calls side by side
            return await asyncio.gather(
                *(self._outcome(group, self._alone, group) for group in groups)
            )
        everybody = [request for group in groups for request in group]
        replies = await self._outcome(everybody, self._piped, groups)
        if isinstance(replies, Exception):
            return [replies] * len(groups)
        return [
            await self._outcome(group, self._alone, group)
            if isinstance(reply, self._unknown)
            else reply
            for group, reply in zip(groups, replies)
        ]

    async def _only(self, group: Sequence[Request]) -> Answer | Exception:
        """`_outcome` of `_alone`, with less in the way of the usual case."""
        script, words = _call(group)
        self.asks(group)
        try:
            return answer_of(await self._client.evalsha(script.sha, *words))
        except Exception as error:  # noqa: BLE001 - it belongs to the callers
            if not isinstance(error, self._unknown) and not is_no_connection(error):
                return error
        return await self._outcome(group, self._alone, group)

    async def _alone(self, group: Sequence[Request]) -> Answer:
        script, words = _call(group)
        try:
            return answer_of(await self._client.evalsha(script.sha, *words))
        except self._unknown:
            return answer_of(await self._client.eval(script.text, *words))

    async def _piped(self, groups: Sequence[Sequence[Request]]) -> list[Answer | Exception]:
        async with self._client.pipeline(transaction=False) as pipe:
            for script, words in map(_call, groups):
                pipe.evalsha(script.sha, *words)
            replies = await pipe.execute(raise_on_error=False)
        return [reply if isinstance(reply, Exception) else answer_of(reply) for reply in replies]

    async def _outcome(
        self, requests: Sequence[Request], call: Callable[[W], Awaitable[R]], what: W
    ) -> R | Exception:
        """What a call for the requests gives, or its error."""
        end, pause = time.monotonic() + _NO_CONNECTION_SECONDS, _FIRST_PAUSE
        while True:
            self.asks(requests)
            try:
                return await call(what)
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                if not is_no_connection(error):
                    return error
                self.had_none(requests, error)
                await asyncio.sleep(pause)
                if _is_over(end, requests):
                    return error
            pause = min(_LONGEST_PAUSE, 2 * pause)
