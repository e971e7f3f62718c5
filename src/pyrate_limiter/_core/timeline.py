"""The time by which items are judged: one rule, whatever the clocks do.

- An item is judged by its own stamp. What comes late counts as the newest: by the time of the
  clock that has stamped it, where the bucket can ask it, else by that of the last one stored.
- A bucket's time never goes back. It is the clock's own, as long as items are stamped by that, and
  goes on with it where they are stamped by another one: stamps of two clocks never meet.
- A clock has stepped back only if it is read again and is behind what it has said itself. What is
  stored then moves with it, or the time goes on from where it was; nobody waits until the clock
  has caught up, and time that was gained so is given back when it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import discard
from pyrate_limiter._core.clocks import AbstractClock
from pyrate_limiter._core.validation import BEGINNING, Unread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrate_limiter._core.rates import Rate

NO_STAMP = BEGINNING - 1  # nothing is trusted
LATEST_MS = 60_000  # no stamp and no awaited reading takes that long to arrive
ROUNDS = 64  # how often a policy may name a moment and then refuse it


def read(clock: AbstractClock) -> int | None:
    """What the clock says; None where it has to be awaited."""
    now: object = clock.now()
    if now.__class__ is int:
        return now
    discard(now)
    return None


class _NoClock(AbstractClock):
    def now(self) -> Any:  # no other clock answers that
        """None: nothing is known about the clock of the stamps."""
        return


NO_CLOCK = _NoClock()


class Timeline:
    """The time of a bucket. Its user holds the lock.

    Two stamps of one clock may be out of order by the shortest interval: by how much they are is
    not looked at.
    """

    if not TYPE_CHECKING:
        __slots__ = ()  # a subclass names them beside its own

    # The time of the last unit that was stored, or waiter that went.
    _latest: int
    # Up to here stamps are in order and need no look at the clock, which has said nearly as much.
    # So the clock has stepped if it is behind `_latest` by more than an interval.
    _trusted: int = NO_STAMP
    # By how much this time is ahead of the clock: where items are stamped by another one, and in a
    # state, which cannot be moved, after a step back.
    _ahead: int = 0
    # Until when nothing is admitted, and how many ms that was to last; None where nothing is held.
    _hold: tuple[int, int] | None = None

    def _begin_time(self) -> None:
        self._latest = BEGINNING
        self._trust(NO_STAMP)
        if self._ahead:
            self._ahead = 0
        if self._hold is not None:
            self._hold = None

    def _trust(self, until: int) -> None:
        """Remember up to when stamps need no look at the clock, if that is worth the memory."""

    def _judged(
        self, stamp: int, clock: AbstractClock, rates: Sequence[Rate], *, asks: bool = False
    ) -> int:
        """The time by which an item stamped ``stamp`` is judged; ``asks``: nothing is stored."""
        if stamp.__class__ is not Unread and self._latest <= stamp <= self._trusted:
            return stamp
        now, slack = read(clock), rates[0].interval
        if stamp.__class__ is Unread:
            return self._judged_now(int(stamp) if now is None else now, rates, awaited=now is None)
        if now is not None:
            if not self._ahead and max(self._latest, now - LATEST_MS) <= stamp <= now + slack:
                self._trust(now + slack)  # it is in order, and of this very clock
                return stamp
            if self._has_stepped(now, slack):
                return self._latest  # whether it was read before the step or after it
            stamp = self._translated(stamp, now, rates, asks=asks)
            self._trust(now + self._ahead + slack)
        return max(self._latest, stamp)

    def _judged_now(self, now: int, rates: Sequence[Rate], *, awaited: bool = False) -> int:
        """`_judged` for what the clock says; ``awaited``: what it said when it was asked."""
        slack = rates[0].interval
        self._give_back(now, rates)
        self._has_stepped(now, max(slack, LATEST_MS) if awaited else slack)
        return max(self._latest, now + self._ahead)

    def _give_back(self, now: int, rates: Sequence[Rate]) -> None:
        """Be no further ahead of the clock than until nothing counts any more."""
        if self._ahead > 0:
            longest = max(
                -(-rate.interval * max(rate.limit, rate.burst) // rate.limit) for rate in rates
            )
            counts_until = self._held(self._latest + longest + 1)
            self._ahead = min(self._ahead, max(0, counts_until - now))

    def _has_stepped(self, now: int, slack: int) -> bool:
        behind = self._latest - now - self._ahead
        if behind > slack:
            self._step_back(behind, now)
        return behind > slack

    def _translated(self, stamp: int, now: int, rates: Sequence[Rate], *, asks: bool) -> int:
        """A stamp of whatever clock, in this time. ``now`` is what the bucket's clock says."""
        slack = rates[0].interval
        if self._ahead:
            is_own = -slack <= now - stamp <= LATEST_MS
            is_other = not is_own and stamp > self._latest
        else:
            is_other = stamp > now + slack or (
                self._latest == BEGINNING and stamp < now - LATEST_MS
            )
            is_own = not is_other
        if is_other and not asks:
            self._ahead = stamp - now
        if not is_own:
            return stamp
        self._give_back(now, rates)
        moment = stamp + self._ahead
        return moment if moment >= self._latest else now + self._ahead  # the newest there can be

    def _held(self, moment: int) -> int:
        """The first moment from that one on that is not held."""
        return moment if self._hold is None else max(moment, self._hold[0])

    def _look_at(self, hold: tuple[int, int], now: int) -> None:
        """Forget a hold that is over. If the clock has stepped back, it begins anew."""
        until, length = hold
        if until <= now:
            self._keep_hold(None)
        elif until - length > now:
            self._keep_hold((now + length, length))

    def _keep_hold(self, hold: tuple[int, int] | None) -> None:
        """Change what is held, and until when."""
        self._hold = hold

    def _hold_for(self, now: int, milliseconds: int) -> int:
        """See `AbstractBucket.hold`; ``now`` was observed."""
        held = self._held(now) - now
        if milliseconds > held:
            self._keep_hold((now + milliseconds, milliseconds))
        return max(held, milliseconds)

    def _end_hold(self, now: int) -> bool:
        """See `AbstractBucket.release_hold`; ``now`` was observed."""
        held = self._held(now) > now
        if held:
            self._keep_hold(None)
        return held

    def _step_back(self, milliseconds: int, now: int) -> None:
        """The clock is so much behind what it said; the time goes on from where it was."""
        del now
        self._ahead += milliseconds
        self._trust(NO_STAMP)
