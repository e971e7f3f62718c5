"""How a bucket or store in Redis asks its server, and what it makes of a call that fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.redis.outage import Down, is_no_connection, name_key
from pyrate_limiter.buckets.redis.request import NUMBERS, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.buckets.redis.client import Server
    from pyrate_limiter.buckets.redis.reservations import Doubts


class Asks:
    """Runs the steps of a script. Whoever mixes it in has the server, and says what undoes them."""

    __slots__ = ()

    if TYPE_CHECKING:
        _server: Server
        _doubts: Doubts | None

    def _undo(self, request: Request, answer: list[int]) -> Request | None:
        """What undoes steps whose answers nobody waits for."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Remember no refusal."""
        raise NotImplementedError

    def _send(
        self,
        head: tuple[Any, ...],
        steps: list[str],
        patience_ms: int,
        *,
        doubtful: bool,
        by_server: bool,
    ) -> Generator[Any, Any, list[int]]:
        """Run steps, behind those that make good what earlier calls have left in doubt.

        Args:
            head: what the call begins with.
            steps: what to run.
            patience_ms: how long the caller waits for it.
            doubtful: the steps may have stored something even where no answer comes.
            by_server: the answer tells the time of the server.
        """
        server = self._server
        if not server.outage.may_try():
            raise Down
        doubts = self._doubts.some() if self._doubts else []
        sent = time.time_ns()
        try:
            limit, orphaned = server.limit(patience_ms), self._undo if doubtful else None
            answer = yield Request(head, [*doubts, *steps], limit, orphaned)
        except BaseException as error:
            if self._failed(error, [*doubts, *steps] if doubtful else doubts, head[1]):
                raise Down from error
            raise
        server.outage.answered()
        if doubts:
            self._forget()  # what was in the way is gone
        if by_server:
            server.clock.learn(sent, answer[0])
        return [answer[0], *answer[-NUMBERS * len(steps) :]]

    def _failed(self, error: BaseException, steps: list[str], key: str) -> bool:
        """Note that a call about a key has failed; its steps may have been done all the same.

        Returns:
            Whether that is an outage, and the policy is to go on.
        """
        outage = self._server.outage
        name_key(error, key)  # not all that fails has come by way of `Server.run`
        if self._doubts is not None and outage.may_have_run(error):
            self._doubts.add(steps)
        if not isinstance(error, Exception) or not outage.covers(error):
            # Where a server hangs, so do all connections of a small pool.
            return outage.away and is_no_connection(error)
        outage.failed(error, key)
        return True

    def _send_at_once(
        self,
        head: tuple[Any, ...],
        step: str,
        decide: Callable[[list[int]], Decision],
        without: Callable[[], Generator[Any, Any, Decision]],
        *,
        by_server: bool = True,
    ) -> Any:
        """One step with nothing in the way: no time limit, no outage.

        It is what `_send` does, at a fraction of the price.
        """
        server = self._server
        if server.is_async:
            return self._send_soon(head, step, decide, without, by_server=by_server)
        try:
            answer = self._answer_at_once(head, step, by_server=by_server)
        except Down:
            return server.run(without())
        return decide(answer)

    def _answer_at_once(
        self, head: tuple[Any, ...], step: str, *, by_server: bool = True
    ) -> list[int]:
        """The server's answer to such a step, for a sync client."""
        server, sent = self._server, time.time_ns()
        try:
            answer = server.crews.ask_at_once(head, step)
        except BaseException as error:
            if self._failed(error, [step], head[1]):
                raise Down from error
            raise
        if by_server:
            server.clock.learn(sent, answer[0])
        return answer

    async def _send_soon(
        self,
        head: tuple[Any, ...],
        step: str,
        decide: Callable[[list[int]], Decision],
        without: Callable[[], Generator[Any, Any, Decision]],
        *,
        by_server: bool,
    ) -> Decision:
        server, sent = self._server, time.time_ns()
        try:
            answer = await server.lanes.ask(Request(head, [step], None, self._undo))
        except BaseException as error:
            if self._failed(error, [step], head[1]):
                instead: Any = server.run(without())
                return await instead  # type: ignore[no-any-return]
            raise
        if by_server:
            server.clock.learn(sent, answer[0])
        return decide(answer)
