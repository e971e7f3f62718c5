"""How a bucket or store in Redis asks its server, and what it makes of a call that fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrate_limiter.buckets.redis.errors import is_no_connection, may_have_run, name_key
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.request import NUMBERS, Request
from pyrate_limiter.buckets.remote.fallback import Fallback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.redis.client import Server
    from pyrate_limiter.buckets.redis.request import Answer, Head
    from pyrate_limiter.buckets.redis.reservations import StepsInDoubt
    from pyrate_limiter.buckets.remote.denials import Denial
    from pyrate_limiter.buckets.remote.fallback import FallbackUnits


class Asks:
    """Runs the steps of a script. Whoever mixes it in has the server, and says what undoes them."""

    if not TYPE_CHECKING:
        __slots__ = ()

    if TYPE_CHECKING:
        _server: Server
        _in_doubt: StepsInDoubt | None
        _full: Denial | None
        _fallback: Fallback | None

    def _undo(self, request: Request, answer: Answer) -> Request | None:
        """What undoes steps whose answers nobody waits for."""
        raise NotImplementedError

    def _send(
        self, head: Head, steps: list[str], max_wait_ms: int, *, doubtful: bool, by_server: bool
    ) -> Program[Answer]:
        """Run steps, behind those that make good what earlier calls have left in doubt.

        Args:
            head: what the call begins with.
            steps: what to run.
            max_wait_ms: how long the caller waits for it.
            doubtful: the steps may have stored something even where no answer comes.
            by_server: the answer tells the time of the server.

        Raises:
            Down: the server is away, and the policy is to go on.
        """
        server, key = self._server, head[1]
        outage = server.outage
        if not (outage.raises or outage.may_ask(key)):
            raise Down
        earlier = self._in_doubt.some() if self._in_doubt else []
        sent = time.time_ns()
        try:
            limit, orphaned = server.limit(max_wait_ms), self._undo if doubtful else None
            answer: Answer = yield server.call(Request(head, [*earlier, *steps], limit, orphaned))
        except BaseException as error:
            if self._failed(error, [*earlier, *steps] if doubtful else earlier, key):
                raise Down from error
            raise
        if not outage.raises:
            outage.answered()
        if by_server:
            server.clock.learn(sent, answer[0])
        if not earlier:
            return answer
        self._full = None  # what was in the way is gone
        return [answer[0], *answer[-NUMBERS * len(steps) :]]

    def _answer_at_once(self, head: Head, step: str, *, by_server: bool = True) -> Answer:
        """The answer to a step of a sync client that has no time limit: `_send` without a program.

        Raises:
            Down: the server is away, and the policy is to go on.
        """
        server, sent = self._server, time.time_ns()
        try:
            answer: Any = server.call(Request(head, [step], None))  # of a sync client
        except BaseException as error:
            if self._failed(error, [step], head[1]):
                raise Down from error
            raise
        if by_server:
            server.clock.learn(sent, answer[0])
        return answer  # type: ignore[no-any-return] # as it says

    def _fall_back(
        self, rates: Sequence[Rate], item: RateItem, patience_ms: int, buffer_ms: int | None
    ) -> Program[tuple[Decision, FallbackUnits | None]]:
        """Answer while the server is away, see `Fallback.decide`."""
        outage = self._server.outage
        if self._fallback is None:
            self._fallback = Fallback(outage.on_error)
        retry_ms = outage.breaker.retry_ms()
        return self._fallback.decide(rates, item, patience_ms, buffer_ms, retry_ms)

    def _failed(self, error: BaseException, steps: list[str], key: str) -> bool:
        """Note that a call about a key has failed; its steps may have been done all the same.

        Returns:
            Whether that is an outage, and the policy is to go on.
        """
        name_key(error, key)
        if self._in_doubt is not None and may_have_run(error):
            self._in_doubt.add(steps)
        outage = self._server.outage
        if isinstance(error, Exception) and outage.failed(error, key):
            return True
        # Where a server hangs, so do all connections of a small pool.
        return outage.away and is_no_connection(error)
