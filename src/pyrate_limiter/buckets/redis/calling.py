"""How a bucket or store in Redis asks its server, and what it makes of a call that fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrate_limiter.abstracts.reservation import Reservation
from pyrate_limiter.buckets.redis.errors import is_no_connection, may_have_run, name_key
from pyrate_limiter.buckets.redis.outage import Down
from pyrate_limiter.buckets.redis.request import Request, Step, outcome_of, outcomes_of
from pyrate_limiter.buckets.redis.reservations import Stored, new_id, stored_by
from pyrate_limiter.buckets.remote.denials import Denial
from pyrate_limiter.buckets.remote.fallback import Fallback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrate_limiter._core.driver import Program
    from pyrate_limiter.abstracts.algorithm import Decision
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.buckets.redis.client import Server
    from pyrate_limiter.buckets.redis.request import Answer, Head, Outcome
    from pyrate_limiter.buckets.redis.reservations import StepsInDoubt


class Asks:
    """Runs the steps of a script. Whoever mixes it in has the server, and says what undoes them."""

    if not TYPE_CHECKING:
        __slots__ = ()

    if TYPE_CHECKING:
        _server: Server
        _in_doubt: StepsInDoubt | None
        _full: Denial | None
        _fallback: Fallback | None

    def _undo(self, step: Step, outcome: Outcome) -> Step | None:
        """What undoes a step, for whose outcome nobody waits."""
        raise NotImplementedError

    def _send(
        self, head: Head, steps: list[Step], max_wait_ms: int, *, doubtful: bool, by_server: bool
    ) -> Program[list[Outcome]]:
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
        server = self._server
        outage = server.outage
        if not (outage.raises or outage.may_ask(head.key)):
            raise Down
        earlier = self._in_doubt.some() if self._in_doubt else []
        limit, undo = server.limit(max_wait_ms), self._undo if doubtful else None
        request = Request(head, [*earlier, *steps], limit, undo)
        sent = time.time_ns()
        try:
            answer: Answer = yield server.call(request)
        except BaseException as error:
            if self._failed(error, request.steps if doubtful else earlier, head.key):
                raise Down from error
            raise
        if not outage.raises:
            outage.answered()
        if by_server:
            server.clock.learn(sent, answer[0])
        if earlier:
            self._full = None  # what was in the way is gone
        return outcomes_of(answer)[len(earlier) :]

    def _answer_at_once(self, head: Head, step: Step, *, by_server: bool = True) -> Outcome:
        """The answer to a step of a sync client that has no time limit: `_send` without a program.

        Raises:
            Down: the server is away, and the policy is to go on.
        """
        server, sent = self._server, time.time_ns()
        try:
            answer: Answer = server.call(Request(head, [step], None))
        except BaseException as error:
            if self._failed(error, [step], head.key):
                raise Down from error
            raise
        if by_server:
            server.clock.learn(sent, answer[0])
        return outcome_of(answer)

    def _failed(self, error: BaseException, steps: list[Step], key: str) -> bool:
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

    def _remember(self, rates: Sequence[Rate], weight: int, sent: float, outcome: Outcome) -> None:
        """Note a refusal, which is repeated for a while without asking the server."""
        wait = outcome.wait / 1000
        until = sent + min(wait, self._server.denial_memory)
        self._full = Denial(until, sent + wait, weight, rates, rates[outcome.verdict - 1])

    def _known(
        self, rates: Sequence[Rate], weight: int, max_wait_ms: int, now: float
    ) -> Decision | None:
        """The refusal that there is without asking the server."""
        full = self._full
        if full is None or now >= full.until or weight < full.weight or rates is not full.rates:
            return None
        return None if full.fits - now <= max_wait_ms / 1000 else full.again(now)

    def _hold_from(self, head: Head, hold_ms: int) -> Program[Outcome]:
        """Hold, or for -1 ms end that, whatever the outage policy: nothing stands in for it.

        Returns:
            As the verdict, whether a hold stood; as the wait, when the one is over that stands now.
        """
        step = Step("hold", 0, hold_ms, 0, new_id())
        answer = yield from self._server.ask(Request(head, [step], self._server.limit()))
        self._full = None
        return outcome_of(answer)

    def _cancelled(
        self,
        reservation: Reservation,
        give_back: Callable[[Reservation, Stored, int], Program[bool]],
    ) -> Program[bool]:
        """See `AbstractBucket.cancel`; ``give_back`` gives so many units back to the server."""
        stored = stored_by(reservation)
        if stored is None:
            return False
        if stored.fallback is not None:
            units, stored.fallback = stored.fallback, None
            return (yield from units.cancel())
        weight = min(int(reservation.item.weight), stored.weight)
        stored.weight -= weight
        return (yield from give_back(reservation, stored, weight))

    def _fall_back(
        self, rates: Sequence[Rate], item: RateItem, max_wait_ms: int, buffer_ms: int | None
    ) -> Program[Decision]:
        """Answer while the server is away. -1 ms of waiting only looks."""
        outage = self._server.outage
        if self._fallback is None:
            self._fallback = Fallback(outage.on_error)
        decision, units = yield from self._fallback.decide(
            rates, item, max_wait_ms, buffer_ms, outage.breaker.retry_ms()
        )
        if units is None:
            return decision
        item.timestamp += decision.wait_ms
        stored = Stored("", 0)
        stored.fallback = units
        return Reservation.of(item, decision, stored)
