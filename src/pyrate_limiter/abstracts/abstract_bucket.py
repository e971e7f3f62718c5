"""What users subclass: a bucket that limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.awaitables import all_of, then
from pyrate_limiter._core.clocks import AbstractClock, MonotonicClock, WallClock
from pyrate_limiter._core.rate_list import RateList, sorted_rates
from pyrate_limiter._core.validation import check_clock
from pyrate_limiter.abstracts.algorithm import ADMITTED, Decision, LogAlgorithm, SlidingWindowLog
from pyrate_limiter.errors import CannotHold, NoRates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pyrate_limiter.abstracts.algorithm import Algorithm
    from pyrate_limiter.abstracts.rate import Rate, RateItem
    from pyrate_limiter.abstracts.reservation import Reservation


class AbstractBucket(ABC):
    """Stores the units that were admitted, and decides whether more fit.

    A subclass defines `put`, `leak`, `flush`, `count` and `peek`, any of them sync or async, and
    sets ``self.rates``. That is enough for a `Limiter`, which tries again after each wait.

    A bucket that can store units for a future moment also defines `reserve`, `confirm`, `cancel`
    and `check`. Then each waiter sleeps once, until the moment that is reserved for it.
    """

    __module__ = "pyrate_limiter.abstracts.bucket"

    if not TYPE_CHECKING:
        __slots__ = ()  # subclasses without slots have a __dict__, which a checker cannot know

    failing_rate: Rate | None = None
    """The rate that denied the last `put`, None if it was admitted."""

    is_async: bool | None = None
    """Whether the methods have to be awaited; None: what they return tells."""

    blocks: bool = False
    """Whether a call may wait for a disk, a socket or a lock. Under asyncio it then runs in a
    worker thread."""

    @property
    def store_id(self) -> object:
        """The same for all buckets of one store. Those that block share worker threads."""
        return id(self)

    puts_at_once: bool = False
    """Whether `put` is one step in this process's memory, with the verdict of `reserve`."""

    answers_in_order: bool = False
    """Whether awaited calls are answered in the order in which they were made."""

    _clock: AbstractClock = MonotonicClock()
    _algorithm: Any = SlidingWindowLog()  # of the kind that the bucket runs

    @property
    def rates(self) -> list[Rate]:
        """The rates, ordered by interval. Assigning one or several checks and sorts them.

        Raises:
            InvalidRateList: on assigning a list in which some rate can never matter.
            NoRates: none were assigned yet.
        """
        try:
            return self._rates
        except AttributeError:
            raise NoRates(self) from None

    @rates.setter
    def rates(self, rates: Rate | Sequence[Rate]) -> None:
        self._rates = sorted_rates(rates)

    if TYPE_CHECKING:
        _rates: RateList

    @abstractmethod
    def put(self, item: RateItem) -> bool | Awaitable[bool]:
        """Store all ``item.weight`` units if they fit now, else none, and set `failing_rate`."""

    @abstractmethod
    def leak(self, current_timestamp: int | None = None) -> int | Awaitable[int]:
        """Drop the units that are outside every window at that time, and say how many."""

    @abstractmethod
    def flush(self) -> Awaitable[None] | None:
        """Empty the bucket and clear `failing_rate`."""

    @abstractmethod
    def count(self) -> int | Awaitable[int]:
        """The number of stored units, with expired ones that were not leaked yet."""

    @abstractmethod
    def peek(self, index: int) -> RateItem | Awaitable[RateItem | None] | None:
        """The unit ``index`` places from the newest, None if there is none."""

    def now(self) -> int | Awaitable[int]:
        """The time on the bucket's clock, in ms."""
        return self._clock.now()

    def stamp(self) -> int | Awaitable[int]:
        """The timestamp of a new item: `now`.

        It may be an estimate where the step that admits the item reads the clock again.
        """
        return self.now()

    def follow(self, clock: AbstractClock) -> None:
        """Use this clock from now on.

        A bucket whose own clock counts from the epoch, such as a server's, keeps that where it is
        given a `WallClock`.

        Raises:
            WrongType: it has no ``now()``, or is a class that was not called.
        """
        check_clock(clock)
        if not isinstance(clock, WallClock) or isinstance(self._clock, MonotonicClock):
            self._clock = clock

    def put_decision(self, item: RateItem) -> Decision | Awaitable[Decision]:
        """`put`, with the wait as part of the answer."""

        def decide(admitted: bool) -> Decision | Awaitable[Decision]:
            return ADMITTED if admitted else then(self.waiting(item), self._denied)

        return then(self.put(item), decide)

    def _denied(self, waiting_ms: int) -> Decision:
        failing_rate = self.failing_rate or self.rates[0]
        return Decision(failing_rate, None if waiting_ms < 0 else waiting_ms)

    def waiting(self, item: RateItem) -> int | Awaitable[int]:
        """Milliseconds after the item's own timestamp until its weight fits.

        0 if the last `put` was admitted, -1 if the weight can never fit.
        """
        rate = self.failing_rate
        if rate is None:
            return 0
        algorithm: Algorithm = self._algorithm
        if item.weight > algorithm.max_weight(rate):
            return -1
        if not isinstance(algorithm, LogAlgorithm):
            return 0
        offset = algorithm.blocking_offset(rate, item.weight)

        def after(unit: RateItem | None) -> int:
            blocking = None if unit is None else unit.timestamp
            # A policy that names no wait leaves it at trying again.
            return max(0, algorithm.retry_after(rate, item.timestamp, blocking) or 0)

        return then(None if offset is None else self.peek(offset), after)

    def reserve(
        self, item: RateItem, max_wait_ms: int = 0, buffer_ms: int | None = None
    ) -> Decision | Awaitable[Decision]:
        """Admit the item now, or at the earliest moment within ``max_wait_ms``, in one atomic step.

        This default cannot store the future: it is `put_decision`. A `reserve` may take two more
        arguments, which a limiter then gives by name: ``limit_ms``, how long the call itself may
        take (without it, as long as ``max_wait_ms``); and ``brief``, whether the caller asks for
        the verdict and the wait alone.

        Args:
            item: a bucket that stores it writes its moment to ``item.timestamp``.
            max_wait_ms: how long the caller is willing to wait.
            buffer_ms: kept clear after the earliest moment; None adapts it to the failing interval.

        Returns:
            A `Reservation` where units were stored. With ``wait_ms`` 0: go. Otherwise they are
            stored for that future moment: sleep until then and `confirm`. A `Decision` that is
            false where nothing was stored; one that is true says to go, with nothing to be given
            back.
        """
        del max_wait_ms, buffer_ms
        return self.put_decision(item)

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """`reserve` for the first waiters of a queue, in one atomic step.

        This default reserves for the first alone.

        Args:
            items: what they wait for, in their order; at least one.
            max_wait_ms: as in `reserve`, for each of them.
            buffer_ms: as in `reserve`.
            not_before: the moment, on the bucket's clock, of the last reservation that the queue
                already holds. None: the first may go to any moment.
            limit_ms: how long the call itself may take; None is as long as ``max_wait_ms``.

        Returns:
            The answers for the items from the first on. It ends with the first refusal, and may
            end earlier. No reservation is placed before the one of the item before it.
        """
        del not_before, limit_ms
        return then(self.reserve(items[0], max_wait_ms, buffer_ms), lambda decision: [decision])

    def confirm(
        self, reservation: Reservation, now: int, max_wait_ms: int = 0
    ) -> Decision | Awaitable[Decision]:
        """Use a reservation, when its waiter has woken at ``now``.

        The units of a late waiter are moved to ``now``. Where other late waiters have used up the
        room, they are moved to the next moment that fits, and the answer says how long to sleep; if
        that exceeds ``max_wait_ms`` they are cancelled, and the answer is a refusal.

        Returns:
            The reservation as it is now, or a refusal.
        """
        del now, max_wait_ms
        return reservation.with_wait()

    def confirm_several(
        self, reservations: Sequence[Reservation], now: int, max_wait_ms: int = 0
    ) -> list[Decision] | Awaitable[list[Decision]]:
        """`confirm` for reservations of one queue that are due together, in their order.

        The answers may be fewer than the reservations; this default confirms the first alone.
        """
        confirmed = self.confirm(reservations[0], now, max_wait_ms)
        return then(confirmed, lambda decision: [decision])

    def detach(self, reservation: Reservation) -> Reservation | Awaitable[Reservation]:
        """Count the units as used when their moment comes, for nobody will `confirm` them.

        This default is for a bucket in which they count from when they are stored.

        Returns:
            The reservation as `cancel` takes it from now on.
        """
        return reservation

    def cancel(self, reservation: Reservation) -> bool | Awaitable[bool]:
        """Give back units that nobody needs any more; False if they are not stored.

        `Reservation.part` of a reservation gives only so many of its units back.
        """
        del reservation
        return False

    def cancel_several(
        self, reservations: Sequence[Reservation]
    ) -> list[bool] | Awaitable[list[bool]]:
        """`cancel` for each of the reservations."""
        return all_of([self.cancel(reservation) for reservation in reservations])

    def hold(self, item: RateItem, hold_ms: int) -> int | Awaitable[int]:
        """Admit nothing for so many ms from the item's timestamp on.

        `confirm` moves what is reserved for that time. A hold takes no units. One that lasts longer
        already is left as it is. `flush` ends it.

        Args:
            item: its name, and the time of the call; its weight is 0.
            hold_ms: how long.

        Returns:
            Milliseconds until the hold that stands now is over.

        Raises:
            CannotHold: the bucket cannot, as this default.
        """
        del item, hold_ms
        raise CannotHold(self)

    def release_hold(self, item: RateItem) -> bool | Awaitable[bool]:
        """End the hold; False if none stands.

        Raises:
            CannotHold: the bucket cannot, as this default.
        """
        del item
        raise CannotHold(self)

    def check(self, item: RateItem) -> Decision | Awaitable[Decision]:
        """What `reserve` would answer to somebody who does not wait; nothing is stored.

        This default asks the bucket's policy about the one unit per rate that decides.
        """
        algorithm: Algorithm = self._algorithm
        rates, now, weight = self.rates, item.timestamp, item.weight
        for rate in rates:
            if weight > algorithm.max_weight(rate):
                return Decision(rate)
        if not (weight and isinstance(algorithm, LogAlgorithm)):
            return ADMITTED

        def decide(units: list[RateItem | None]) -> Decision:
            failing, wait_ms = None, 0
            for rate, unit in zip(rates, units):
                if unit is not None and unit.timestamp >= algorithm.window_start(rate, now):
                    failing = failing or rate
                    # A policy that names no wait leaves it at trying again.
                    wait = algorithm.retry_after(rate, now, unit.timestamp) or 0
                    wait_ms = max(wait_ms, wait)
            return ADMITTED if failing is None else Decision(failing, wait_ms)

        return then(all_of([self.peek(rate.limit - weight) for rate in rates]), decide)

    def pause(self, reservation: Reservation) -> float:
        """How long its holder sleeps, in seconds, as exactly as the clock can say."""
        return reservation.wait

    def limiter_lock(self) -> Any:  # of any kind: their `acquire` take different arguments
        """A cross-process lock to be held around each attempt, or None."""
        return None

    def close(self) -> None:
        """Release what the bucket opened; may be called again.

        From then on the buckets of this library raise `BucketClosed`. What was handed in, such as a
        client, a pool or a connection, stays open.
        """
        return

    def _let_go(self) -> None:
        """What `Limiter.close` does to its buckets."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
