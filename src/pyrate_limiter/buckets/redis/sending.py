"""Calls of a script as they are sent to Redis: one after the other, or many in one round trip."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from pyrate_limiter.buckets.redis.errors import driver_errors, is_no_connection, too_slow
from pyrate_limiter.buckets.redis.request import answer_of, words_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrate_limiter.buckets.redis.protocols import Client, Reply
    from pyrate_limiter.buckets.redis.request import Answer, Request

    T = TypeVar("T")
    W = TypeVar("W")
    Group = Sequence[Request]
    """Requests that go in one call."""

_NO_CONNECTION_SECONDS = 20  # the longest wait for a free one, as in the driver's blocking pool
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds
_LATELY_SECONDS = 0.2  # for so long the pool's error is the reason of a call that takes too long


class _Calls:
    """How a client is called.

    A script that the server has lost is loaded again. Where the client's pool has no connection
    left, a call waits for one, for as long as anybody waits for its answer.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._unknown: type[Exception] = driver_errors().NoScriptError
        # When the pool was last found to have no connection left, and its error.
        self._used_up: tuple[float, Exception] | None = None

    def too_slow(self, request: Request) -> Exception:
        """The error of a call that took too long: its own, or that there was no connection."""
        if self._used_up is not None:
            lately = time.monotonic() - _LATELY_SECONDS
            asked = request.asked
            if self._used_up[0] > lately and (asked is None or asked > lately):
                return self._used_up[1]
        return too_slow(request.limit or 0)

    def _had_none(self, requests: Group, error: Exception) -> None:
        """There was no connection for the requests, which is what the error says."""
        self._used_up = time.monotonic(), error
        for request in requests:
            request.asked = None


def _is_over(end: float, requests: Group) -> bool:
    """Whether to try no more to get a connection: nobody waits for it, or it takes too long."""
    return time.monotonic() > end or all(request.gone for request in requests)


class Sender(_Calls):
    """Makes the calls of a sync client, one by one."""

    def send(self, group: Group) -> Answer:
        """The answer to requests of one group."""
        end, pause = 0.0, _FIRST_PAUSE
        while True:
            try:
                return self._answer(group)
            except Exception as error:
                if not is_no_connection(error):
                    raise
                self._had_none(group, error)
                end = end or time.monotonic() + _NO_CONNECTION_SECONDS
                time.sleep(pause)
                if _is_over(end, group):
                    raise
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _answer(self, group: Group) -> Answer:
        script, words = group[0].head.script, words_of(group)
        try:
            return answer_of(self._client.evalsha(script.sha, 1, *words))
        except self._unknown:
            return answer_of(self._client.eval(script.text, 1, *words))


class AsyncSender(_Calls):
    """Makes the calls of an async client, several at a time."""

    async def send(self, groups: Sequence[Group]) -> list[Answer | Exception]:
        """The answer to the requests of each group, or their error."""
        if len(groups) == 1:
            try:
                return [await self._answer(groups[0])]
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                if not is_no_connection(error):
                    return [error]
            return [await self._outcome(groups[0], self._answer, groups[0])]
        if hasattr(self._client, "keyslot"):  # in a cluster keys lie apart: calls side by side
            alone = [self._outcome(group, self._answer, group) for group in groups]
            return await asyncio.gather(*alone)
        everybody = [request for group in groups for request in group]
        replies = await self._outcome(everybody, self._replies, groups)
        if isinstance(replies, Exception):
            return [replies] * len(groups)
        return [
            await self._outcome(group, self._answer, group)
            if isinstance(reply, self._unknown)
            else reply
            if isinstance(reply, Exception)
            else answer_of(reply)
            for group, reply in zip(groups, replies)
        ]

    async def _answer(self, group: Group) -> Answer:
        script, words = group[0].head.script, words_of(group)
        try:
            return answer_of(await self._client.evalsha(script.sha, 1, *words))
        except self._unknown:
            return answer_of(await self._client.eval(script.text, 1, *words))

    async def _replies(self, groups: Sequence[Group]) -> list[Reply]:
        """What the server says to each group, in one round trip."""
        async with self._client.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.evalsha(group[0].head.script.sha, 1, *words_of(group))
            replies: list[Reply] = await pipe.execute(raise_on_error=False)
        return replies

    async def _outcome(
        self, requests: Group, call: Callable[[W], Awaitable[T]], what: W
    ) -> T | Exception:
        """What a call for requests gives, or its error."""
        end, pause = 0.0, _FIRST_PAUSE
        while True:
            try:
                return await call(what)
            except Exception as error:  # noqa: BLE001 - it belongs to the callers
                if not is_no_connection(error):
                    return error
                self._had_none(requests, error)
                end = end or time.monotonic() + _NO_CONNECTION_SECONDS
                await asyncio.sleep(pause)
                if _is_over(end, requests):
                    return error
            pause = min(_LONGEST_PAUSE, 2 * pause)
