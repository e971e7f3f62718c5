"""The log shared by the processes of one host."""

from __future__ import annotations

from contextlib import nullcontext
from multiprocessing.managers import ListProxy
from typing import TYPE_CHECKING, Any

from pyrate_limiter._core.process_lock import LAST_SECONDS, has_end, lock_seconds
from pyrate_limiter._core.timeline import read
from pyrate_limiter._core.validation import check_item
from pyrate_limiter._core.waited_for import waited_for
from pyrate_limiter.abstracts.algorithm import Decision, LogAlgorithm, SlidingWindowLog
from pyrate_limiter.abstracts.rate import Rate, RateItem
from pyrate_limiter.buckets.log.units_view import UnitsView
from pyrate_limiter.buckets.multiprocess.list_proxy import SharedItems, give_up, new_list
from pyrate_limiter.buckets.multiprocess.manager_list import LogList
from pyrate_limiter.buckets.multiprocess.replica import LogFile, RecordingLog
from pyrate_limiter.buckets.multiprocess.session import Session, Within
from pyrate_limiter.errors import NotShared, SharedStorageBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from pyrate_limiter.abstracts.reservation import Reservation
    from pyrate_limiter.buckets.multiprocess.list_proxy import AnyList
    from pyrate_limiter.buckets.multiprocess.session import Lock, Medium


class SharedLogBucket(RecordingLog):
    """What a `MultiprocessBucket` does, whose name is public."""

    blocks: bool = True
    failing_rate: Rate | None

    _lock: Session

    def __init__(
        self,
        rates: Rate | Sequence[Rate],
        items: AnyList,
        mp_lock: Lock,
        algorithm: LogAlgorithm | None = None,
    ) -> None:
        if not isinstance(items, ListProxy):
            raise NotShared("items", items)
        self._records = []
        self._begin_notes()
        super().__init__(rates, algorithm)
        self._share(items, mp_lock)

    def _share(self, items: AnyList, mp_lock: Lock) -> None:
        self._items = items
        self.mp_lock = mp_lock
        medium: Medium = LogList(self, items)
        if isinstance(items, SharedItems):
            medium = LogFile(self, items.file)
        self._lock = Session(self, medium, mp_lock)

    @classmethod
    def init(cls, rates: Rate | Sequence[Rate], algorithm: LogAlgorithm | None = None) -> Self:
        """A bucket in memory of its own, without a helper process.

        It holds three file descriptors. Where the system allows 1024, that is enough for some 300
        of them: a limit for each of many names belongs into one table, see `SQLiteBucket.per_key`.

        Where the system has no record locks (Windows) it is a manager's list, served by a helper
        process, and a lock that a dying process can take with it.

        Raises:
            InvalidRateList: some rate of the list can never matter.
            AlgorithmMismatch: the algorithm does not work on a log.
            OSError: the memory is full, or too many files are open. Then nothing is left behind.
        """
        cls._checked(rates, algorithm)  # raises before anything is made
        return cls(rates, *new_list(StoredUnits), algorithm)

    @property
    def items(self) -> Any:  # the base's is a `UnitsView`
        """The shared list: the stored units as `RateItem`, oldest first."""
        return self._items

    def limiter_lock(self) -> Lock:
        """The lock that all processes share."""
        return self.mp_lock

    def _whole(self) -> AbstractContextManager[None]:
        return nullcontext()  # what was not pushed has not happened

    def _note_reservations(self) -> None:
        """Nothing: those of other processes count as well."""

    def straight(self) -> Callable[[str, int], bool | None] | None:
        """See `LogBucket.straight`; there is none over a manager's list."""
        stock = type(self._algorithm) is SlidingWindowLog and isinstance(self._items, SharedItems)
        return super().straight() if stock else None

    def take(self, name: str, weight: int) -> bool | None:
        """`put` an item of this moment, without making the item.

        Returns:
            None where that cannot be said at once: somebody waits, the clock has to be awaited, or
            under asyncio another holds the lock.
        """
        session = self._lock
        if (waited_for and id(self) in waited_for) or not session.enter_at_once():
            return None
        try:
            now = read(self._clock)
            if now is not None and now < self._newest:
                now = self._judged_now(now, self._rates)
            verdict = None if now is None else self._put_now(name, weight, now)
        except BaseException:
            session.leave(False)
            raise
        session.leave(True)
        return verdict

    def reserve(
        self,
        item: RateItem,
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        limit_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Decision:
        del brief
        return self.reserve_several([item], max_wait_ms, buffer_ms, None, limit_ms)[0]

    def reserve_several(
        self,
        items: Sequence[RateItem],
        max_wait_ms: int = 0,
        buffer_ms: int | None = None,
        not_before: int | None = None,
        limit_ms: int | None = None,
    ) -> list[Decision]:
        for item in items:
            check_item(item)  # before anything is waited for
        try:
            with Within(self._lock, lock_seconds(max_wait_ms, limit_ms)):
                return super().reserve_several(items, max_wait_ms, buffer_ms, not_before)
        except SharedStorageBusy:
            if not has_end(max_wait_ms, limit_ms):
                raise
            return [Decision(self._rates[0], 0)]

    def confirm(self, reservation: Reservation, now: int, max_wait_ms: int = 0) -> Decision:
        """See `AbstractBucket.confirm`. Nothing changes where the lock is not had in time."""
        try:
            with Within(self._lock, lock_seconds(max_wait_ms, busy_seconds=LAST_SECONDS)):
                return super().confirm(reservation, now, max_wait_ms)
        except SharedStorageBusy:
            return Decision(self._rates[0], 0)

    def cancel(self, reservation: Reservation) -> bool:
        """See `AbstractBucket.cancel`. Nothing changes where the lock is not had in time."""
        try:
            with Within(self._lock, LAST_SECONDS):
                return super().cancel(reservation)
        except SharedStorageBusy:
            return False

    def count(self) -> int:
        with self._lock:
            return super().count()

    def retire(self, now: int) -> bool:
        """False: other processes may be about to use it."""
        del now
        return False

    def close(self) -> None:
        """Give up the shared memory, in the process that made it; others may go on with theirs.

        A helper process that `init` has started is ended.
        """
        super().close()
        give_up(self._items)

    def __getstate__(self) -> dict[str, object]:
        own = {"_lock", "_records", "_noted", "_lookbacks", "_note_at"}
        names = {"_rates", "_algorithm", "_clock", *self.__dict__} - own
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._records = []
        self._begin_notes()
        self.failing_rate = None
        self._clear()
        for name, value in state.items():
            setattr(self, name, value)
        self._share(self._items, self.mp_lock)


class StoredUnits(SharedItems):
    """The items of `MultiprocessBucket.init`."""

    _reader: SharedLogBucket | None = None

    def _now(self) -> Sequence[RateItem]:
        reader = self._reader
        if reader is None:
            reader = self._reader = SharedLogBucket(_ANY, self, self.file.lock)
        with reader._lock:
            return UnitsView(reader, reader._lock)


_ANY = [Rate(1, 1 << 40)]
